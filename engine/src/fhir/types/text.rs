//! Text: ST, TX, FT, ID and IS as `string` and `markdown`.
//!
//! Decided:  ST reads as its first component; TX and FT are read whole, for report lines are full of `^` and `&` that
//!           nobody escaped. Escapes are undone (`\.br\` is a new line). Control characters that FHIR forbids go.

use super::Cx;
use crate::{fhir::Node, hl7::Part};

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
    if text.chars().all(|character| allowed(&character)) {
        return Node::text(text).some();
    }
    Node::text(text.chars().filter(allowed).collect::<String>()).some()
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;

    #[test]
    fn text_is_unescaped_and_clean() {
        check(
            "TX",
            "string",
            r"Sample clotted\.br\please repeat R\T\D ^x",
            r#""Sample clotted\nplease repeat R&D ^x""#,
        );
        check("ST", "string", "Escherichia coli^x", r#""Escherichia coli""#);
        check("FT", "string", "a\u{1}b  ", r#""ab""#);
        check("ST", "string", "   ", "");
    }
}
