//! Lets FHIR's element names stand in scripts although some are words of Rhai: `use`, `default`, `package`, …
//!
//! After a dot, and as a key of a map literal, every word is a plain name. Elsewhere Rhai's words stay its own.
//!
//! `fn map` is given another name on the way in: otherwise it would answer every `list.map(…)` of its script.

use std::cell::RefCell;

use rhai::{Engine, Token};

thread_local! {
    static SEEN: RefCell<Seen> = RefCell::default();
}

/// What stands before the token at hand.
#[derive(Default)]
struct Seen {
    before: Before,
    /// One entry for each open bracket: whether it is a map literal.
    open: Vec<bool>,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Before {
    #[default]
    Other,
    Dot,
    /// `#{`, or a comma in a map literal.
    Key,
    /// `fn`.
    Function,
    /// A word that was made a name: the tokenizer takes a sign after it for unary.
    Name,
}

/// What `fn map` is called inside.
pub(super) const MAP: &str = "map_message";

/// Has the engine read names of elements wherever one can stand. Call [`begin`] before each parse.
pub(super) fn register(engine: &mut Engine) {
    #[allow(deprecated)] // "considered volatile": pinned by the tests below
    engine.on_parse_token(|token, _, _| SEEN.with_borrow_mut(|seen| seen.next(token)));
}

/// Forgets the script before.
pub(super) fn begin() {
    SEEN.with_borrow_mut(|seen| *seen = Seen::default());
}

impl Seen {
    fn next(&mut self, token: Token) -> Token {
        let (token, renamed) = match (self.before, token) {
            (Before::Dot | Before::Key, token) => as_name(token),
            (Before::Function, Token::Identifier(name)) if name.as_str() == "map" => {
                (Token::Identifier(Box::new(MAP.into())), false)
            }
            (Before::Name, Token::UnaryPlus) => (Token::Plus, false),
            (Before::Name, Token::UnaryMinus) => (Token::Minus, false),
            (_, token) => (token, false),
        };
        self.before = if renamed { Before::Name } else { Before::Other };
        match &token {
            Token::Period | Token::Elvis => self.before = Before::Dot,
            Token::Fn => self.before = Before::Function,
            Token::MapStart => {
                self.open.push(true);
                self.before = Before::Key;
            }
            Token::LeftBrace | Token::LeftParen | Token::LeftBracket | Token::QuestionBracket => {
                self.open.push(false)
            }
            Token::RightBrace | Token::RightParen | Token::RightBracket => drop(self.open.pop()),
            Token::Comma if self.open.last() == Some(&true) => self.before = Before::Key,
            _ => {}
        }
        token
    }
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
            begin();
            let script = format!(
                "let m = #{{ a: 1, {word}: 2 }}; m.{word} = m.{word} + 2; m.{word} - 1 + #{{ {word}: 4 }}.{word}"
            );
            assert_eq!(engine.eval::<i64>(&script).map_err(|error| format!("{word}: {error}")), Ok(7));
        }
    }

    #[test]
    fn a_list_is_not_mapped_by_the_mapping() {
        let mut engine = Engine::new();
        register(&mut engine);
        begin();
        let script = format!("fn map(msg) {{ [msg].map(|x| x + 1)[0] }} {MAP}(6)");
        assert_eq!(engine.eval::<i64>(&script).unwrap(), 7);
    }

    #[test]
    fn rhais_words_stay_its_own_elsewhere() {
        let mut engine = Engine::new();
        register(&mut engine);
        begin();
        let script = "let m = #{ a: if true { 1 } else { 2 }, b: [1, switch 3 { 3 => 4, _ => 5 }] }; return m.a + m.b[1];";
        assert_eq!(engine.eval::<i64>(script).unwrap(), 5);
    }
}
