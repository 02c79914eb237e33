//! P9: a canary in every field of every message that the tests have, against receivers that echo what they are sent;
//! then everything that the process printed or served is searched for it, logs at debug too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]

mod support;

use std::fs;

use support::{
    Instance, Mllp,
    hostile::{Peer, Reaction, fhir},
    http, message, wait,
};

const CANARY: &str = "CANARYQX";
/// Header fields that say how a message is to be read or by what it is found; they are no patient's data.
const PLAIN_HEADER: [usize; 14] = [1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 15, 16, 18];

/// Every message below a folder of `testdata`.
fn messages() -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["adt", "oru", "broken", "mdm", "orm", "siu"] {
        let entries = fs::read_dir(support::top().join("testdata").join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.ends_with(".hl7")).collect();
        names.sort();
        found.extend(
            names
                .iter()
                .map(|name| String::from_utf8_lossy(&message(&format!("{folder}/{name}"))).into_owned()),
        );
    }
    assert!(found.len() > 80, "the messages are there");
    found
}

/// A message with the canary in each of its fields: after what each component says, so that much of it is still
/// understood, or instead of it.
fn with_canaries(text: &str, instead: bool) -> String {
    let lines = text.split('\r').filter(|line| line.len() > 3).map(|line| {
        let header = line.starts_with("MSH");
        let fields = line.split('|').enumerate().map(|(number, field)| {
            // In the header the first separator is a field of its own.
            let plain = number == 0 || (header && PLAIN_HEADER.contains(&(number + 1)));
            if plain || field.is_empty() { field.to_owned() } else { sing(field, instead) }
        });
        fields.collect::<Vec<_>>().join("|")
    });
    lines.collect::<Vec<_>>().join("\r") + "\r"
}

fn sing(field: &str, instead: bool) -> String {
    let mut sung = String::new();
    for (place, leaf) in field.split_inclusive(['^', '~', '&']).enumerate() {
        let (word, mark) = match leaf.char_indices().last() {
            Some((at, mark)) if "^~&".contains(mark) => (&leaf[..at], &leaf[at..]),
            _ => (leaf, ""),
        };
        // A code or authority stays now and then, so that what comes after it is reached.
        let sings = instead || (!word.is_empty() && place % 3 != 1);
        sung += if instead { CANARY } else { word };
        sung += if !instead && sings { CANARY } else { "" };
        sung += mark;
    }
    sung
}

/// One field at a time: what is reached only when all before it is in order.
fn one_canary_each(text: &str) -> Vec<String> {
    let lines: Vec<_> = text.split('\r').filter(|line| line.len() > 3).collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate().skip(1) {
        let fields: Vec<_> = line.split('|').collect();
        for number in 1..fields.len() {
            let mut changed = fields.clone();
            changed[number] = CANARY;
            let mut whole: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
            whole[at] = changed.join("|");
            found.push(whole.join("\r") + "\r");
        }
    }
    found
}

/// Sends FHIR with canaries, and shows the answers; gives how many.
fn send_fhir(instance: &Instance, shown: &mut String) -> usize {
    let all = fhir_with_canaries();
    for (path, text) in &all {
        assert!(text.contains(CANARY), "every message has one");
        *shown += &http(instance.fhir, "POST", &format!("/fhir{path}"), text).unwrap().1;
    }
    all.len()
}

/// FHIR with canaries: in every text that is no word of FHIR, whole and cut off, and one that is no JSON.
fn fhir_with_canaries() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(support::top().join("testdata/fhir")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "fhir") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let Ok(mut resource) = serde_json::from_str::<serde_json::Value>(&text) else { continue };
        let place = match (&resource["resourceType"], &resource["type"]) {
            (kind, bundle) if kind == "Bundle" && bundle == "message" => "/$process-message".to_owned(),
            (kind, _) if kind == "Bundle" => String::new(),
            (kind, _) => format!("/{}", kind.as_str().unwrap()),
        };
        sing_in_json(&mut resource, "");
        let whole = resource.to_string();
        let names = whole.replace("\"display\"", &format!("\"{CANARY}\""));
        let odd = whole.replace("\"status\":\"", &format!("\"status\":\"{CANARY}"));
        let cut = whole[..whole.len() / 2].to_owned() + CANARY;
        found.extend([whole, names, odd, cut].map(|text| (place.clone(), text)));
    }
    found.push(("/Observation".to_owned(), format!("{{{CANARY}}}")));
    assert!(found.len() > 40);
    found
}

fn sing_in_json(value: &mut serde_json::Value, name: &str) {
    use serde_json::Value;
    match value {
        // What a message is found, routed and told by: types, codes, systems, references between its own resources.
        Value::String(_)
            if [
                "resourceType",
                "type",
                "system",
                "status",
                "url",
                "reference",
                "fullUrl",
                "code",
                "name",
                "endpoint",
                "intent",
            ]
            .contains(&name) => {}
        // Ids are found by, as MSH-10 is.
        Value::String(_) if ["id", "value", "versionId"].contains(&name) => {}
        Value::String(text) => text.push_str(CANARY),
        Value::Array(items) => items.iter_mut().for_each(|item| sing_in_json(item, name)),
        Value::Object(members) => {
            members.iter_mut().for_each(|(name, value)| sing_in_json(value, name));
            members.insert("text2".to_owned(), Value::String(CANARY.to_owned()));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[test]
fn p9_a_canary_in_every_field_of_every_message_is_neither_printed_nor_served() {
    let instance = Instance::new();
    // Receivers that repeat what they were sent, as servers do in diagnostics.
    let echo = Peer::fhir(|asked| {
        let diagnostics = format!("Patient {CANARY} is not known");
        let issue = format!(r#"[{{"severity":"error","code":"{CANARY}","diagnostics":"{diagnostics}"}}]"#);
        let outcome = format!(r#"{{"resourceType":"OperationOutcome","issue":{issue}}}"#);
        match asked.before % 4 {
            0 => Reaction::Say(fhir("422 CANARYQX", &outcome)),
            1 => Reaction::Say(fhir("200 OK", &outcome)),
            2 => Reaction::Take(fhir("200 OK", &outcome.replacen("error", "warning", 1))),
            _ => Reaction::Say(fhir("500 CANARYQX", CANARY)),
        }
    });
    let laboratory = Peer::mllp(|asked| {
        let answer = format!(
            "MSH|^~\\&|LAB|RXX|TIE|RXX|20260301||ACK|{CANARY}|T|2.4\rMSA|AE|{}|{CANARY} died\rERR||PID^1^{CANARY}|{CANARY}|E||||{CANARY}\r",
            asked.id
        );
        Reaction::Say(support::frame(answer.as_bytes()))
    });
    configure(&instance, echo.port, laboratory.port);
    let _record = instance.start_record();
    let _engine = instance.start_with(&[("TIE_LOG", "debug")]);

    let mut source = Mllp::connect(instance.mllp).unwrap();
    let all = messages();
    let mut cases: Vec<_> =
        all.iter().flat_map(|text| [with_canaries(text, false), with_canaries(text, true)]).collect();
    for name in ["adt/a01-admit-emergency.hl7", "oru/fbc.hl7"] {
        cases.extend(one_canary_each(&String::from_utf8_lossy(&message(name))));
    }
    cases.push(format!("garbage {CANARY}"));
    cases.push(format!("MSH|^~\\&|PAS|RXX|TIE|RXX|2026||ADT^A01|{}|T|2.4\rP{CANARY}", "C".repeat(250)));
    let sung: usize = cases.iter().filter(|case| case.contains(CANARY)).count();
    assert_eq!(sung, cases.len(), "every message has one");
    let mut shown = String::new();
    let fhir = send_fhir(&instance, &mut shown);
    for case in &cases {
        match source.send(case.as_bytes()) {
            Ok(answer) => shown += &answer.0,
            // An acknowledgement among the messages is not answered, nonsense may cost the connection.
            Err(_) => source = Mllp::connect(instance.mllp).unwrap(),
        }
    }
    wait("what can be tried to have been tried", || {
        echo.asked() > 20
            && !echo.taken().is_empty()
            && laboratory.asked() > 20
            && !instance.ledger().is_empty()
    });
    shown += &everything_served(&instance, cases.len() + fhir);
    shown += &instance.log();
    assert!(
        shown.contains("needs a person") && shown.contains("DEBUG"),
        "the places that were searched do speak"
    );
    println!("{} messages with canaries, {} kB printed and served", cases.len(), shown.len() >> 10);
    if let Some(at) = shown.find(CANARY) {
        let start = shown.floor_char_boundary(at.saturating_sub(400));
        panic!("patient data shown: …{}…", &shown[start..shown.ceil_char_boundary(at + 60)]);
    }
}

/// Everything that is served or printed without the right to bodies.
fn everything_served(instance: &Instance, messages: usize) -> String {
    let mut shown = String::new();
    let mut show = |method: &str, path: &str, body: &str| {
        let (status, text) = http(instance.admin, method, path, body).unwrap();
        assert!(status < 500, "{path}: {status} {text}");
        shown += &text;
        text
    };
    for path in ["/", "/metrics", "/api/status", "/readyz", "/api/nothing", "/api/messages/CANARY"] {
        show("GET", path, "");
    }
    for sequence in 1..=messages {
        show("GET", &format!("/api/messages/{sequence}"), "");
    }
    show("POST", "/api/search", r#"{"limit":1000}"#);
    show("POST", "/api/replay", r#"{"states":["dead","held","parked"],"dry_run":true}"#);
    let ids: Vec<_> = instance.ledger().into_iter().take(100).collect();
    let asked = serde_json::json!({"control_ids": ids, "written_to": "shared-care-record"}).to_string();
    assert!(
        show("POST", "/api/trace", &asked).contains("Provenance/"),
        "resources are named, by ids of ours"
    );
    for arguments in
        [&["status"][..], &["status", "--json"], &["replay", "--dry-run"], &["check"], &["search"]]
    {
        let (_, out, err) = instance.tie(arguments);
        shown += &(out + &err);
    }
    shown
}

fn configure(instance: &Instance, echo: u16, laboratory: u16) {
    let more = format!(
        "\n[destination.echo]\nkind = \"fhir\"\nbase = \"http://127.0.0.1:{echo}/fhir\"\n\
         \n[destination.laboratory]\nkind = \"mllp\"\naddress = \"127.0.0.1:{laboratory}\"\n"
    );
    instance.write("tie.toml", &(instance.config() + &more));
    // The route below takes everything, so that nothing is left for the one that takes what others do not.
    fs::remove_file(instance.path("routes/other-messages-to-shared-care-record.toml")).unwrap();
    instance.write("mappings/forward.rhai", "// Sends a message on as it is.\nfn map(msg) { msg.copy() }\n");
    let retry = "retry = { first = \"50ms\", max = \"200ms\", give_up = \"1s\", then = \"dead-letter\" }";
    for (route, map, trigger, destination) in [
        ("echo-adt", "adt", "ADT", "echo"),
        ("echo-oru", "oru", "ORU", "echo"),
        ("laboratory", "forward", "*", "laboratory"),
    ] {
        let text = format!(
            "about = \"A test.\"\nowner = \"tests\"\nfrom = \"hospital\"\naccept = {{ trigger = \"{trigger}\" }}\n\
             map = \"{map}\"\norder = \"none\"\n\n[[to]]\ndestination = \"{destination}\"\n{retry}\n"
        );
        instance.write(&format!("routes/{route}.toml"), &text);
    }
}
