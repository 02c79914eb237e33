//! What a message removes (`""` in HL7 v2), and how it is told: by an element of a resource that is `null`.
//!
//! FHIR has no `null` there, so it stands in the journal only, and a destination is handed it if it says that it knows
//! what to do with it; from what all others get it is taken out. Digits and order of everything else stay as they are.

use std::fmt;

use bytes::Bytes;
use memchr::memmem;
use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

use super::Payload;

/// As [`crate::fhir`] writes it, which puts no blanks.
const REMOVED: &str = "null";
const SIGN: &[u8] = b":null";

/// The members of a JSON object in their order, each value as it was written.
#[derive(Default)]
pub struct Members<'a>(Vec<(String, &'a RawValue)>);

impl Payload {
    /// The same without what the sender removed: plain FHIR.
    #[must_use]
    pub fn without_removals(&self) -> Self {
        match self {
            Self::FhirBundle(json) => Self::FhirBundle(without(json)),
            Self::FhirResource { resource_type, id, json } => Self::FhirResource {
                resource_type: resource_type.clone(),
                id: id.clone(),
                json: without(json),
            },
            Self::Hl7(bytes) => Self::Hl7(bytes.clone()),
        }
    }

    /// What the sender removed, as `Patient.telecom`; in order.
    pub fn removals(&self) -> Vec<String> {
        let mut found = Vec::new();
        let is_fhir = !matches!(self, Self::Hl7(_)) && may_remove(self.bytes());
        if let Some(root) = is_fhir.then(|| serde_json::from_slice::<Value>(self.bytes()).ok()).flatten() {
            look(&root, "", &mut found);
        }
        found
    }
}

/// Whether the element was removed.
pub fn is_removed(value: &RawValue) -> bool {
    value.get() == REMOVED
}

/// Writes a value without what was removed in it; returns whether anything is left. An extension of which only its url
/// is left is none.
pub fn write_without(value: &str, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let kept = match value.as_bytes().first() {
        _ if !may_remove(value.as_bytes()) => None,
        Some(b'{') => serde_json::from_str(value).ok().map(|members| write_members(&members, out)),
        Some(b'[') => serde_json::from_str(value).ok().map(|items: Vec<&RawValue>| write_items(&items, out)),
        _ => None,
    };
    match kept {
        Some(true) => true,
        Some(false) => {
            out.truncate(start);
            false
        }
        None => {
            out.extend_from_slice(value.as_bytes());
            true
        }
    }
}

/// Writes the name of a member and the colon behind it, after a comma where something stands before it.
pub fn write_name(name: &str, out: &mut Vec<u8>) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.extend_from_slice(Value::from(name).to_string().as_bytes());
    out.push(b':');
}

fn write_members(members: &Members<'_>, out: &mut Vec<u8>) -> bool {
    out.push(b'{');
    let (mut left, mut removed) = (0, false);
    for (name, value) in members.iter() {
        let start = out.len();
        write_name(name, out);
        if is_removed(value) || !write_without(value.get(), out) {
            out.truncate(start);
            removed = true;
        } else {
            left += 1;
        }
    }
    out.push(b'}');
    let only_url = left == 1 && removed && members.get("url").is_some();
    left > 0 && !only_url
}

fn write_items(items: &[&RawValue], out: &mut Vec<u8>) -> bool {
    out.push(b'[');
    let mut left = 0;
    for item in items {
        let start = out.len();
        if left > 0 {
            out.push(b',');
        }
        if write_without(item.get(), out) {
            left += 1;
        } else {
            out.truncate(start);
        }
    }
    out.push(b']');
    left > 0
}

/// Cheap, and right where it says no: nearly always.
fn may_remove(json: &[u8]) -> bool {
    memmem::find(json, SIGN).is_some()
}

fn without(json: &Bytes) -> Bytes {
    let text = may_remove(json).then(|| std::str::from_utf8(json).ok()).flatten();
    let Some(text) = text else { return json.clone() };
    let mut out = Vec::with_capacity(text.len());
    write_without(text, &mut out);
    out.into()
}

fn look(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Null => found.push(at.to_owned()),
        Value::Array(items) => items.iter().for_each(|item| look(item, at, found)),
        Value::Object(members) => {
            let named = members.get("resourceType").and_then(Value::as_str);
            let at = match (named, members.get("url").and_then(Value::as_str)) {
                (Some("Bundle"), _) => String::new(),
                (Some(named), _) => named.to_owned(),
                (None, Some(url)) => format!("{at}({url})"),
                (None, None) => at.to_owned(),
            };
            for (name, member) in members {
                look(member, &if at.is_empty() { name.clone() } else { format!("{at}.{name}") }, found);
            }
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

impl<'a> Members<'a> {
    /// A member's value.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(12);
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without_removals(json: &str) -> String {
        let sent = Payload::FhirBundle(Bytes::from(json.to_owned())).without_removals();
        String::from_utf8(sent.bytes().to_vec()).unwrap()
    }

    #[test]
    fn what_was_removed_is_taken_out_and_nothing_else_is_touched() {
        for (json, left) in [
            (r#"{"a":7.10,"b":null,"c":1E2}"#, r#"{"a":7.10,"c":1E2}"#),
            (r#"{"b":null,"a":":null","d":"\":null"}"#, r#"{"a":":null","d":"\":null"}"#),
            (r#"{"given":["A",null],"x":{"end":null}}"#, r#"{"given":["A",null]}"#),
            (
                r#"{"given":["A",null],"x":{"end":null,"start":"1"}}"#,
                r#"{"given":["A",null],"x":{"start":"1"}}"#,
            ),
            (
                r#"{"a":1,"extension":[{"url":"u","valueCode":null},{"url":"v","valueCode":"c"}]}"#,
                r#"{"a":1,"extension":[{"url":"v","valueCode":"c"}]}"#,
            ),
            (
                r#"{"a":1,"extension":[{"url":"u","extension":[{"url":"code","valueCode":null}]}]}"#,
                r#"{"a":1}"#,
            ),
            (r#"{"url":"http://x","title":"kept"}"#, r#"{"url":"http://x","title":"kept"}"#),
            (r#"{"z":"Zo\u00eb :null","y":null}"#, r#"{"z":"Zo\u00eb :null"}"#),
        ] {
            assert_eq!(without_removals(json), left, "{json}");
        }
        let plain = Bytes::from_static(br#"{"a":1}"#);
        let same = Payload::FhirBundle(plain.clone()).without_removals();
        assert_eq!(same.bytes().as_ptr(), plain.as_ptr(), "nothing is copied where nothing was removed");
    }

    #[test]
    fn what_was_removed_is_told() {
        let json = r#"{"resourceType":"Bundle","entry":[{"resource":{"resourceType":"Patient","telecom":null,
            "extension":[{"url":"u","valueCode":null}]}},{"resource":{"resourceType":"Encounter","period":{"end":null}}}]}"#;
        assert_eq!(
            Payload::FhirBundle(json.replace("\n            ", "").into()).removals(),
            ["Patient.telecom", "Patient.extension(u).valueCode", "Encounter.period.end"]
        );
    }
}
