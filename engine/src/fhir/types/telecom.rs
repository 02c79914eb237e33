//! Telephone numbers and the like: XTN (and TN) as `ContactPoint`.
//!
//! Sources: the v2-to-FHIR map XTN[ContactPoint]; the ITK habit of PID-13 (landline, then mobile); PDS codes.
//! Decided:  a number without an equipment type is a telephone, unless XTN.4 has an address; a UK number that begins
//!           07 or +447 is a mobile when nothing says otherwise; an e-mail address found in XTN.1 is e-mail.

use super::Cx;
use crate::{
    fhir::{Node, Object},
    hl7::{Part, Value},
};

/// XTN as `ContactPoint`.
pub fn xtn(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    let equipment = text(part.component(3));
    let by_net = equipment
        .as_deref()
        .is_some_and(|equipment| matches!(equipment.to_uppercase().as_str(), "INTERNET" | "X.400"));
    let address = text(part.component(4));
    let number = text(part.component(12)).or_else(|| text(part.component(1))).or_else(|| pieces(part));
    let value = if by_net { address.or(number) } else { number.or(address) }?;
    let is_mail = value.contains('@');
    let row = equipment.as_deref().and_then(|equipment| {
        let table = cx.tables.get("telecom-system")?;
        Some((table, cx.look_up(table, upper(equipment).as_str())?))
    });
    let system = match row.and_then(|(_, row)| row.code()) {
        _ if is_mail => "email",
        Some(system) => system,
        None => "phone",
    };
    let mut object = Object::with_capacity(4);
    object.put("system", Some(Node::text(system)));
    object.put("value", Some(Node::text(value.as_str())));
    let equipment_use = row.and_then(|(table, row)| table.cell(row, "use")).map(ToString::to_string);
    object.put("use", used_as(part, equipment_use, system, &value, cx).map(Node::text));
    object.put(
        "rank",
        text(part.component(18))
            .and_then(|rank| rank.parse().ok())
            .filter(|rank| *rank > 0)
            .map(Node::Integer),
    );
    Some(object.into())
}

fn used_as(
    part: Part<'_>,
    equipment_use: Option<String>,
    system: &str,
    value: &str,
    cx: &Cx<'_>,
) -> Option<String> {
    if equipment_use.is_some() {
        return equipment_use;
    }
    let code = text(part.component(2));
    if let Some(code) = code {
        let table = cx.tables.get("telecom-use")?;
        return cx.look_up(table, &code.to_uppercase())?.code().map(ToString::to_string);
    }
    let digits: String = value.chars().filter(|digit| digit.is_ascii_digit() || *digit == '+').collect();
    let mobile =
        system == "phone" && (digits.starts_with("07") && digits.len() == 11 || digits.starts_with("+447"));
    mobile.then(|| "mobile".to_owned())
}

/// XTN.5 to XTN.8 as the guide joins them.
fn pieces(part: Part<'_>) -> Option<String> {
    let local = text(part.component(7))?;
    let country = text(part.component(5)).map(|country| format!("+{} ", country.trim_start_matches('+')));
    let area = text(part.component(6)).map(|area| format!("{area} "));
    let extension = text(part.component(8)).map(|extension| format!(" X{extension}"));
    Some(format!(
        "{}{}{local}{}",
        country.unwrap_or_default(),
        area.unwrap_or_default(),
        extension.unwrap_or_default()
    ))
}

/// `Internet` stands so in the table; all other codes are upper case.
fn upper(equipment: &str) -> String {
    if equipment.eq_ignore_ascii_case("internet") { "Internet".to_owned() } else { equipment.to_uppercase() }
}

fn text(value: Value<'_>) -> Option<String> {
    value.text().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;

    #[test]
    fn telephones_and_mail() {
        check(
            "XTN",
            "ContactPoint",
            "01653555123^PRN^PH",
            r#"{"system":"phone","value":"01653555123","use":"home"}"#,
        );
        check(
            "XTN",
            "ContactPoint",
            "07700900123^PRN^CP",
            r#"{"system":"phone","value":"07700900123","use":"mobile"}"#,
        );
        check(
            "XTN",
            "ContactPoint",
            "^NET^Internet^freda@example.org",
            r#"{"system":"email","value":"freda@example.org"}"#,
        );
        check(
            "XTN",
            "ContactPoint",
            "07700900777",
            r#"{"system":"phone","value":"07700900777","use":"mobile"}"#,
        );
        check("XTN", "ContactPoint", "+441234567890", r#"{"system":"phone","value":"+441234567890"}"#);
        check(
            "XTN",
            "ContactPoint",
            "freda@example.org",
            r#"{"system":"email","value":"freda@example.org"}"#,
        );
        check(
            "XTN",
            "ContactPoint",
            "^WPN^PH^^44^1653^555199^12",
            r#"{"system":"phone","value":"+44 1653 555199 X12","use":"work"}"#,
        );
        check("XTN", "ContactPoint", "^PRN^PH", "");
    }
}
