//! People's names: XPN and XCN as `HumanName`, and both in one line.
//!
//! Sources: the v2-to-FHIR maps XPN[HumanName], XCN[Practitioner]; ITK table 0200; UK Core.
//! Decided:  an absent XPN.7 is a usual name, as ITK and UK Core have it; a code that the table does not know
//!           leaves `use` out. Middle names in one component stay one `given`: nobody can tell where they part.

use smol_str::{SmolStr, SmolStrBuilder};

use super::{
    Cx,
    text::{trimmed, upper},
    time,
};
use crate::{
    fhir::{Node, name::name},
    hl7::{Part, Value},
};

const ASSEMBLY_ORDER: &str = "http://hl7.org/fhir/StructureDefinition/humanname-assembly-order";

/// XPN as `HumanName`.
pub fn xpn(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    let numbers = Numbers {
        family: 1,
        given: [2, 3],
        suffix: [4, 6, 14],
        prefix: 5,
        kind: 7,
        order: 11,
        range: 10,
        start: 12,
        end: 13,
    };
    numbers.name(&Pieces::of(part), Some("usual"), cx)
}

/// XCN as `HumanName`.
pub fn xcn(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    xcn_of(&Pieces::of(part), cx)
}

/// The same of an XCN that is split already.
pub(super) fn xcn_of(pieces: &Pieces<'_>, cx: &Cx<'_>) -> Option<Node> {
    let numbers = Numbers {
        family: 2,
        given: [3, 4],
        suffix: [5, 7, 21],
        prefix: 6,
        kind: 10,
        order: 18,
        range: 17,
        start: 19,
        end: 20,
    };
    numbers.name(pieces, None, cx)
}

/// XPN in one line, for `display` and the like.
pub fn xpn_line(part: Part<'_>, _: &Cx<'_>) -> Option<Node> {
    line(&Pieces::of(part), [5, 2, 3, 1, 4]).map(Node::Text)
}

/// XCN in one line, for the `display` of a reference.
pub fn xcn_line(part: Part<'_>, _: &Cx<'_>) -> Option<Node> {
    xcn_line_of(&Pieces::of(part)).map(Node::Text)
}

/// The same of an XCN that is split already.
pub(super) fn xcn_line_of(pieces: &Pieces<'_>) -> Option<SmolStr> {
    line(pieces, [6, 3, 4, 2, 5])
}

/// Where the pieces of a name stand.
struct Numbers {
    family: usize,
    given: [usize; 2],
    suffix: [usize; 3],
    prefix: usize,
    kind: usize,
    order: usize,
    range: usize,
    start: usize,
    end: usize,
}

impl Numbers {
    fn name(&self, pieces: &Pieces<'_>, default_use: Option<&'static str>, cx: &Cx<'_>) -> Option<Node> {
        let family = trimmed(pieces.at(self.family));
        let given = texts(pieces, self.given);
        if family.is_none() && given.is_none() {
            return None;
        }
        let order = trimmed(pieces.at(self.order));
        let prefix = trimmed(pieces.at(self.prefix));
        Some(Node::object([
            (name!("extension"), order.and_then(|order| assembly_order(&order))),
            (name!("use"), self.used_as(pieces, default_use, cx)),
            (name!("family"), family.map(Node::text)),
            (name!("given"), given),
            (name!("prefix"), prefix.map(|prefix| vec![Node::text(prefix)].into())),
            (name!("suffix"), texts(pieces, self.suffix)),
            (name!("period"), self.period(pieces, cx)),
        ]))
    }

    fn used_as(&self, pieces: &Pieces<'_>, default_use: Option<&'static str>, cx: &Cx<'_>) -> Option<Node> {
        let Some(kind) = trimmed(pieces.at(self.kind)) else { return default_use.map(Node::from) };
        let table = cx.table.or_else(|| cx.tables.get("name-use"))?;
        Some(Node::Text(cx.look_up(table, &upper(&kind))?.code()?.clone()))
    }

    fn period(&self, pieces: &Pieces<'_>, cx: &Cx<'_>) -> Option<Node> {
        time::period_of(pieces.at(self.start), pieces.at(self.end), cx).or_else(|| {
            let range = pieces.at(self.range);
            time::period_of(range.subcomponent(1), range.subcomponent(2), cx)
        })
    }
}

fn assembly_order(order: &str) -> Option<Node> {
    let code = match order {
        "G" => "NL1",
        "F" => "NL3",
        _ => return None,
    };
    let extension =
        Node::object([(name!("url"), Some(ASSEMBLY_ORDER.into())), (name!("valueCode"), Some(code.into()))]);
    Some(vec![extension].into())
}

/// The components of a name, split once for all that is asked of them.
pub(super) struct Pieces<'m>([Value<'m>; 21]);

impl<'m> Pieces<'m> {
    pub fn of(part: Part<'m>) -> Self {
        Self(part.first())
    }

    /// The component of this number, from 1.
    pub fn at(&self, number: usize) -> Value<'m> {
        number.checked_sub(1).and_then(|place| self.0.get(place)).copied().unwrap_or(Value::Absent)
    }
}

fn line<const N: usize>(pieces: &Pieces<'_>, order: [usize; N]) -> Option<SmolStr> {
    let mut line = SmolStrBuilder::new();
    let mut any = false;
    for word in order.into_iter().filter_map(|number| trimmed(pieces.at(number))) {
        if any {
            line.push(' ');
        }
        line.push_str(&word);
        any = true;
    }
    any.then(|| line.finish())
}

fn texts<const N: usize>(pieces: &Pieces<'_>, numbers: [usize; N]) -> Option<Node> {
    let found: Vec<Node> =
        numbers.into_iter().filter_map(|number| trimmed(pieces.at(number))).map(Node::text).collect();
    (!found.is_empty()).then_some(Node::Array(found))
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;

    #[test]
    fn names_of_patients() {
        check(
            "XPN",
            "HumanName",
            "OAKLEY^FREDA^JANE^^MRS^^L",
            r#"{"use":"usual","family":"OAKLEY","given":["FREDA","JANE"],"prefix":["MRS"]}"#,
        );
        check(
            "XPN",
            "HumanName",
            "SCHMIDT^FREDA^^^^^PREVIOUS-MAIDEN",
            r#"{"use":"maiden","family":"SCHMIDT","given":["FREDA"]}"#,
        );
        check("XPN", "HumanName", "FREDDIE^^^^^^PREFERRED", r#"{"use":"nickname","family":"FREDDIE"}"#);
        check(
            "XPN",
            "HumanName",
            r#"PRICE^RHYS^""^^MR"#,
            r#"{"use":"usual","family":"PRICE","given":["RHYS"],"prefix":["MR"]}"#,
        );
        check(
            "XPN",
            "HumanName",
            "O\\T\\NEILL&van^SI\u{c2}N^^^^^XYZ",
            "{\"family\":\"O&NEILL\",\"given\":[\"SI\u{c2}N\"]}",
        );
        check("XPN", "HumanName", "^^^^MRS^^L", "");
    }

    #[test]
    fn names_of_practitioners() {
        check(
            "XCN",
            "HumanName",
            "C9999991^DARWIN^SAMUEL^^^Dr^^^GMC",
            r#"{"family":"DARWIN","given":["SAMUEL"],"prefix":["Dr"]}"#,
        );
        check("XCN", "HumanName", "C9999991", "");
        check("XCN", "string", "C9999991^DARWIN^SAMUEL^^^Dr", r#""Dr SAMUEL DARWIN""#);
        check("XPN", "string", "OAKLEY^FREDA^JANE^^MRS", r#""MRS FREDA JANE OAKLEY""#);
    }
}
