//! Text: ST, TX, FT, ID and IS as `string` and `markdown`.
//!
//! Decided:  ST reads as its first component, and whole where it is prose; TX and FT are read
//!           whole, for report lines are full of `^` and `&` that nobody escaped. Escapes are undone (`\.br\` is a new
//!           line). Control characters that FHIR forbids go.

use std::borrow::Cow;

use super::Cx;
use crate::{
    fhir::Node,
    hl7::{Part, Separators, Value},
};

/// ST and its like: the first component; all of it where separators stand between blanks, as in prose (`Penicillin &
/// sulfa`), or where words stand in another component alone.
pub fn plain(part: Part<'_>, _: &Cx<'_>) -> Option<Node> {
    let first = part.text();
    if first.len() == part.raw().len() {
        return clean(&first);
    }
    let is_prose = part.raw().as_bytes().windows(3).any(|three| match three {
        [b' ', byte, b' '] => is_separator(part, char::from(*byte)),
        _ => false,
    });
    let stands_alone = |text: &str| text.contains(' ') && !text.contains(|one| is_separator(part, one));
    match stated(part) {
        all if is_prose || first.is_empty() && stands_alone(&all) => clean(&all),
        _ => clean(&first),
    }
}

/// TX and FT: all of it.
pub fn whole(part: Part<'_>, _: &Cx<'_>) -> Option<Node> {
    clean(&part.whole())
}

/// All of it, without the separators that it may begin or end with.
pub(super) fn stated(part: Part<'_>) -> Cow<'_, str> {
    match part.whole() {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim_matches(|one| is_separator(part, one))),
        // An escaped separator is meant.
        unescaped @ Cow::Owned(_) => unescaped,
    }
}

fn is_separator(part: Part<'_>, one: char) -> bool {
    let Separators { component, subcomponent, .. } = part.separators();
    one == char::from(component) || Some(one) == subcomponent.map(char::from)
}

fn clean(text: &str) -> Option<Node> {
    let allowed = |character: &char| !character.is_control() || matches!(character, '\n' | '\r' | '\t');
    let text = text.trim_end();
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) || text.chars().all(|one| allowed(&one)) {
        return Node::text(text).some();
    }
    Node::text(text.chars().filter(allowed).collect::<String>()).some()
}

/// What a value says, without blanks around it; nothing when nothing is left. What needs no unescaping is not copied.
#[inline(never)]
pub(super) fn trimmed(value: Value<'_>) -> Option<Cow<'_, str>> {
    without_blanks(value.text()?)
}

/// The same of a component that is a text, in which nobody escapes `&`: a component of a code has none of its own.
#[inline(never)]
pub(super) fn phrase(value: Value<'_>) -> Option<Cow<'_, str>> {
    without_blanks(stated(value.part()?))
}

fn without_blanks(text: Cow<'_, str>) -> Option<Cow<'_, str>> {
    let text = match text {
        Cow::Borrowed(text) => Cow::Borrowed(trim(text)),
        Cow::Owned(text) if trim(&text).len() == text.len() => Cow::Owned(text),
        Cow::Owned(text) => Cow::Owned(trim(&text).to_owned()),
    };
    (!text.is_empty()).then_some(text)
}

/// As `str::trim`, which goes by characters: here two looks tell that there is nothing to trim.
fn trim(text: &str) -> &str {
    match text.as_bytes() {
        [only] | [only, .., _] if !only.is_ascii_graphic() => text.trim(),
        [.., last] if !last.is_ascii_graphic() => text.trim(),
        _ => text,
    }
}

/// The text in capitals: tables are written so. Nearly all codes are sent so, and are not copied.
pub(super) fn upper(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_lowercase()) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.to_uppercase())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::converter_tests::check, *};

    #[test]
    fn text_is_unescaped_and_clean() {
        check("TX", "string", r"Clotted\.br\please repeat R\T\D ^x", r#""Clotted\nplease repeat R&D ^x""#);
        check("ST", "string", "Escherichia coli^x", r#""Escherichia coli""#);
        check(
            "ST",
            "string",
            "No allergies & eGFR >60 ^ metformin",
            r#""No allergies & eGFR >60 ^ metformin""#,
        );
        check("ST", "string", "^^Persistent cough^", r#""Persistent cough""#);
        check("FT", "string", "a\u{1}b  ", r#""ab""#);
        check("ST", "string", "   ", "");
    }

    proptest::proptest! {
        #[test]
        fn what_is_quick_is_no_different(text in "[ \\ta-cA-C\u{e9}\u{df}\u{a0}\u{2003}]{0,5}") {
            proptest::prop_assert_eq!(trim(&text), text.trim());
            proptest::prop_assert_eq!(upper(&text), text.to_uppercase());
        }
    }
}
