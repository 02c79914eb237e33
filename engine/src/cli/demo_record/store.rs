//! The resources of the demonstration record: in memory, with versions, transactions and search by identifier.
//!
//! Promises: a transaction is applied whole or not at all; what was there before and is the same gets no new
//! version; memory is bounded, by letting go of the oldest. Pure: the time is passed in.
//! Not here: HTTP. And not a FHIR server: no profiles, no other search, nothing is kept over a restart.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use jiff::Timestamp;
use serde_json::{Value, json};

/// A resource as it is kept.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    resource: Value,
    pub(super) version: u64,
    pub(super) updated: Timestamp,
}

/// Type and id.
pub(super) type Name = (String, String);

/// A write that has been understood.
enum Write {
    Put(Name, Value),
    /// A conditional create that found what it looks for.
    Found(Name),
}

/// On what a write depends.
#[derive(Default)]
pub(super) struct Condition<'a> {
    pub(super) if_none_exist: Option<&'a str>,
    pub(super) if_match: Option<&'a str>,
}

/// What was done to one resource.
pub(super) struct Written {
    pub(super) name: Name,
    pub(super) created: bool,
    pub(super) version: u64,
}

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: u16,
    /// Of the FHIR value set issue-type.
    pub(super) code: &'static str,
    pub(super) why: String,
}

/// The resources.
pub(super) struct Store {
    at_most: usize,
    resources: HashMap<Name, Kept>,
    /// Type and `system|value`, and what has it.
    identifiers: HashMap<(String, String), BTreeSet<String>>,
    age: VecDeque<Name>,
    /// Versions written since the start.
    pub(super) versions: u64,
    /// Resources let go of.
    pub(super) dropped: u64,
}

type Outcome<T> = Result<T, Refused>;

fn refused<T>(status: u16, code: &'static str, why: impl Into<String>) -> Outcome<T> {
    Err(Refused { status, code, why: why.into() })
}

impl Store {
    pub(super) fn new(at_most: usize) -> Self {
        Self {
            at_most: at_most.max(1),
            resources: HashMap::new(),
            identifiers: HashMap::new(),
            age: VecDeque::new(),
            versions: 0,
            dropped: 0,
        }
    }

    /// A resource with its version in `meta`.
    pub(super) fn read(&self, name: &Name) -> Option<Value> {
        let kept = self.resources.get(name)?;
        let mut resource = kept.resource.clone();
        if let Some(elements) = resource.as_object_mut() {
            let meta = elements.entry("meta").or_insert_with(|| json!({}));
            if let Some(meta) = meta.as_object_mut() {
                meta.insert("versionId".to_owned(), json!(kept.version.to_string()));
                meta.insert("lastUpdated".to_owned(), json!(kept.updated.to_string()));
            }
        }
        Some(resource)
    }

    /// The ids of a type, all or those with this identifier (`system|value`, or a value of any system).
    pub(super) fn search(&self, kind: &str, identifier: Option<&str>) -> Vec<Name> {
        let name = |id: &String| (kind.to_owned(), id.clone());
        match identifier {
            Some(token) => {
                let found = self.identifiers.get(&(kind.to_owned(), token.to_owned()));
                found.into_iter().flatten().map(name).collect()
            }
            None => self.age.iter().filter(|(known, _)| known == kind).cloned().collect(),
        }
    }

    /// How many of each type.
    pub(super) fn counts(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for (kind, _) in self.resources.keys() {
            *counts.entry(kind.as_str()).or_default() += 1;
        }
        counts
    }

    /// The latest resources, by when they were first written.
    pub(super) fn latest(&self, at_most: usize) -> impl Iterator<Item = (&Name, &Kept)> {
        self.age.iter().rev().take(at_most).filter_map(|name| Some((name, self.resources.get(name)?)))
    }

    /// Applies one write: `method` and `url` as in a transaction's request.
    pub(super) fn write(
        &mut self,
        method: &str,
        url: &str,
        condition: Condition<'_>,
        resource: Value,
        now: Timestamp,
    ) -> Outcome<Written> {
        let write = self.understand(method, url, condition.if_none_exist, resource)?;
        self.match_version(&write, condition.if_match)?;
        Ok(self.apply(write, now))
    }

    /// Whether a write is about the version that there is.
    fn match_version(&self, write: &Write, if_match: Option<&str>) -> Outcome<()> {
        let (Write::Put(name, _) | Write::Found(name)) = write;
        let version = self.resources.get(name).map(|kept| format!("\"{}\"", kept.version));
        match if_match.map(|tag| tag.trim_start_matches("W/")) {
            Some(tag) if version.as_deref() != Some(tag) => {
                refused(412, "conflict", "the resource has another version")
            }
            _ => Ok(()),
        }
    }

    /// Applies a transaction: all of it, or nothing.
    pub(super) fn transaction(&mut self, bundle: Value, now: Timestamp) -> Outcome<Vec<Written>> {
        let Value::Object(mut bundle) = bundle else { return refused(400, "structure", "no resource") };
        if bundle.get("resourceType").and_then(Value::as_str) != Some("Bundle") {
            return refused(400, "structure", "no Bundle");
        }
        if bundle.get("type").and_then(Value::as_str) != Some("transaction") {
            return refused(400, "not-supported", "the Bundle is no transaction");
        }
        let entries = match bundle.remove("entry") {
            Some(Value::Array(entries)) => entries,
            None => Vec::new(),
            Some(_) => return refused(400, "structure", "entry is no list"),
        };
        let (mut writes, mut names) = (Vec::new(), HashMap::new());
        let mut targets = HashSet::new();
        for mut entry in entries {
            let text = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
            let (method, url) = (text("/request/method"), text("/request/url"));
            let (Some(method), Some(url)) = (method, url) else {
                return refused(400, "required", "an entry without request.method and request.url");
            };
            let (full_url, if_none_exist) = (text("/fullUrl"), text("/request/ifNoneExist"));
            let if_match = text("/request/ifMatch");
            let resource = entry.get_mut("resource").map(Value::take).unwrap_or_default();
            let write = self.understand(&method, &url, if_none_exist.as_deref(), resource)?;
            self.match_version(&write, if_match.as_deref())?;
            let (Write::Put(name, _) | Write::Found(name)) = &write;
            if !targets.insert(name.clone()) {
                return refused(400, "duplicate", "two entries for one resource");
            }
            if let Some(full_url) = full_url {
                names.insert(full_url, format!("{}/{}", name.0, name.1));
            }
            writes.push(write);
        }
        for write in &mut writes {
            if let Write::Put(_, resource) = write {
                point(resource, &names);
            }
        }
        Ok(writes.into_iter().map(|write| self.apply(write, now)).collect())
    }

    fn understand(
        &self,
        method: &str,
        url: &str,
        if_none_exist: Option<&str>,
        resource: Value,
    ) -> Outcome<Write> {
        let (path, query) = url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)));
        let (kind, id) = path.split_once('/').map_or((path, None), |(kind, id)| (kind, Some(id)));
        if resource.get("resourceType").and_then(Value::as_str) != Some(kind) {
            return refused(400, "invalid", "the resource is not of the type in its address");
        }
        let own = resource.get("id").and_then(Value::as_str).map(str::to_owned);
        let fresh = || uuid::Uuid::new_v4().to_string();
        match (method, id, query.or(if_none_exist)) {
            ("PUT", Some(id), _) if own.as_deref() == Some(id) => put(kind, id.to_owned(), resource),
            ("PUT", Some(_), _) => refused(400, "invalid", "the resource has another id than its address"),
            ("PUT", None, Some(query)) => match self.only(kind, query)? {
                Some(id) => put(kind, id, resource),
                None => put(kind, own.unwrap_or_else(fresh), resource),
            },
            ("POST", None, Some(query)) => match self.only(kind, query)? {
                Some(id) => Ok(Write::Found((kind.to_owned(), id))),
                None => put(kind, fresh(), resource),
            },
            ("POST", None, None) => put(kind, fresh(), resource),
            _ => refused(400, "not-supported", format!("{method} is not done here")),
        }
    }

    /// The only resource that a condition matches, if any does.
    fn only(&self, kind: &str, query: &str) -> Outcome<Option<String>> {
        let Some(token) = query.strip_prefix("identifier=") else {
            return refused(412, "not-supported", "a condition other than identifier=");
        };
        let token = percent_decoded(token);
        let mut found = self.search(kind, Some(&token)).into_iter();
        match (found.next(), found.next()) {
            (_, Some(_)) => refused(412, "multiple-matches", "the condition matches several resources"),
            (found, None) => Ok(found.map(|(_, id)| id)),
        }
    }

    fn apply(&mut self, write: Write, now: Timestamp) -> Written {
        let (name, resource) = match write {
            Write::Put(name, resource) => (name, resource),
            Write::Found(name) => {
                let version = self.resources.get(&name).map_or(0, |kept| kept.version);
                return Written { name, created: false, version };
            }
        };
        let before = self.resources.get(&name);
        let created = before.is_none();
        let version = before.map_or(0, |kept| kept.version);
        if before.is_some_and(|kept| kept.resource == resource) {
            return Written { name, created, version };
        }
        let version = version + 1;
        self.versions += 1;
        self.forget_identifiers(&name);
        for token in tokens(&resource) {
            self.identifiers.entry((name.0.clone(), token)).or_default().insert(name.1.clone());
        }
        self.resources.insert(name.clone(), Kept { resource, version, updated: now });
        if created {
            self.age.push_back(name.clone());
            if self.age.len() > self.at_most {
                self.let_go();
            }
        }
        Written { name, created, version }
    }

    /// Forgets a resource, if it is there.
    pub(super) fn delete(&mut self, name: &Name) {
        self.forget_identifiers(name);
        if self.resources.remove(name).is_some() {
            self.age.retain(|known| known != name);
        }
    }

    fn let_go(&mut self) {
        if let Some(oldest) = self.age.pop_front() {
            self.forget_identifiers(&oldest);
            self.resources.remove(&oldest);
            self.dropped += 1;
        }
    }

    fn forget_identifiers(&mut self, name: &Name) {
        let Some(kept) = self.resources.get(name) else { return };
        for token in tokens(&kept.resource) {
            let key = (name.0.clone(), token);
            if let Some(ids) = self.identifiers.get_mut(&key) {
                ids.remove(&name.1);
                if ids.is_empty() {
                    self.identifiers.remove(&key);
                }
            }
        }
    }
}

fn put(kind: &str, id: String, mut resource: Value) -> Outcome<Write> {
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    if id.is_empty() || id.len() > 64 || !plain(&id) || kind.is_empty() || !plain(kind) {
        return refused(400, "value", "no valid type and id");
    }
    if let Some(elements) = resource.as_object_mut() {
        elements.insert("id".to_owned(), json!(id));
    }
    Ok(Write::Put((kind.to_owned(), id), resource))
}

/// What a resource can be found by: each identifier as `system|value` and as `value`.
fn tokens(resource: &Value) -> Vec<String> {
    let identifiers = match resource.get("identifier") {
        Some(Value::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let mut tokens = Vec::new();
    for identifier in identifiers {
        let Some(value) = text(identifier, "value") else { continue };
        tokens.push(format!("{}|{value}", text(identifier, "system").unwrap_or_default()));
        tokens.push(value);
    }
    tokens
}

/// Lets references to entries of the same transaction point to where these are kept.
fn point(value: &mut Value, names: &HashMap<String, String>) {
    match value {
        Value::Object(elements) => {
            for (name, element) in elements.iter_mut() {
                match (name.as_str(), &element) {
                    ("reference", Value::String(text)) => {
                        if let Some(target) = names.get(text) {
                            *element = Value::String(target.clone());
                        }
                    }
                    _ => point(element, names),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|element| point(element, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// `%7C` and the like, in the condition of a transaction's entry.
pub(super) fn percent_decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut out = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(digits.unwrap_or(b'%'));
        out.extend(part.get(if digits.is_some() { 2 } else { 0 }..).unwrap_or_default().bytes());
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(method: &str, url: &str, resource: Value) -> Value {
        json!({"fullUrl": format!("urn:uuid:{url}"), "resource": resource, "request": {"method": method, "url": url}})
    }

    fn transaction(store: &mut Store, entries: &[Value]) -> Outcome<Vec<Written>> {
        store.transaction(
            json!({"resourceType": "Bundle", "type": "transaction", "entry": entries}),
            Timestamp::UNIX_EPOCH,
        )
    }

    fn patient(id: &str, number: &str) -> Value {
        json!({"resourceType": "Patient", "id": id, "identifier": [{"system": "urn:nhs", "value": number}]})
    }

    fn name(kind: &str, id: &str) -> Name {
        (kind.to_owned(), id.to_owned())
    }

    #[test]
    fn a_repeat_changes_nothing_and_a_change_makes_a_version() {
        let mut store = Store::new(10);
        let first = [entry("PUT", "Patient/1", patient("1", "a"))];
        assert!(transaction(&mut store, &first).unwrap()[0].created);
        assert!(!transaction(&mut store, &first).unwrap()[0].created);
        assert_eq!(store.versions, 1);
        let changed = transaction(&mut store, &[entry("PUT", "Patient/1", patient("1", "b"))]).unwrap();
        assert_eq!((changed[0].created, changed[0].version, store.versions), (false, 2, 2));
        assert_eq!(store.search("Patient", Some("urn:nhs|a")), []);
        assert_eq!(store.search("Patient", Some("b")), [name("Patient", "1")]);
    }

    #[test]
    fn a_transaction_with_one_bad_entry_is_not_applied_at_all() {
        let mut store = Store::new(10);
        let entries =
            [entry("PUT", "Patient/1", patient("1", "a")), entry("PUT", "Patient/2", patient("3", "b"))];
        assert_eq!(transaction(&mut store, &entries).err().unwrap().status, 400);
        assert_eq!((store.read(&name("Patient", "1")), store.versions), (None, 0));
    }

    #[test]
    fn references_within_a_transaction_point_to_what_was_stored() {
        let mut store = Store::new(10);
        let visit =
            json!({"resourceType": "Encounter", "id": "9", "subject": {"reference": "urn:uuid:Patient/1"}});
        let entries = [entry("PUT", "Encounter/9", visit), entry("PUT", "Patient/1", patient("1", "a"))];
        transaction(&mut store, &entries).unwrap();
        let read = store.read(&name("Encounter", "9")).unwrap();
        assert_eq!(read["subject"]["reference"], "Patient/1");
        assert_eq!(read["meta"]["versionId"], "1");
    }

    #[test]
    fn conditions_are_by_identifier_and_must_match_one_at_most() {
        let mut store = Store::new(10);
        let by = "Patient?identifier=urn:nhs%7Ca";
        let first = transaction(&mut store, &[entry("PUT", by, patient("1", "a"))]).unwrap();
        assert_eq!((first[0].name.clone(), first[0].created), (name("Patient", "1"), true));
        let again = transaction(&mut store, &[entry("PUT", by, patient("7", "a"))]).unwrap();
        assert_eq!((again[0].name.clone(), again[0].created), (name("Patient", "1"), false));
        let mut create = entry("POST", "Patient", patient("", "a"));
        create["request"]["ifNoneExist"] = json!("identifier=urn:nhs|a");
        assert!(!transaction(&mut store, &[create]).unwrap()[0].created);
        transaction(&mut store, &[entry("PUT", "Patient/2", patient("2", "a"))]).unwrap();
        assert_eq!(
            transaction(&mut store, &[entry("PUT", by, patient("1", "a"))]).err().unwrap().status,
            412
        );
    }

    #[test]
    fn memory_is_bounded_by_letting_go_of_the_oldest() {
        let mut store = Store::new(2);
        for id in ["1", "2", "3"] {
            transaction(&mut store, &[entry("PUT", &format!("Patient/{id}"), patient(id, "a"))]).unwrap();
        }
        assert_eq!(store.search("Patient", None), [name("Patient", "2"), name("Patient", "3")]);
        assert_eq!(store.search("Patient", Some("a")).len(), 2);
        assert_eq!((store.dropped, store.counts().get("Patient")), (1, Some(&2)));
    }

    #[test]
    fn percent_signs_are_decoded_and_stray_ones_kept() {
        assert_eq!(percent_decoded("a%7Cb%"), "a|b%");
        assert_eq!(percent_decoded("100%zz%C3%A9"), "100%zzé");
    }
}
