//! What scripts say and what Rhai reads: two things are put right on the way in.
//!
//! FHIR's element names may stand in scripts although some are words of Rhai (`use`, `default`, `package`, …):
//! after a dot, and as a key of a map literal, every word is a plain name.
//!
//! Every function gets a name of its own, unlike any in another script. Rhai remembers for a whole run which
//! function a name stands for, across modules, so two scripts with a `make(out, msg)` each would call each
//! other's; and a function `put` would answer every `out.put(…)`. A test holds both.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use rhai::{Engine, Token};

thread_local! {
    static SEEN: RefCell<Seen> = RefCell::default();
}

/// The functions of a script, and what marks them as its own.
#[derive(Debug, Clone, Default)]
pub(super) struct Functions {
    pub names: BTreeSet<String>,
    pub mark: usize,
}

/// What the script at hand may call by a name that is given anew: its own functions and those of its imports.
#[derive(Debug, Clone, Default)]
pub(super) struct Renames {
    pub own: Functions,
    /// By alias.
    pub imports: BTreeMap<String, Functions>,
}

/// What stands before the token at hand.
#[derive(Default)]
struct Seen {
    before: Before,
    /// One entry for each open bracket: whether it is a map literal.
    open: Vec<bool>,
    renames: Renames,
    /// The word before, if the token before was one.
    word: String,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Before {
    #[default]
    Other,
    Dot,
    /// `#{`, or a comma in a map literal.
    Key,
    /// `alias::`
    Alias,
    /// A word that was made a name: the tokenizer takes a sign after it for unary.
    Name,
}

impl Functions {
    /// What a function of this script is called inside.
    pub fn inside(&self, name: &str) -> String {
        format!("{name}_{}", self.mark)
    }

    /// The name that one of this script's functions is given.
    pub fn rename(&self, name: &str) -> Option<String> {
        self.names.contains(name).then(|| self.inside(name))
    }
}

/// Has the engine read scripts so. Call [`begin`] before each.
pub(super) fn register(engine: &mut Engine) {
    #[allow(deprecated)] // "considered volatile": pinned by the tests below
    engine.on_parse_token(|token, _, _| SEEN.with_borrow_mut(|seen| seen.next(token)));
}

/// Begins a script: forgets the one before.
pub(super) fn begin(renames: Renames) {
    SEEN.with_borrow_mut(|seen| *seen = Seen { renames, ..Seen::default() });
}

impl Seen {
    fn next(&mut self, token: Token) -> Token {
        let word = match &token {
            Token::Identifier(name) => name.to_string(),
            _ => String::new(),
        };
        let (token, renamed) = match (self.before, token) {
            (Before::Dot | Before::Key, token) => as_name(token),
            (Before::Alias, Token::Identifier(name)) => {
                let functions = self.renames.imports.get(&self.word);
                (given(functions.and_then(|functions| functions.rename(&name)), name), false)
            }
            (Before::Name, Token::UnaryPlus) => (Token::Plus, false),
            (Before::Name, Token::UnaryMinus) => (Token::Minus, false),
            (_, Token::Identifier(name)) => (given(self.renames.own.rename(&name), name), false),
            (_, token) => (token, false),
        };
        self.before = if renamed { Before::Name } else { Before::Other };
        match &token {
            Token::Period | Token::Elvis => self.before = Before::Dot,
            Token::DoubleColon => self.before = Before::Alias,
            Token::MapStart => {
                self.open.push(true);
                self.before = Before::Key;
            }
            Token::LeftBrace | Token::LeftParen | Token::LeftBracket | Token::QuestionBracket => {
                self.open.push(false);
            }
            Token::RightBrace | Token::RightParen | Token::RightBracket => drop(self.open.pop()),
            Token::Comma if self.open.last() == Some(&true) => self.before = Before::Key,
            _ => {}
        }
        if token != Token::DoubleColon {
            self.word = word;
        }
        token
    }
}

type Name = Box<rhai::Identifier>;

fn given(other: Option<String>, name: Name) -> Token {
    Token::Identifier(other.map_or(name, |other| Box::new(other.into())))
}

/// The token as a name if it is a word, and whether it was changed.
fn as_name(token: Token) -> (Token, bool) {
    let word = match &token {
        Token::Reserved(word) => word.as_str(),
        token if token.is_literal() => token.literal_syntax(),
        _ => return (token, false),
    };
    let plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if plain { (Token::Identifier(Box::new(word.into())), true) } else { (token, false) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_a_name_where_names_stand() {
        let mut engine = Engine::new();
        register(&mut engine);
        for word in [
            "use", "default", "is", "new", "case", "package", "import", "export", "in", "as", "const",
            "private", "return", "throw", "switch", "if", "for", "loop", "fn", "let", "with", "module",
            "null", "go", "this", "true", "public", "static", "type_of", "print", "call", "eval", "class",
        ] {
            begin(Renames::default());
            let script = format!(
                "let m = #{{ a: 1, {word}: 2 }}; m.{word} = m.{word} + 2; m.{word} - 1 + #{{ {word}: 4 }}.{word}"
            );
            assert_eq!(engine.eval::<i64>(&script).map_err(|error| format!("{word}: {error}")), Ok(7));
        }
    }

    #[test]
    fn functions_get_names_of_their_own() {
        let mut engine = Engine::new();
        register(&mut engine);
        let names = ["map", "len"].map(String::from).into();
        begin(Renames { own: Functions { names, mark: 7 }, imports: BTreeMap::new() });
        let script = "fn map(msg) { let m = #{ map: 1, b: len(2) }; [msg].map(|x| x + m.map + m.b)[0] + [1].len() } \
                      fn len(x) { x * 10 } map_7(6)";
        assert_eq!(engine.eval::<i64>(script).unwrap(), 28);
    }

    #[test]
    fn rhais_words_stay_its_own_elsewhere() {
        let mut engine = Engine::new();
        register(&mut engine);
        begin(Renames::default());
        let script = "let m = #{ a: if true { 1 } else { 2 }, b: [1, switch 3 { 3 => 4, _ => 5 }] }; return m.a + m.b[1];";
        assert_eq!(engine.eval::<i64>(script).unwrap(), 5);
    }
}
