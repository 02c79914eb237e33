//! HL7 v2 to FHIR and back by the shipped mappings: what is mapped comes back. And HL7 v2 sent on as HL7 v2: what is not
//! touched stays as it was, to the byte.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

#[path = "support/shipped.rs"]
mod shipped;

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use shipped::{context, root, shipped};
use tie_engine::{
    connector::Payload,
    hl7::{Message, Path as Place},
    incoming::Incoming,
    mapping::{Files, Limits, Mapped, Mappings},
};

/// Fields of a patient that come back as they were, and those that do not, with the reason.
const PATIENT: &[&str] = &[
    "PID-3.1",
    "PID-3.4.1",
    "PID-3[2].1",
    "PID-3[2].4.1",
    "PID-3[2].5",
    "PID-5.1",
    "PID-5.2",
    "PID-5.3",
    "PID-5.5",
    "PID-5.7",
    "PID-5[2].1",
    "PID-5[2].2",
    "PID-5[3].1",
    "PID-11.1",
    "PID-11.2",
    "PID-11.3",
    "PID-11.4",
    "PID-11.5",
    "PID-11.6",
    "PID-11.7",
    "PID-11[2].1",
    "PID-11[2].5",
    "PID-13.1",
    "PID-13.2",
    "PID-13.3",
    "PID-13[2].1",
    "PID-13[2].3",
    "PID-13[3].3",
    "PID-13[3].4",
    "PID-14.1",
    "PID-14.2",
    "PID-16",
    "PID-17.1",
    "PID-22",
    "PID-23",
    "PID-24",
    "PD1-3.1",
    "PD1-3.3",
    "PD1-3[2].1",
    "PD1-4.1",
    "PD1-4.2",
    "PD1-4.3",
    "PD1-4.6",
    "PD1-4.9",
];
const PATIENT_DIFFERS: &[(&str, &str, &str, &str)] = &[
    ("PID-3.5", "", "NH", "the type of an NHS number is told though the sender left it out"),
    ("PID-5[2].7", "PREVIOUS-MAIDEN", "M", "a use of a name has one code in FHIR: HL7's own goes back"),
    ("PID-7", "196512130415", "19651213041500+0000", "FHIR times have seconds and their offset"),
    (
        "PID-8",
        "2",
        "F",
        "the digits of the NHS and the letters of HL7 are one code in FHIR: letters are sent",
    ),
    ("PID-11[2].7", "PST", "M", "a postal address has one code in FHIR: HL7's own goes back"),
    ("PID-15", "EN", "en", "languages have small letters in FHIR"),
    ("PID-26", "GBR", "", "citizenship, nationality and verification of death are not sent to the EPR"),
];

/// Fields of a result that come back.
const RESULT: &[&str] = &[
    "PV1-19.1",
    "OBR-2.1",
    "OBR-3.1",
    "OBR-4.1",
    "OBR-4.2",
    "OBR-4.3",
    "OBR-4.4",
    "OBR-4.5",
    "OBR-4.6",
    "OBR-25",
    "OBX(1)-2",
    "OBX(1)-3.1",
    "OBX(1)-3.2",
    "OBX(1)-3.3",
    "OBX(1)-3.4",
    "OBX(1)-3.6",
    "OBX(1)-5",
    "OBX(1)-6.1",
    "OBX(1)-7",
    "OBX(1)-11",
    "OBX(2)-3.1",
    "OBX(2)-5",
    "OBX(2)-7",
    "OBX(3)-2",
    "OBX(3)-3.1",
    "OBX(3)-5.1",
    "OBX(3)-5.2",
    "OBX(3)-6.1",
    "OBX(4)-3.1",
    "OBX(4)-7",
    "OBX(4)-11",
    "NTE-3",
];
const RESULT_DIFFERS: &[(&str, &str, &str, &str)] = &[
    ("PID-3.1", "9991001018", "1000001", "results refer to the patient by the hospital's number alone"),
    ("PID-5.1", "OAKLEY", "", "results do not write the patient: the EPR knows the name"),
    ("OBR-7", "202601150900", "20260115090000+0000", "FHIR times have seconds and their offset"),
    ("OBR-24", "H", "LAB", "the section has the code of its table in FHIR"),
    (
        "OBX(2)-6.1",
        "x10^9/L",
        "10*9/L",
        "the unit goes as UCUM where the table has it, the laboratory's text beside it",
    ),
    ("OBX(4)-5", "\"\"", "", "a deleted value is a result without one: a note says so"),
    (
        "OBX(2)-14",
        "",
        "20260115090000+0000",
        "an observation has the time of its order where it has none of its own",
    ),
    (
        "OBR-16.1",
        "C9999991",
        "",
        "who asked is told in the ServiceRequest, and a result in HL7 v2 is made of the report alone",
    ),
];

/// What an order in FHIR says, in HL7 v2.
const ORDER: &[(&str, &str)] = &[
    ("ORC-1", "NW"),
    ("ORC-2.1", "GP-500"),
    ("ORC-9", "20260115093000+0000"),
    ("ORC-12.1", "C9999991"),
    ("ORC-12.2", "Darwin"),
    ("OBR-2.1", "GP-500"),
    ("OBR-4.1", "399208008"),
    ("OBR-4.3", "SCT"),
    ("OBR-13", "?consolidation R base"),
    ("OBR-16.9", "GMC"),
    ("OBR-24", "RAD"),
    ("OBR-27.4", "20260115140000+0000"),
    ("OBR-27.6", "A"),
    ("PID-3.1", "9991001018"),
    ("NTE-3", "Needs a hoist"),
];

#[test]
fn an_order_says_in_hl7_what_it_says_in_fhir() {
    let sent = Incoming::read(fs::read(top("testdata/fhir/order.fhir")).unwrap().into(), encoding_rs::UTF_8)
        .unwrap();
    let made = message(&run("fhir-orders", &sent));
    for (at, wanted) in ORDER {
        let found = made.get(&Place::parse(at).unwrap()).text().unwrap_or_default().into_owned();
        assert_eq!(found, *wanted, "{at} of {}", made.text().replace('\r', "\n"));
    }
}

#[test]
fn a_patient_comes_back_as_he_went() {
    let sent = message(&fs::read(top("testdata/adt/a28-new-person.hl7")).unwrap());
    let back = back("adt", &sent, "fhir-patients");
    same(&sent, &back, PATIENT, PATIENT_DIFFERS);
}

#[test]
fn a_result_comes_back_as_it_went() {
    let sent = message(&fs::read(top("testdata/oru/fbc.hl7")).unwrap());
    let back = back("oru", &sent, "fhir-observations");
    same(&sent, &back, RESULT, RESULT_DIFFERS);
}

fn same(sent: &Message, back: &Message, kept: &[&str], differs: &[(&str, &str, &str, &str)]) {
    let text = |message: &Message, at: &str| {
        let value = message.get(&Place::parse(at).unwrap());
        match (value.is_null(), value.text()) {
            (true, _) => "\"\"".to_owned(),
            (false, text) => text.map(std::borrow::Cow::into_owned).unwrap_or_default(),
        }
    };
    let wrong: Vec<String> = kept
        .iter()
        .filter(|at| text(sent, at) != text(back, at))
        .map(|at| format!("{at}: {:?} came back as {:?}", text(sent, at), text(back, at)))
        .collect();
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), back.text().replace('\r', "\n"));
    for (at, before, after, why) in differs {
        assert_eq!((text(sent, at).as_str(), text(back, at).as_str()), (*before, *after), "{at}: {why}");
    }
}

/// To FHIR by one mapping, and back by another.
fn back(there: &str, sent: &Message, mapping: &str) -> Message {
    let bundle = run(there, &Incoming::from(sent.clone()));
    let again = run(mapping, &Incoming::read(bundle, encoding_rs::UTF_8).unwrap());
    message(&again)
}

/// What is forwarded is what came, whatever stands in it.
#[test]
fn what_is_forwarded_untouched_is_the_same_to_the_byte() {
    for raw in edges() {
        let made = run("forward", &incoming(&raw));
        assert_eq!(made, raw, "{}", String::from_utf8_lossy(&raw));
    }
}

/// The same with something changed: cut out of both, the rest is equal.
#[test]
fn what_is_not_touched_stays_when_something_else_is_changed() {
    let script = "fn map(msg) { let out = msg.copy(); out.set(\"PV1-10\", \"100\"); out.append(\"ZTI\"); out.set(\"ZTI-1\", \"a|b\"); out }";
    let files: Files = [(PathBuf::from("mappings/edit.rhai"), Arc::from(script))].into();
    let mappings =
        Mappings::compile(&files, &Limits::default()).unwrap_or_else(|problems| panic!("{problems:?}"));
    for raw in edges() {
        let Mapped::Outputs(made) = mappings.run("edit", incoming(&raw), &context()).unwrap().mapped else {
            panic!()
        };
        let made = made[0].bytes().clone();
        let (before, after) = (lines(&raw), lines(&made));
        let separator = raw[raw.iter().position(|byte| *byte == b'M').unwrap() + 3];
        let visit = before.iter().position(|line| line.starts_with(b"PV1"));
        for (place, (one, other)) in before.iter().zip(&after).enumerate() {
            if Some(place) == visit {
                let fields = |line: &[u8]| {
                    line.split(|byte| *byte == separator).map(<[u8]>::to_vec).collect::<Vec<_>>()
                };
                let (one, other) = (fields(one), fields(other));
                for (number, field) in one.iter().enumerate().filter(|(number, _)| *number != 10) {
                    assert_eq!(field, &other[number], "PV1-{number}");
                }
                assert_eq!(other[10], b"100");
            } else {
                assert_eq!(String::from_utf8_lossy(one), String::from_utf8_lossy(other));
            }
        }
        let added = after.iter().find(|line| line.starts_with(b"ZTI")).expect("the new segment");
        assert_eq!(
            after.iter().filter(|line| !line.is_empty()).count(),
            before.iter().filter(|line| !line.is_empty()).count() + 1
        );
        assert!(
            !added[4..].contains(&separator) || separator != b'|',
            "the text is escaped: {}",
            String::from_utf8_lossy(added)
        );
    }
}

/// Messages with what editors break: separators of the sender's own, escapes, empty and null repetitions, trailing
/// separators, other line ends, other character sets, blank lines, segments of a site's own.
fn edges() -> Vec<Bytes> {
    let plain = "MSH|^~\\&|PAS|RXX|LAB|EPR|20260115||ORU^R01|E1|P|2.4|||||GBR|UNICODE UTF-8\rPID|1||1^^^RXX^MR~~\"\"~2^^^&1.2&ISO||Å\\F\\B^\\X0D\\^^~X~||\"\"|||\rPV1|1|I|||||||||||||||||||||||||||||||\rOBX|1|TX|A||line\\.br\\two~~three\\E\\||||||F|||\rZXX|own^&^~|\\Z12\\\r";
    let mut found = vec![
        Bytes::from(plain.to_owned()),
        Bytes::from(plain.replace('\r', "\r\n")),
        Bytes::from(plain.replace('\r', "\n")),
        Bytes::from(plain.trim_end_matches('\r').to_owned()),
        Bytes::from(plain.replace("\rPV1", "\r\rPV1")),
        Bytes::from(format!("\u{feff}{plain}\u{1c}")),
        Bytes::from(plain.replace('|', "$").replace('^', "%")),
    ];
    let latin = encoding_rs::WINDOWS_1252.encode(&plain.replace("UNICODE UTF-8", "8859/1")).0.into_owned();
    found.push(Bytes::from(latin));
    found.extend(messages().into_iter().take(400));
    found
}

/// The messages of testdata that have a PV1.
fn messages() -> Vec<Bytes> {
    let mut found = Vec::new();
    for folder in ["adt", "oru", "mdm", "orm", "siu"] {
        let mut files: Vec<_> =
            fs::read_dir(top("testdata").join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for file in files.into_iter().filter(|file| file.extension().is_some_and(|end| end == "hl7")) {
            let raw = Bytes::from(fs::read(file).unwrap());
            let has_visit = Message::parse(raw.clone(), encoding_rs::WINDOWS_1252)
                .is_ok_and(|one| one.segment("PV1").is_some());
            let forwarded = !String::from_utf8_lossy(&raw).contains("ADT^A08");
            found.extend((has_visit && forwarded).then_some(raw));
        }
    }
    assert!(found.len() > 40, "{}", found.len());
    found
}

fn lines(raw: &[u8]) -> Vec<Vec<u8>> {
    let lines = raw.split(|byte| matches!(byte, b'\r' | b'\n' | 0x1c));
    lines.filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
}

fn incoming(raw: &Bytes) -> Incoming {
    Incoming::read(raw.clone(), encoding_rs::WINDOWS_1252).unwrap()
}

fn message(raw: &[u8]) -> Message {
    Message::parse(Bytes::copy_from_slice(raw), encoding_rs::UTF_8).unwrap()
}

static SHIPPED: LazyLock<Mappings> = LazyLock::new(shipped);

fn top(name: &str) -> PathBuf {
    root().join(name)
}

fn run(mapping: &str, message: &Incoming) -> Bytes {
    match SHIPPED.run(mapping, message, &context()) {
        Ok(product) => match product.mapped {
            Mapped::Outputs(payloads) => payloads.first().map(Payload::bytes).unwrap().clone(),
            other => panic!("{mapping}: {other:?}"),
        },
        Err(error) => panic!("{mapping}: {error}"),
    }
}
