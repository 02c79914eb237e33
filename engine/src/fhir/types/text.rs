//! Text: ST, TX, FT, ID and IS as `string` and `markdown`.
//!
//! Decided:  ST reads as its first component; TX and FT are read whole, for report lines are full of `^` and `&` that
//!           nobody escaped. Escapes are undone (`\.br\` is a new line). Control characters that FHIR forbids go.

use std::borrow::Cow;

use super::Cx;
use crate::{
    fhir::Node,
    hl7::{Part, Value},
};

/// ST and its like: the first component.
pub fn plain(part: Part<'_>, _: &Cx<'_>) -> Option<Node> {
    clean(&part.text())
}

/// TX and FT: all of it.
pub fn whole(part: Part<'_>, _: &Cx<'_>) -> Option<Node> {
    clean(&part.whole())
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
    let text = match value.text()? {
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
