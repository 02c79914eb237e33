//! People's names: XPN and XCN as `HumanName`, and both in one line.
//!
//! Sources: the v2-to-FHIR maps XPN[HumanName], XCN[Practitioner]; ITK table 0200; UK Core.
//! Decided:  an absent XPN.7 is a usual name, as ITK and UK Core have it; a code that the table does not know
//!           leaves `use` out. Middle names in one component stay one `given`: nobody can tell where they part.

use std::borrow::Cow;

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
/// The person's own surname and the partner's, each with its prefix (FN.2 to FN.5).
const FAMILY: [&str; 4] = [
    "http://hl7.org/fhir/StructureDefinition/humanname-own-prefix",
    "http://hl7.org/fhir/StructureDefinition/humanname-own-name",
    "http://hl7.org/fhir/StructureDefinition/humanname-partner-prefix",
    "http://hl7.org/fhir/StructureDefinition/humanname-partner-name",
];

/// XPN as `HumanName`.
pub fn xpn(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    Numbers { family: 1, kind: 7, range: 10 }.name(&Pieces::of(part), Some("usual"), cx)
}

/// XCN as `HumanName`.
pub fn xcn(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    xcn_of(&Pieces::of(part), cx)
}

/// The same of an XCN that is split already.
pub(super) fn xcn_of(pieces: &Pieces<'_>, cx: &Cx<'_>) -> Option<Node> {
    Numbers { family: 2, kind: 10, range: 17 }.name(pieces, None, cx)
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

/// Where the pieces of a name stand: behind its family stand given and further names, suffix, prefix and degree; behind the
/// time that it holds for in old versions, the order of its pieces, the time that it holds for, and more suffixes.
struct Numbers {
    family: usize,
    kind: usize,
    range: usize,
}

impl Numbers {
    fn name(&self, pieces: &Pieces<'_>, default_use: Option<&'static str>, cx: &Cx<'_>) -> Option<Node> {
        let Self { family: at, range, .. } = *self;
        let family = surname(pieces.at(at));
        let given = texts(pieces, [at + 1, at + 2]);
        if family.is_none() && given.is_none() {
            return None;
        }
        let order = trimmed(pieces.at(range + 1));
        let prefix = trimmed(pieces.at(at + 4));
        let period = time::validity(pieces.at(range + 2), pieces.at(range + 3), pieces.at(range), cx);
        Some(Node::object([
            (name!("extension"), order.and_then(|order| assembly_order(&order))),
            (name!("use"), self.used_as(pieces, default_use, cx)),
            (name!("family"), family.map(Node::text)),
            (name!("_family"), parts_of_family(pieces.at(at))),
            (name!("given"), given),
            (name!("prefix"), prefix.map(|prefix| vec![Node::text(prefix)].into())),
            (name!("suffix"), texts(pieces, [at + 3, at + 5, range + 4])),
            (name!("period"), period),
        ]))
    }

    fn used_as(&self, pieces: &Pieces<'_>, default_use: Option<&'static str>, cx: &Cx<'_>) -> Option<Node> {
        let Some(kind) = trimmed(pieces.at(self.kind)) else { return default_use.map(Node::from) };
        let table = cx.table.or_else(|| cx.tables.get("name-use"))?;
        Some(Node::Text(cx.look_up(table, &upper(&kind))?.code()?.clone()))
    }
}

fn assembly_order(order: &str) -> Option<Node> {
    let code = match order {
        "G" => "NL1",
        "F" => "NL3",
        _ => return None,
    };
    Some(vec![Node::extension(ASSEMBLY_ORDER, name!("valueCode"), code.into())].into())
}

/// FN.1; without it the person's own surname (FN.3) behind its prefix.
fn surname(family: Value<'_>) -> Option<Cow<'_, str>> {
    trimmed(family).or_else(|| {
        let [prefix, own] = [2, 3].map(|number| trimmed(family.subcomponent(number)));
        Some([prefix.as_deref().unwrap_or_default(), &own?].join(" ").trim_start().to_owned().into())
    })
}

/// FN.2 to FN.5, as extensions of the surname (FN.1), which is what all of them give together.
fn parts_of_family(family: Value<'_>) -> Option<Node> {
    let rest = family.part()?.subcomponents().skip(1).zip(FAMILY);
    let found = rest.filter_map(|(part, url)| {
        Some(Node::extension(url, name!("valueString"), Node::text(trimmed(part)?)))
    });
    let found: Vec<Node> = found.collect();
    (!found.is_empty()).then(|| Node::object([(name!("extension"), Some(found.into()))]))
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

fn line(pieces: &Pieces<'_>, order: [usize; 5]) -> Option<SmolStr> {
    let mut line = SmolStrBuilder::new();
    let words = order.into_iter().filter_map(|number| surname(pieces.at(number)));
    for (number, word) in words.enumerate() {
        if number > 0 {
            line.push(' ');
        }
        line.push_str(&word);
    }
    Some(line.finish()).filter(|line| !line.is_empty())
}

fn texts<const N: usize>(pieces: &Pieces<'_>, numbers: [usize; N]) -> Option<Node> {
    let found: Vec<Node> =
        numbers.into_iter().filter_map(|number| trimmed(pieces.at(number))).map(Node::text).collect();
    (!found.is_empty()).then_some(Node::Array(found))
}
