//! The shipped mappings against `testdata/`: every message gives the bundle, or the reason, that stands beside it.
//!
//! `x.hl7` with `x.json` gives that bundle; `x.hl7` with `x.expect` gives that line. `UPDATE=1` writes what comes
//! out, for a person to read in the diff before it is committed. `testdata/README.md` says how to add a case.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

#[path = "mappings/kept_apart.rs"]
mod kept_apart;
#[path = "mappings/parents.rs"]
mod parents;
#[path = "mappings/sequences.rs"]
mod sequences;
#[path = "support/shipped.rs"]
mod shipped;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use shipped::{compiled, context, extension, files, messages, root, routes, shipped, walk};
use tie_engine::{
    connector::Payload,
    hl7::{Message, batch},
    incoming::Incoming,
    mapping::{Context, Limits, Mapped, Mappings},
};

#[test]
fn every_message_of_testdata_gives_what_stands_beside_it() {
    let mappings = shipped();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for file in messages(&root().join("testdata")) {
        seen += 1;
        let (text, kind) = told(&mappings, &file);
        let expected = file.with_extension(kind);
        if std::env::var_os("UPDATE").is_some() {
            let other = file.with_extension(if kind == "json" { "expect" } else { "json" });
            let _ = fs::remove_file(other);
            fs::write(&expected, &text).unwrap();
        }
        match fs::read_to_string(&expected) {
            Ok(known) if known == text => {}
            Ok(known) => wrong.push(format!("{}\n{}", shown(&expected), difference(&known, &text))),
            Err(_) => {
                wrong.push(format!("{} is missing; the mapping gives:\n{}", shown(&expected), head(&text)))
            }
        }
    }
    assert!(seen > 90, "only {seen} messages under testdata");
    assert!(
        wrong.is_empty(),
        "{} of {seen} differ (UPDATE=1 rewrites them):\n\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn no_expectation_is_left_without_its_message() {
    let orphans: Vec<PathBuf> = walk(&root().join("testdata"))
        .into_iter()
        .filter(|file| matches!(extension(file), "json" | "expect"))
        .filter(|file| !["hl7", "fhir"].iter().any(|kind| file.with_extension(kind).exists()))
        .collect();
    assert!(orphans.is_empty(), "{orphans:?}");
}

#[test]
fn the_same_message_gives_the_same_bytes_again() {
    let (first, second) = (shipped(), shipped());
    for file in messages(&root().join("testdata")) {
        assert_eq!(told(&first, &file), told(&second, &file), "{}", file.display());
    }
}

#[test]
fn a_route_knows_every_shipped_mapping() {
    for name in shipped().names() {
        assert!(routes().iter().any(|route| route.map == name), "no route maps with `{name}`");
    }
}

/// A trust's layer comes behind the shipped constants: what was made of one of them would not have what the trust changed,
/// such as what it takes out for all patients.
#[test]
fn no_shipped_map_is_made_of_another() {
    let mut made = Vec::new();
    for file in walk(&root().join("mappings")).into_iter().filter(|file| extension(file) == "rhai") {
        let text = fs::read_to_string(&file).unwrap();
        let constants = text.lines().filter(|line| line.starts_with("const "));
        let derived = constants.filter(|line| [".with(", ".without("].iter().any(|call| line.contains(call)));
        made.extend(derived.map(|line| format!("{}: {line}", shown(&file))));
    }
    assert_eq!(made, [] as [String; 0]);
}

/// Wherever the number stands in the message.
#[test]
fn h11_a_test_nhs_number_does_not_reach_a_live_record() {
    let mappings = shipped();
    for pid in
        ["PID|1||9990000018^^^NHS~4001^^^RXX^MR||ALPHA^A", "PID|1||4001^^^RXX^MR|9990000018^^^NHS|ALPHA^A"]
    {
        let text = format!("MSH|^~\\&|PAS|RXX|TIE|RXX|20260115093000||ADT^A28|C1|P|2.4\r{pid}\r");
        let message = Arc::new(Message::parse(text.into(), encoding_rs::WINDOWS_1252).unwrap());
        let made = |environment: &str| {
            let context = Context { environment: environment.into(), ..context() };
            mappings.run("adt", &message, &context).unwrap().mapped
        };
        let refused = Mapped::Reject("a test NHS number came to a live environment".into());
        assert_eq!(made("live"), refused, "{pid}");
        assert!(matches!(made("test"), Mapped::Outputs(_)), "{pid}");
    }
}

/// The message says CANARY wherever a restricted patient's home, relatives, telephones or GP may be told.
#[test]
fn h7_nothing_of_a_restricted_patient_leaks_through_any_segment() {
    let file = root().join("testdata/adt/a01-restricted-with-everything.hl7");
    assert!(fs::read_to_string(&file).unwrap().matches("CANARY").count() > 30);
    let (text, kind) = told(&shipped(), &file);
    assert_eq!(kind, "json", "{text}");
    for leak in ["CANARY", "B86012", "G9999984"] {
        assert!(!text.contains(leak), "{leak} leaks");
    }
}

/// In whichever of several segments it is said; and a trust may say that a blank PV1-16 means it.
#[test]
fn h7_a_patient_is_restricted_wherever_it_is_said() {
    let mut files = files();
    let table = files.get_mut(Path::new("mappings/tables/sensitivity.csv")).unwrap();
    *table = format!("{}\nPV1-16=,R,restricted,yes\n", table.trim_end()).into();
    let (shipped, strict) = (shipped(), compiled(&files));
    let stay = |number: u8, flag: &str| {
        let pid = format!("PID|1||{number}^^^RXX^MR||BRAMBLE^ROSE||19800229|2|||7 CANARY LANE");
        format!("{pid}\rPV1|1|I|SAU^WARD3^BED{number}^RXX{}{flag}|||V{number}", "|".repeat(13))
    };
    let message = |event: &str, segments: &[String]| {
        let header = format!("MSH|^~\\&|PAS|RXX|R|R|20260210101500||ADT^{event}|1|P|2.4|||||GBR");
        Incoming::read(format!("{header}\r{}\r", segments.join("\r")).into(), encoding_rs::UTF_8).unwrap()
    };
    let tells = |mappings: &Mappings, message: &Incoming| {
        let (text, kind) = mapped_by(mappings, "adt", message);
        assert_eq!(kind, "json", "{text}");
        text.contains("CANARY")
    };
    for (flag, more, restricted) in [
        ("", "PV2||", false),
        ("N", "ZU8||||0", false),
        ("", "ARV|1|D|ALL", false),
        ("S", "PV2||", true),
        ("", "ZU8||||1", true),
        ("", "ZU8||||0\rZU8||||2", true),
        ("N", "ARV|1|A|ALL", true),
        ("N", "ARV|1|A|PID-17~LOC", true),
    ] {
        let message = message("A01", &[stay(1, flag), more.to_owned()]);
        assert_eq!(tells(&shipped, &message), !restricted, "{flag} {more}");
    }
    let two = message("A17", &[stay(1, ""), stay(2, "S")]);
    assert!(!tells(&shipped, &two), "of two patients who change places one is restricted");
    let blank = message("A01", &[stay(1, "")]);
    assert!(tells(&shipped, &blank) && !tells(&strict, &blank));
}

/// A trust's rows come behind the mark that the message is labelled with, where it is a list: they add to it.
#[test]
fn h7_the_mark_of_a_restricted_patient_stays_whatever_a_trust_adds() {
    let mut files = files();
    for (script, field) in [("patient", "PID-16"), ("encounter", "PV1-18")] {
        let map = format!("const NHS = NHS.with([[\"{field}\", \"meta.security\", \"CWE\"]]);\n");
        files.insert(format!("trust/lib/{script}.rhai").into(), map.into());
    }
    let folders = ["trust", "mappings"].map(PathBuf::from);
    let mappings = Mappings::compile_layers(&files, &folders, &Limits::default()).unwrap();
    let pid = "PID|1||4001^^^RXX^MR||BRAMBLE^ROSE|||||||||||OWN";
    let pv1 = format!("PV1|1|I|SAU^WARD3^^RXX{}S||OWN|V1", "|".repeat(13));
    let text = format!("MSH|^~\\&|PAS|RXX|R|R|20260210101500||ADT^A01|1|P|2.4|||||GBR\r{pid}\r{pv1}\r");
    let (text, kind) = mapped_by(&mappings, "adt", &Incoming::read(text.into(), encoding_rs::UTF_8).unwrap());
    assert_eq!(kind, "json", "{text}");
    let bundle: serde_json::Value = serde_json::from_str(&text).unwrap();
    let resources = bundle["entry"].as_array().unwrap().iter().map(|entry| &entry["resource"]);
    for resource in
        resources.filter(|one| ["Patient", "Encounter"].contains(&one["resourceType"].as_str().unwrap()))
    {
        let marks = resource["meta"]["security"].as_array().unwrap();
        let codes: Vec<_> = marks.iter().map(|mark| mark["code"].as_str()).collect();
        assert_eq!(codes, [Some("R"), Some("OWN")], "{resource}");
    }
}

/// Unlisted systems, dead codes and typing errors in tables show up as resources of two patients under one id, or
/// as one patient under two.
#[test]
fn one_patient_has_one_id_in_all_feeds() {
    let mappings = shipped();
    let id = |file: &str| {
        let (text, _) = told(&mappings, &root().join("testdata").join(file));
        let at = text
            .find("/nhs-number\",")
            .map(|_| ())
            .and_then(|()| text.find("Patient/"))
            .map(|at| &text[at..at + 44]);
        at.map(str::to_owned).unwrap_or_else(|| panic!("no patient in {file}"))
    };
    assert_eq!(id("adt/a01-admit-emergency.hl7"), id("adt/a03-discharge-home.hl7"));
    assert_ne!(id("adt/a01-admit-emergency.hl7"), id("adt/a28-new-person.hl7"));
}

/// The public messages beside the project, when they are there: every ADT and ORU gives a bundle or a stated reason.
#[test]
fn every_adt_and_oru_of_the_corpus_gives_a_bundle_or_a_stated_reason() {
    let corpus =
        std::env::var_os("TIE_CORPUS").map_or_else(|| root().join("../shared/data/messages"), PathBuf::from);
    if !corpus.is_dir() {
        eprintln!("no corpus at {}: nothing was checked (set TIE_CORPUS)", corpus.display());
        return;
    }
    let mappings = shipped();
    let (mut bundles, mut reasons, mut wrong) = (0, BTreeMap::<String, usize>::new(), Vec::new());
    for file in messages(&corpus) {
        let raw = Bytes::from(fs::read(&file).unwrap());
        let found = batch::split(&raw).messages;
        for raw in if found.is_empty() { vec![raw] } else { found } {
            let Ok(message) = Message::parse(raw, encoding_rs::WINDOWS_1252) else { continue };
            if !matches!(&*message.trigger().code, "ADT" | "ORU") {
                continue;
            }
            let (text, kind) = mapped(&mappings, &message.into());
            match kind {
                "json" => bundles += 1,
                _ if text.starts_with("error") => wrong.push(format!("{}: {text}", file.display())),
                _ => *reasons.entry(text).or_default() += 1,
            }
        }
    }
    eprintln!("{bundles} bundles, {} stated reasons:", reasons.values().sum::<usize>());
    for (reason, count) in &reasons {
        eprint!("{count:6} {reason}");
    }
    assert!(wrong.is_empty(), "{} without a bundle or a reason:\n{}", wrong.len(), wrong.concat());
    assert!(bundles > 300, "only {bundles} bundles");
}

fn told(mappings: &Mappings, file: &Path) -> (String, &'static str) {
    let raw = fs::read(file).unwrap();
    match Incoming::read(raw.into(), encoding_rs::WINDOWS_1252) {
        Ok(message) => mapped(mappings, &message),
        Err(error) => (format!("parse: {error}\n"), "expect"),
    }
}

/// What the first of the shipped routes that take a message makes of it; of a Bundle, the first that does not leave it to
/// the others.
fn mapped(mappings: &Mappings, message: &Incoming) -> (String, &'static str) {
    let names = routes().iter().filter(|route| routes().takes(route, message)).map(|route| &route.map);
    let made: Vec<_> = names.map(|name| mapped_by(mappings, name, message)).collect();
    let own = made.iter().find(|(text, _)| !text.starts_with("skip: there is no "));
    own.or(made.first()).cloned().unwrap_or(("no route takes it\n".to_owned(), "expect"))
}

fn mapped_by(mappings: &Mappings, name: &str, message: &Incoming) -> (String, &'static str) {
    match mappings.run(name, message, &context()) {
        Ok(product) => match product.mapped {
            Mapped::Outputs(payloads) if matches!(payloads.first(), Some(Payload::Hl7(_))) => {
                (payloads.iter().map(lines).collect(), "expect")
            }
            Mapped::Outputs(payloads) => (payloads.iter().map(pretty).collect(), "json"),
            Mapped::Skip(reason) => (format!("skip: {reason}\n"), "expect"),
            Mapped::Hold(reason) => (format!("hold: {reason}\n"), "expect"),
            Mapped::Reject(reason) => (format!("reject: {reason}\n"), "expect"),
        },
        Err(error) => (format!("error: {error}\n"), "expect"),
    }
}

fn shown(file: &Path) -> String {
    file.strip_prefix(root()).unwrap_or(file).display().to_string()
}

/// A segment a line.
fn lines(payload: &Payload) -> String {
    String::from_utf8_lossy(payload.bytes()).trim_end().replace('\r', "\n") + "\n"
}

/// JSON with one element a line; the digits of numbers are not touched.
fn pretty(payload: &Payload) -> String {
    let payload = payload.without_removals();
    let text = std::str::from_utf8(payload.bytes()).unwrap();
    let (mut out, mut depth, mut quoted, mut escaped) = (String::new(), 0, false, false);
    for character in text.chars() {
        if quoted {
            out.push(character);
            quoted = escaped || character != '"';
            escaped = !escaped && character == '\\';
            continue;
        }
        match character {
            '{' | '[' => {
                depth += 1;
                out.push(character);
                indent(&mut out, depth);
            }
            '}' | ']' => {
                depth -= 1;
                indent(&mut out, depth);
                out.push(character);
            }
            ',' => {
                out.push(',');
                indent(&mut out, depth);
            }
            ':' => out.push_str(": "),
            other => {
                quoted = other == '"';
                out.push(other);
            }
        }
    }
    out + "\n"
}

fn indent(out: &mut String, depth: usize) {
    out.push('\n');
    out.push_str(&"  ".repeat(depth));
}

/// The lines that differ, with what is around them.
fn difference(known: &str, found: &str) -> String {
    let (known, found): (Vec<_>, Vec<_>) = (known.lines().collect(), found.lines().collect());
    let same = known.iter().zip(&found).take_while(|(one, other)| one == other).count();
    let tail = known[same..]
        .iter()
        .rev()
        .zip(found[same..].iter().rev())
        .take_while(|(one, other)| one == other)
        .count();
    let mut out = String::new();
    for line in &known[same.saturating_sub(4)..same] {
        out += &format!("      {line}\n");
    }
    for line in &known[same..known.len() - tail] {
        out += &format!("    - {line}\n");
    }
    for line in &found[same..found.len() - tail] {
        out += &format!("    + {line}\n");
    }
    out
}

fn head(text: &str) -> String {
    text.lines().take(20).map(|line| format!("    {line}\n")).collect()
}
