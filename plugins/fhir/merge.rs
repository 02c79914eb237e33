//! What a message says, merged into what the server has: as HL7 v2 means it, where empty leaves alone and `""` removes.
//!
//! - What the message says replaces the element as a whole, a list with all that is in it; the shapes of a choice and a
//!   primitive with its extension are one element. In backbone elements and periods each part is merged for itself, and
//!   extensions are by their url.
//! - What it removes goes (`null`: `tie_engine::connector::removals`), and all else stays, to the digit.
//! - `meta` is the message's alone: a restriction that was lifted must be lifted, and the version is the server's to give.
//!   `text` never stays, since it tells in words what may have changed or been suppressed (H7); nor does a contained
//!   resource that nothing refers to any more.

use serde_json::value::RawValue;
use tie_engine::{
    connector::removals::{Members, is_removed, write_name, write_without},
    fhir::elements::{Type, type_named},
};

/// What the server has and the message has not said is never kept of these.
const NEVER_KEPT: [&str; 3] = ["meta", "text", "contained"];

/// Writes the merged resource.
pub(super) fn write_merged(new: &Members<'_>, held: &Members<'_>, out: &mut Vec<u8>) {
    let kind = new.get("resourceType").and_then(|name| type_named(name.get().trim_matches('"')));
    let start = out.len();
    write_object(kind, new, held, &NEVER_KEPT, out);
    keep_contained(new, held, start, out);
}

/// What the server's kept elements refer to within the resource stays with them.
fn keep_contained(new: &Members<'_>, held: &Members<'_>, start: usize, out: &mut Vec<u8>) {
    let Some(all) = held.get("contained").filter(|_| new.get("contained").is_none()) else { return };
    let all: Vec<&RawValue> = serde_json::from_str(all.get()).unwrap_or_default();
    let referred = |one: &&RawValue| {
        let id = serde_json::from_str::<Members<'_>>(one.get()).ok().and_then(|one| one.get("id"));
        let reference = id.map(|id| format!("\"#{}\"", id.get().trim_matches('"')));
        let written = std::str::from_utf8(out.get(start..).unwrap_or_default()).unwrap_or_default();
        reference.is_some_and(|reference| written.contains(&reference))
    };
    let kept: Vec<&str> = all.iter().copied().filter(|one| referred(one)).map(RawValue::get).collect();
    if !kept.is_empty() {
        out.pop();
        write_name("contained", out);
        out.extend_from_slice(format!("[{}]}}", kept.join(",")).as_bytes());
    }
}

fn write_object(
    kind: Option<&'static Type>,
    new: &Members<'_>,
    held: &Members<'_>,
    never_kept: &[&str],
    out: &mut Vec<u8>,
) -> bool {
    out.push(b'{');
    let empty = out.len();
    for (name, value) in new.iter() {
        let start = out.len();
        write_name(name, out);
        let written = !is_removed(value) && write_element(kind, name, value, held.get(name), out);
        if !written {
            out.truncate(start);
        }
    }
    let said: Vec<&str> = new.iter().map(|(name, _)| whole(kind, name)).collect();
    for (name, value) in held.iter().filter(|(name, _)| !never_kept.contains(name)) {
        if !said.contains(&whole(kind, name)) {
            write_name(name, out);
            out.extend_from_slice(value.get().as_bytes());
        }
    }
    let any = out.len() > empty;
    out.push(b'}');
    any
}

/// Writes what an element becomes; returns whether anything is left of it.
fn write_element(
    kind: Option<&'static Type>,
    name: &str,
    new: &RawValue,
    held: Option<&RawValue>,
    out: &mut Vec<u8>,
) -> bool {
    let element = kind.and_then(|kind| kind.element(name));
    let (Some(element), Some(held)) = (element, held) else { return write_without(new.get(), out) };
    if element.many && element.type_name == "Extension" {
        return write_extensions(new, held, out);
    }
    let by_parts = !element.many && (element.type_name == "Period" || element.type_name.contains('.'));
    let both = by_parts.then(|| Some((members(new)?, members(held)?))).flatten();
    match both {
        Some((new, held)) => write_object(element.kind(), &new, &held, &[], out),
        None => write_without(new.get(), out),
    }
}

/// Those of the message, then those of the server of other urls.
fn write_extensions(new: &RawValue, held: &RawValue, out: &mut Vec<u8>) -> bool {
    let list = |list: &RawValue| -> Vec<String> {
        let items: Vec<&RawValue> = serde_json::from_str(list.get()).unwrap_or_default();
        items.into_iter().map(|item| item.get().to_owned()).collect()
    };
    let url = |item: &str| -> Option<String> {
        let item: Members<'_> = serde_json::from_str(item).ok()?;
        Some(item.get("url")?.get().to_owned())
    };
    let new = list(new);
    let said: Vec<_> = new.iter().filter_map(|item| url(item)).collect();
    let kept = list(held).into_iter().filter(|item| url(item).is_none_or(|url| !said.contains(&url)));
    let mut items = Vec::new();
    for item in new.into_iter().chain(kept) {
        let mut one = Vec::new();
        if write_without(&item, &mut one) {
            items.push(one);
        }
    }
    out.push(b'[');
    out.extend_from_slice(&items.join(&b','));
    out.push(b']');
    !items.is_empty()
}

fn members(value: &RawValue) -> Option<Members<'_>> {
    serde_json::from_str(value.get()).ok()
}

/// The element that a name is a part of: all shapes of a choice are one, and so are a primitive and its extension.
fn whole<'n>(kind: Option<&'static Type>, name: &'n str) -> &'n str {
    let base = name.strip_prefix('_').unwrap_or(name);
    kind.and_then(|kind| kind.element(base)).and_then(|element| element.choice).unwrap_or(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(held: &str, new: &str) -> String {
        let read = |json: &'static str| serde_json::from_str::<Members<'_>>(json).unwrap();
        let whole =
            |rest: &str| &*Box::leak(format!("{{\"resourceType\":\"Patient\"{rest}}}").into_boxed_str());
        let mut out = Vec::new();
        write_merged(&read(whole(new)), &read(whole(held)), &mut out);
        String::from_utf8(out).unwrap().replace("{\"resourceType\":\"Patient\"", "{")
    }

    #[test]
    fn what_is_not_said_stays_what_is_said_replaces_what_is_removed_goes() {
        for (held, new, result) in [
            (
                r#","gender":"male","multipleBirthInteger":2"#,
                "",
                r#"{,"gender":"male","multipleBirthInteger":2}"#,
            ),
            (r#","gender":"male""#, r#","gender":"female""#, r#"{,"gender":"female"}"#),
            (r#","gender":"male","active":true"#, r#","gender":null"#, r#"{,"active":true}"#),
            ("", r#","gender":null"#, "{}"),
            (
                r#","telecom":[{"value":"1"},{"value":"2"}]"#,
                r#","telecom":[{"value":"3"}]"#,
                r#"{,"telecom":[{"value":"3"}]}"#,
            ),
            (
                r#","maritalStatus":{"text":"old"}"#,
                r#","maritalStatus":{"coding":[{"code":"M"}]}"#,
                r#"{,"maritalStatus":{"coding":[{"code":"M"}]}}"#,
            ),
        ] {
            assert_eq!(merged(held, new), result, "{held} + {new}");
        }
    }

    #[test]
    fn a_choice_and_a_primitive_with_its_extension_are_one_element() {
        let died = r#","deceasedDateTime":"2026-01-01""#;
        assert_eq!(merged(died, r#","deceasedBoolean":false"#), r#"{,"deceasedBoolean":false}"#);
        assert_eq!(merged(died, r#","deceasedBoolean":null"#), "{}");
        let born = r#","birthDate":"1970-01-01","_birthDate":{"extension":[{"url":"t"}]}"#;
        assert_eq!(merged(born, r#","birthDate":"1971-01-01""#), r#"{,"birthDate":"1971-01-01"}"#);
        assert_eq!(merged(born, r#","birthDate":null,"_birthDate":{"extension":null}"#), "{}");
    }

    #[test]
    fn extensions_are_by_url() {
        let held = r#","extension":[{"url":"a","valueDecimal":7.10},{"url":"b","valueCode":"x"}]"#;
        assert_eq!(
            merged(held, r#","extension":[{"url":"b","valueCode":"y"}]"#),
            r#"{,"extension":[{"url":"b","valueCode":"y"},{"url":"a","valueDecimal":7.10}]}"#
        );
        assert_eq!(
            merged(held, r#","extension":[{"url":"b","valueCode":null}]"#),
            r#"{,"extension":[{"url":"a","valueDecimal":7.10}]}"#
        );
        assert_eq!(merged(held, r#","extension":null"#), "{}");
    }

    #[test]
    fn backbone_elements_and_periods_are_merged_by_parts() {
        let read = |json: &'static str| serde_json::from_str::<Members<'_>>(json).unwrap();
        let mut out = Vec::new();
        write_merged(
            &read(
                r#"{"resourceType":"Encounter","period":{"end":null},"hospitalization":{"admitSource":{"text":"new"}}}"#,
            ),
            &read(
                r#"{"resourceType":"Encounter","period":{"start":"1","end":"2"},"hospitalization":{"admitSource":{"text":"old"},"reAdmission":{"text":"R"}}}"#,
            ),
            &mut out,
        );
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"resourceType":"Encounter","period":{"start":"1"},"hospitalization":{"admitSource":{"text":"new"},"reAdmission":{"text":"R"}}}"#
        );
    }

    /// What labels a resource is the message's alone, and no narrative tells what was suppressed.
    #[test]
    fn h7_neither_labels_nor_narratives_stay() {
        let held = r##","meta":{"versionId":"3","security":[{"code":"R"}]},"text":{"div":"1 Secret Lane"},"contained":[{"resourceType":"Organization","id":"o"},{"resourceType":"Practitioner","id":"p"}],"managingOrganization":{"reference":"#o"},"generalPractitioner":[{"reference":"#p"}]"##;
        assert_eq!(
            merged(held, r#","generalPractitioner":null"#),
            r##"{,"managingOrganization":{"reference":"#o"},"contained":[{"resourceType":"Organization","id":"o"}]}"##
        );
        assert_eq!(
            merged(r#","meta":{"security":[{"code":"R"}]}"#, r#","meta":{"source":"x"}"#),
            r#"{,"meta":{"source":"x"}}"#
        );
    }

    /// A repeat, after whatever came of the first, changes nothing.
    #[test]
    fn p3_merged_twice_is_merged_once() {
        let held = r#","active":true,"gender":"male","extension":[{"url":"a"}],"birthDate":"1970""#;
        let new = r#","gender":null,"extension":[{"url":"b","valueCode":"x"},{"url":"a","valueCode":null}],"active":false"#;
        let once = merged(held, new);
        let again = merged(once.strip_prefix('{').unwrap().strip_suffix('}').unwrap(), new);
        assert_eq!(once, again);
    }
}
