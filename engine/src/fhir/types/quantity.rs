//! Numbers: NM, SN, CQ and NR as `Quantity`, `Range`, `Ratio`, `decimal` and `integer`; units; reference ranges.
//!
//! Sources: the v2-to-FHIR maps NM, SN[Quantity], SN[Range], SN[Ratio], CQ[Quantity], CWE[Quantity]; UCUM.
//! Promise:  digits stay as they were sent (`7.10` is not `7.1`); nothing that is not a number becomes one.
//! Decided:  `<5`, `>=100` are a number with a comparator, in NM as in SN; `1+`, `5-10` and `1,000` in NM are no
//!           number: the caller keeps the text. A unit gets a code only from the table `units` (UCUM) or from the sender.

use std::borrow::Cow;

use smol_str::{SmolStr, format_smolstr};

use super::{Cx, code, text::trimmed};
use crate::{
    fhir::{Node, Object, elements::is_decimal, name::name},
    hl7::Part,
};

const UCUM: &str = "http://unitsofmeasure.org";

const COMPARATORS: [&str; 4] = ["<=", ">=", "<", ">"];

/// NM as `Quantity`: number and comparator.
pub fn nm(part: Part<'_>, _: &Cx<'_>) -> Option<Node> {
    quantity_of(&part.whole())
}

/// NM as `decimal`.
pub fn decimal_of(part: Part<'_>, _: &Cx<'_>) -> Option<Node> {
    decimal(&part.text()).map(Node::Decimal)
}

/// NM or SI as `integer`, `positiveInt`, `unsignedInt`: whole numbers above zero.
pub fn positive(part: Part<'_>, _: &Cx<'_>) -> Option<Node> {
    let number = part.text().trim().parse().ok()?;
    (1..=i64::from(i32::MAX)).contains(&number).then_some(Node::Integer(number))
}

/// SN as `Quantity`: comparator and number; nothing when it is a range, a ratio or no single number.
pub fn sn(part: Part<'_>, _: &Cx<'_>) -> Option<Node> {
    let [sign, first, separator, second] = part.first().map(trimmed);
    if separator.is_some() || second.is_some() {
        return None;
    }
    Some(quantity(decimal(&first?)?, comparator(sign.as_deref())?))
}

/// SN as `Range`: `^5^-^10`.
pub fn sn_range(part: Part<'_>, _: &Cx<'_>) -> Option<Node> {
    let [sign, first, separator, second] = part.first().map(trimmed);
    if sign.is_some() || separator.as_deref() != Some("-") {
        return None;
    }
    range(Some(quantity(decimal(&first?)?, None)), Some(quantity(decimal(&second?)?, None)))
}

/// SN as `Ratio`: `^1^:^128`.
pub fn sn_ratio(part: Part<'_>, _: &Cx<'_>) -> Option<Node> {
    let [sign, first, separator, second] = part.first().map(trimmed);
    if !matches!(separator.as_deref(), Some(":" | "/")) {
        return None;
    }
    let numerator = quantity(decimal(&first?)?, comparator(sign.as_deref())?);
    let denominator = quantity(decimal(&second?)?, None);
    Some(Node::object([(name!("numerator"), Some(numerator)), (name!("denominator"), Some(denominator))]))
}

/// The comparator that SN.1 stands for, if any; nothing at all where FHIR has none such.
fn comparator(sign: Option<&str>) -> Option<Option<&'static str>> {
    match sign {
        None | Some("=") => Some(None),
        Some(sign) => COMPARATORS.into_iter().find(|known| *known == sign).map(Some),
    }
}

/// SN as text, all pieces in order.
pub fn sn_text(part: Part<'_>, _: &Cx<'_>) -> Option<Node> {
    let pieces: String = (1..=4).filter_map(|number| part.component(number).text()).collect();
    Node::text(pieces.trim()).some()
}

/// CQ as `Quantity`. Within a component, as in RXE-1, its own components are subcomponents.
pub fn cq(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    let amount = part.component(1);
    let mut quantity = quantity_of(&amount.text()?)?;
    let [code, text, system] = [1, 2, 3].map(|number| trimmed(part.component(2).subcomponent(number)));
    let code = code.or_else(|| trimmed(amount.subcomponent(2)));
    Unit::of_parts([code, text, system], cx).put(quantity.as_object_mut()?);
    Some(quantity)
}

/// MO and CP as `Money`: the amount with its digits, and the currency where one is named.
pub fn money(part: Part<'_>, _: &Cx<'_>) -> Option<Node> {
    let amount = part.component(1);
    let named = [amount.subcomponent(2), part.component(2)].into_iter().filter_map(trimmed);
    let currency = named
        .map(|name| name.to_uppercase())
        .find(|name| name.len() == 3 && name.bytes().all(|byte| byte.is_ascii_uppercase()));
    let value = decimal(&amount.subcomponent(1).text()?)?;
    Some(Node::object([
        (name!("value"), Some(Node::Decimal(value))),
        (name!("currency"), currency.map(Node::text)),
    ]))
}

/// NR as `Range`.
pub fn nr(part: Part<'_>, _: &Cx<'_>) -> Option<Node> {
    let number = |n| part.component(n).text().and_then(|text| Some(quantity(decimal(&text)?, None)));
    range(number(1), number(2))
}

/// CWE units (OBX-6) as the `unit`, `system` and `code` of a `Quantity`.
pub fn units(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    let mut quantity = Object::with_capacity(3);
    Unit::of(part, cx).put(&mut quantity);
    Node::Object(quantity).some()
}

/// ST of a reference range (OBX-7) as `Observation.referenceRange`: low and high where they can be read, and the text.
pub fn reference_range(part: Part<'_>, _: &Cx<'_>) -> Option<Node> {
    let whole = part.whole();
    let text = whole.trim();
    let (low, high) = bounds(text);
    Node::object([
        (name!("low"), low.map(|number| quantity(number, None))),
        (name!("high"), high.map(|number| quantity(number, None))),
        (name!("text"), Some(Node::text(text))),
    ])
    .some()
}

/// A number as JSON wants it, all digits kept: no `+`, no leading zeros, a digit on both sides of the point.
pub(super) fn decimal(text: &str) -> Option<SmolStr> {
    let text = text.trim();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if digits.len() > 40
        || whole.is_empty() && fraction.is_empty()
        || ![whole, fraction].into_iter().all(all_digits)
    {
        return None;
    }
    if is_decimal(text) {
        return Some(text.into());
    }
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        kept => kept,
    };
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format_smolstr!("{sign}{whole}{point}{fraction}"))
}

/// `<5`, `>= 100`, `7.10`.
fn quantity_of(text: &str) -> Option<Node> {
    let text = text.trim();
    let (comparator, number) = COMPARATORS
        .into_iter()
        .find_map(|comparator| Some((Some(comparator), text.strip_prefix(comparator)?)))
        .unwrap_or((None, text));
    Some(quantity(decimal(number)?, comparator))
}

fn quantity(number: SmolStr, comparator: Option<&'static str>) -> Node {
    // Room for the unit, too.
    let mut quantity = Object::with_capacity(5);
    quantity.push(name!("value"), Some(Node::Decimal(number)));
    quantity.push(name!("comparator"), comparator.map(Node::from));
    quantity.into()
}

/// A unit as it was sent, and its code where the sender says of which coding system it is, or the table knows it in UCUM.
pub(super) struct Unit {
    /// What it is called.
    pub name: Option<SmolStr>,
    /// The coding system and the code in it.
    coded: Option<(SmolStr, SmolStr)>,
}

impl Unit {
    /// CWE units (OBX-6).
    pub fn of(part: Part<'_>, cx: &Cx<'_>) -> Self {
        let [code, name, system] = part.first().map(trimmed);
        match (&code, &name) {
            (Some(base), Some(power)) if is_power(base, power) => {
                Self::of_parts([Some(format!("{base}^{power}").into()), None, system], cx)
            }
            _ => Self::of_parts([code, name, system], cx),
        }
    }

    fn of_parts([code, name, system]: [Option<Cow<'_, str>>; 3], cx: &Cx<'_>) -> Self {
        let uri = |system: Cow<'_, str>| match &*system {
            "UCUM" => Some(SmolStr::new_static(UCUM)),
            system => code::known_system(system, cx).cloned(),
        };
        // No code of UCUM has a blank: then it is a name, which the table may know.
        let is_code =
            |system: &SmolStr| system != UCUM || code.as_deref().is_some_and(|code| !code.contains(' '));
        let stated = system.and_then(|system| Some((uri(system).filter(is_code)?, code.as_deref()?.into())));
        let listed = || cx.tables.get("units")?.get(code.as_deref()?)?.code().cloned();
        let coded = stated.or_else(|| Some((SmolStr::new_static(UCUM), listed()?)));
        Self { name: name.or(code).map(SmolStr::from), coded }
    }

    /// Puts it beside a number that has none.
    pub fn put(&self, quantity: &mut Object) {
        quantity.push(name!("unit"), self.name.clone().map(Node::Text));
        if let Some((system, code)) = &self.coded {
            quantity.push(name!("system"), Some(Node::Text(system.clone())));
            quantity.push(name!("code"), Some(Node::Text(code.clone())));
        }
    }
}

/// Whether a unit was torn in two by its own `^`, which nobody escapes: `10^9/L`, `kg/m^2`.
fn is_power(base: &str, power: &str) -> bool {
    let digits = power.bytes().take_while(u8::is_ascii_digit).count();
    let ends = power.as_bytes().get(digits).is_none_or(|next| matches!(next, b'/' | b' ' | b'.' | b'*'));
    let of_length = base.ends_with(['m', 'M']) && matches!(power.get(..digits), Some("2" | "3"));
    (1..=2).contains(&digits) && ends && (base.ends_with("10") || of_length)
}

/// `130-170`, `3.0 - 10.0`, `3.5 to 5.1`, `(3.5–5.1)`, `-2.0-2.0`, `<5`, `>60`, `<=5`, `>=60`. `<` and `>` bound without saying
/// that the bound is in.
fn bounds(text: &str) -> (Option<SmolStr>, Option<SmolStr>) {
    let bare = text.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
    let text = &bare
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']'))
        .unwrap_or(text)
        .replace(" to ", "-")
        .replace('–', "-");
    if let Some(high) = text.strip_prefix("<=").or_else(|| text.strip_prefix('<')) {
        return (None, decimal(high));
    }
    if let Some(low) = text.strip_prefix(">=").or_else(|| text.strip_prefix('>')) {
        return (decimal(low), None);
    }
    let dash = text.char_indices().skip(1).find(|(_, character)| *character == '-').map(|(place, _)| place);
    let halves = dash.and_then(|place| Some((text.get(..place)?, text.get(place + 1..)?)));
    match halves.map(|(low, high)| (decimal(low), decimal(high))) {
        // The other way round they bound nothing: the text says it.
        Some((Some(low), Some(high))) if low.parse::<f64>().ok() <= high.parse().ok() => {
            (Some(low), Some(high))
        }
        _ => (None, None),
    }
}

/// Two quantities as `Range`. Nothing when the low is above the high: then the caller keeps the text.
pub fn range(low: Option<Node>, high: Option<Node>) -> Option<Node> {
    let number = |bound: &Option<Node>| bound.as_ref()?.get("value")?.as_text()?.parse::<f64>().ok();
    if number(&low).zip(number(&high)).is_some_and(|(low, high)| low > high) {
        return None;
    }
    Node::object([(name!("low"), low), (name!("high"), high)]).some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_stay_as_they_were_sent() {
        for (sent, kept) in [
            ("7.10", "7.10"),
            (" 132 ", "132"),
            ("+5", "5"),
            ("-0.50", "-0.50"),
            (".5", "0.5"),
            ("5.", "5"),
            ("007", "7"),
            ("000", "0"),
            ("0.000000000000000000001", "0.000000000000000000001"),
        ] {
            assert_eq!(decimal(sent).as_deref(), Some(kept), "{sent}");
        }
        for text in ["", "-", ".", "1,000", "1+", "5-10", "NaN", "1e5", "0x1", "1 2", "\u{661}"] {
            assert_eq!(decimal(text), None, "{text}");
        }
    }
}
