//! Telephone numbers and the like: XTN (and TN) as `ContactPoint`.
//!
//! Sources: the v2-to-FHIR map XTN[ContactPoint]; the ITK habit of PID-13 (landline, then mobile); PDS codes.
//! Decided:  a number without an equipment type is a telephone, unless XTN.4 has an address; a UK number that begins
//!           07 or +447 is a mobile when nothing says otherwise; an e-mail address found in XTN.1 is e-mail.

use std::borrow::Cow;

use smol_str::SmolStr;

use super::{
    Cx,
    text::{trimmed, upper},
    time,
};
use crate::{
    fhir::{Node, name::name},
    hl7::{Part, Value},
};

/// XTN as `ContactPoint`.
pub fn xtn(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    let pieces: [Value<'_>; 18] = part.first();
    let [
        number,
        code,
        equipment,
        address,
        country,
        area,
        local,
        extension,
        ..,
        whole,
        from,
        to,
        _,
        _,
        _,
        rank,
    ] = pieces;
    let (code, equipment, address) = (trimmed(code), trimmed(equipment), trimmed(address));
    let by_net =
        equipment.as_deref().is_some_and(|equipment| matches!(&*upper(equipment), "INTERNET" | "X.400"));
    let in_pieces = || joined([country, area, local, extension]).map(Cow::Owned);
    let number = trimmed(whole).or_else(|| trimmed(number)).or_else(in_pieces);
    let value = if by_net { address.or(number) } else { number.or(address) }?;
    let is_mail = value.contains('@');
    let row = equipment.as_deref().and_then(|equipment| {
        let table = cx.tables.get("telecom-system")?;
        Some((table, cx.look_up(table, &listed(equipment))?))
    });
    let system = match row.and_then(|(_, row)| row.code()) {
        _ if is_mail => SmolStr::new_static("email"),
        Some(system) => system.clone(),
        None => SmolStr::new_static("phone"),
    };
    let by_table = |code: &str| {
        let table = cx.tables.get("telecom-use")?;
        cx.look_up(table, &upper(code))?.code().cloned()
    };
    let used_as = match (row.and_then(|(table, row)| table.cell(row, "use")), code) {
        (Some(by_equipment), _) => Some(by_equipment.clone()),
        (None, Some(code)) => by_table(&code),
        (None, None) => (system == "phone" && is_mobile(&value)).then_some(SmolStr::new_static("mobile")),
    };
    let rank = trimmed(rank).and_then(|rank| rank.parse().ok()).filter(|rank| *rank > 0);
    Some(Node::object([
        (name!("system"), Some(Node::Text(system))),
        (name!("value"), Some(Node::text(value))),
        (name!("use"), used_as.map(Node::Text)),
        (name!("rank"), rank.map(Node::Integer)),
        (name!("period"), time::period_of(from, to, cx)),
    ]))
}

/// XTN.5 to XTN.8 as the guide joins them.
fn joined(pieces: [Value<'_>; 4]) -> Option<String> {
    let [country, area, local, extension] = pieces.map(trimmed);
    let country = country.map(|country| format!("+{} ", country.trim_start_matches('+')));
    let area = area.map(|area| format!("{area} "));
    let extension = extension.map(|extension| format!(" X{extension}"));
    let [country, area, extension] = [country, area, extension].map(Option::unwrap_or_default);
    Some(format!("{country}{area}{}{extension}", local?))
}

/// Whether the digits of a number are those of a mobile, however they are spaced.
fn is_mobile(number: &str) -> bool {
    let digits = number.bytes().filter(|byte| byte.is_ascii_digit() || *byte == b'+');
    let begins = |start: &[u8]| digits.clone().take(start.len()).eq(start.iter().copied());
    begins(b"07") && digits.clone().count() == 11 || begins(b"+447")
}

/// `Internet` stands so in the table; all other codes are upper case.
fn listed(equipment: &str) -> Cow<'_, str> {
    if equipment.eq_ignore_ascii_case("internet") { Cow::Borrowed("Internet") } else { upper(equipment) }
}
