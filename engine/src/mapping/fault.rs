//! What goes wrong while a mapping runs, told by place and rule, never by value.
//!
//! Rhai's own errors may carry what a script handled: the text of a `throw`, an index, a number that does not
//! parse. So they are told anew here, from their kind. What an error quotes is shown only if it stands in the
//! scripts or in FHIR: a name made at run time may have been made of a value.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    path::PathBuf,
};

use rhai::{Dynamic, EvalAltResult, Position};
use smol_str::SmolStr;

use super::engine::functions;
use crate::{error::Place, fhir::elements};

/// Why a mapping gave nothing. Holds no patient data: safe for logs and pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapError {
    /// Where in the script, if it was in one.
    pub place: Option<Place>,
    /// What went wrong, one sentence without a full stop.
    pub what: String,
}

impl MapError {
    /// An error without a place.
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { place: None, what: what.into() }
    }
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

impl std::error::Error for MapError {}

/// How a script ended itself.
#[derive(Debug, Clone)]
pub(super) enum Verdict {
    Skip(String),
    Hold(String),
    Reject(String),
    /// Its time ran out.
    Late,
}

/// The text of an error that native code raises: made of rules and names, not of values.
#[derive(Debug, Clone)]
struct Fault(String);

/// An error for the script's place that calls us. The text must hold no value of a message.
pub(super) fn fault(what: impl Into<String>) -> Box<EvalAltResult> {
    Box::new(EvalAltResult::ErrorRuntime(Dynamic::from(Fault(what.into())), Position::NONE))
}

/// Ends the script: no `catch` catches this.
pub(super) fn end(verdict: Verdict) -> Box<EvalAltResult> {
    Box::new(EvalAltResult::ErrorTerminated(Dynamic::from(verdict), Position::NONE))
}

/// The words that a revision's own files hold: what errors and reasons may quote.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// The texts between quotes.
    pub literals: HashSet<SmolStr>,
    /// Names of functions, variables, properties and keys.
    pub names: BTreeSet<SmolStr>,
}

impl Words {
    /// The sentence with every quotation (between backticks) that is not ours taken out.
    pub fn safe(&self, what: &str) -> String {
        let mut out = String::with_capacity(what.len());
        for (number, piece) in what.split('`').enumerate() {
            let quoted = number % 2 == 1;
            if number > 0 {
                out.push('`');
            }
            out.push_str(if quoted && !self.may_quote(piece) { "…" } else { piece });
        }
        out
    }

    fn may_quote(&self, quotation: &str) -> bool {
        if self.literals.contains(quotation) {
            return true;
        }
        let mut words = quotation.split(|char: char| !(char.is_alphanumeric() || char == '_'));
        words.all(|word| {
            word.is_empty()
                || word.bytes().all(|byte| byte.is_ascii_digit()) && word.len() <= 3
                || self.names.contains(word)
                || elements::is_name(word)
                || functions().contains_key(word)
                || ["map", "reason", "resourceType", "x"].contains(&word)
        })
    }
}

/// How a run ended that did not return. Without words everything may be quoted.
pub(super) fn told(error: EvalAltResult, file: &str, words: Option<&Words>) -> Result<Verdict, MapError> {
    // What breaks a bound is passed up with the place of the outermost call, which is not in a script.
    let bound = error.is_system_exception();
    let (error, source, position) = innermost(error, file.to_owned(), Position::NONE);
    let what = match error {
        EvalAltResult::ErrorTerminated(token, _) => match token.try_cast::<Verdict>() {
            Some(Verdict::Late) | None => "the mapping ran longer than it may".to_owned(),
            Some(verdict) => return Ok(verdict),
        },
        error => sentence(error),
    };
    let what = words.map_or_else(|| what.clone(), |words| words.safe(&what));
    Err(MapError { place: place(&source, if bound { Position::NONE } else { position }), what })
}

/// The place of a fault in a script; none outside of one.
pub(super) fn place(source: &str, position: Position) -> Option<Place> {
    let (line, column) = (position.line().unwrap_or(0), position.position().unwrap_or(0));
    (!source.is_empty()).then(|| Place { file: PathBuf::from(source), line, column })
}

/// The error at the bottom of the call stack, with its file and position.
fn innermost(error: EvalAltResult, source: String, position: Position) -> (EvalAltResult, String, Position) {
    let own = error.position();
    let position = if own.is_none() { position } else { own };
    match error {
        EvalAltResult::ErrorInFunctionCall(_, inside, inner, _) => {
            let source = if inside.is_empty() { source } else { inside };
            innermost(*inner, source, position)
        }
        EvalAltResult::ErrorInModule(inside, inner, _) => {
            let source = if inside.is_empty() { source } else { inside };
            innermost(*inner, source, position)
        }
        error => (error, source, position),
    }
}

fn sentence(error: EvalAltResult) -> String {
    use EvalAltResult as E;
    match error {
        E::ErrorRuntime(token, _) => match token.try_cast::<Fault>() {
            Some(Fault(what)) => what,
            None => "the script threw an error (what it threw is withheld: it may hold patient data)".into(),
        },
        E::ErrorVariableNotFound(name, _) => format!("there is no variable `{name}`"),
        E::ErrorFunctionNotFound(signature, _) => unknown_function(&signature),
        E::ErrorPropertyNotFound(name, _) | E::ErrorDotExpr(name, _) => {
            format!("there is no such property `{}`", name.split(['\'', '"']).nth(1).unwrap_or(&name))
        }
        E::ErrorIndexNotFound(..) => "there is nothing under this index".into(),
        E::ErrorModuleNotFound(name, _) => format!("there is no module `{name}`"),
        E::ErrorMismatchDataType(wanted, found, _) | E::ErrorMismatchOutputType(wanted, found, _) => {
            format!("a {} is needed here, not a {}", type_word(&wanted), type_word(&found))
        }
        E::ErrorIndexingType(..) => "this has no index".into(),
        E::ErrorArrayBounds(..) | E::ErrorStringBounds(..) | E::ErrorBitFieldBounds(..) => {
            "the index is outside of the list or text".into()
        }
        E::ErrorFor(_) => "`for` cannot go over this".into(),
        E::ErrorArithmetic(..) => {
            "the calculation fails: a number is too large, or a text is no number".into()
        }
        E::ErrorAssignmentToConstant(..) | E::ErrorNonPureMethodCallOnConstant(..) => {
            "a constant cannot be changed".into()
        }
        E::ErrorUnboundThis(_) => "there is no `this` here".into(),
        E::ErrorTooManyOperations(_) => "the mapping takes more steps than it may".into(),
        E::ErrorTooManyVariables(_) => "the mapping has more variables than it may".into(),
        E::ErrorTooManyModules(_) => "the mapping imports more modules than it may".into(),
        E::ErrorStackOverflow(_) => "functions call each other deeper than they may".into(),
        E::ErrorDataTooLarge(..) => "a text, list or map is larger than it may be".into(),
        _ => "the script failed".into(),
    }
}

/// What to say of a call that fits no function; types are told, values are not.
fn unknown_function(signature: &str) -> String {
    let (name, arguments) = signature.split_once('(').unwrap_or((signature, ""));
    let name = name.trim().rsplit("::").next().unwrap_or_default();
    let arguments: Vec<_> = arguments
        .strip_suffix(')')
        .unwrap_or(arguments)
        .split(", ")
        .filter(|word| !word.is_empty())
        .map(type_word)
        .collect();
    format!("`{name}` does not take ({})", arguments.join(", "))
}

/// A type as scripts know it; Rust paths are cut to their last word.
fn type_word(name: &str) -> String {
    let word = name.trim().rsplit("::").next().unwrap_or_default();
    match word {
        "" | "()" => "nothing".into(),
        "i64" => "whole number".into(),
        "f64" => "number".into(),
        "bool" => "truth value".into(),
        "&str" | "string" | "ImmutableString" | "&str | ImmutableString | String" => "text".into(),
        word => word.trim_end_matches("Handle").to_ascii_lowercase(),
    }
}
