//! P2, P4, P5: destinations that hang, crawl, flap, vanish, swallow and lie, beside one that works. Each gets the
//! outcome and class that is right for it, and nothing counts as delivered that was not taken.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    time::{Duration, Instant},
};

use serde_json::Value;
use support::{
    Instance, Mllp,
    hostile::{BlackHole, Peer, Reaction, acknowledgement, fhir, fhir_ok},
    http,
    senders::{has_all, repeats_in_order},
    update, wait,
};

const PATIENTS: usize = 3;
const UPDATES: usize = 3;

/// What must become of the messages at a destination.
#[derive(Clone, Copy)]
enum Fate {
    /// All are delivered.
    Delivered,
    /// None is, ever: the first of each patient is tried again and again and its failure is classed so.
    TriedAgain(&'static str),
    /// None is, ever: the first of each patient is asked for a few times, then waits for a person, classed so.
    Held(&'static str),
    /// Each is set aside, classed so.
    Dead(&'static str),
}

struct Case {
    name: &'static str,
    peer: Peer,
    fate: Fate,
}

fn fhir_cases() -> Vec<Case> {
    use Fate::{Dead, Delivered, TriedAgain};
    let case = |name, fate, mood| Case { name, peer: Peer::fhir(mood), fate };
    vec![
        case("hung", TriedAgain("uncertain"), |_| Reaction::Silence),
        case("slow", TriedAgain("uncertain"), |_| Reaction::Drip(fhir_ok())),
        case("closing", Delivered, |_| Reaction::TakeAndClose(fhir_ok())),
        case("flapping", Delivered, |asked| match asked.before % 4 {
            0 => Reaction::Close,
            1 => Reaction::Say(fhir("503 Service Unavailable", "")),
            _ => Reaction::Take(fhir_ok()),
        }),
        // The peer is gone from a connection that was good before, without a word.
        case("half-open", Delivered, |asked| match asked.on_connection {
            0 => Reaction::Take(fhir_ok()),
            _ => Reaction::Silence,
        }),
        case("lying", Dead("rejected"), |_| {
            let issue = r#"[{"severity":"error","code":"processing"}]"#;
            Reaction::Say(fhir(
                "200 OK",
                &format!(r#"{{"resourceType":"OperationOutcome","issue":{issue}}}"#),
            ))
        }),
        case("refusing-one-entry", Dead("rejected"), |_| {
            let entries = r#"[{"response":{"status":"200 OK"}},{"response":{"status":"422 No"}}]"#;
            Reaction::Say(fhir("200 OK", &format!(r#"{{"resourceType":"Bundle","entry":{entries}}}"#)))
        }),
        case("cut", TriedAgain("uncertain"), |_| {
            let whole = fhir_ok();
            Reaction::SayAndClose(whole[..whole.len() - 20].to_vec())
        }),
        case("login-page", TriedAgain("misconfigured"), |_| {
            Reaction::Say(fhir("200 OK", "<html>Please log in</html>"))
        }),
    ]
}

fn mllp_cases() -> Vec<Case> {
    use Fate::{Dead, Delivered, Held, TriedAgain};
    let case = |name, fate, mood| Case { name, peer: Peer::mllp(mood), fate };
    vec![
        case("lab-silent", TriedAgain("uncertain"), |_| Reaction::Silence),
        case("lab-closing", TriedAgain("uncertain"), |_| Reaction::Close),
        case("lab-nameless", Held("uncertain"), |_| Reaction::Say(acknowledgement("AA", ""))),
        case("lab-wrong-id", Held("uncertain"), |_| Reaction::Say(acknowledgement("AA", "P9999N999999"))),
        case("lab-junk", TriedAgain("uncertain"), |_| Reaction::Say(support::frame(b"HTTP/1.1 200 OK"))),
        case("lab-unframed", TriedAgain("uncertain"), |asked| {
            Reaction::Say([b"hello ", &acknowledgement("AA", asked.id)[..]].concat())
        }),
        case("lab-twice", Held("uncertain"), |asked| {
            Reaction::Say([acknowledgement("AA", asked.id), acknowledgement("AA", "P9999N999999")].concat())
        }),
        case("lab-refusing", Dead("rejected"), |asked| Reaction::Say(acknowledgement("AE", asked.id))),
        case("lab-full", TriedAgain("unavailable"), |asked| Reaction::Say(acknowledgement("CE", asked.id))),
        // No answer to the first try of each message; it may come on the old connection when nobody waits any more.
        case("lab-late", Delivered, |asked| match asked.repeats {
            0 => Reaction::Drip(acknowledgement("AA", asked.id)),
            _ => Reaction::Take(acknowledgement("AA", asked.id)),
        }),
        case("lab-closing-after-each", Delivered, |asked| {
            Reaction::TakeAndClose(acknowledgement("AA", asked.id))
        }),
    ]
}

#[test]
fn p2_p4_p5_every_kind_of_bad_destination_gets_its_due_and_harms_no_other() {
    let instance = Instance::new();
    let black_hole = BlackHole::open();
    let (fhir, mllp) = (fhir_cases(), mllp_cases());
    configure(&instance, &fhir, &mllp, black_hole.port);
    let _record = instance.start_record();
    let engine = instance.start();

    let mut source = Mllp::connect(instance.mllp).unwrap();
    let mut sent = Vec::new();
    for number in 0..UPDATES {
        for patient in 0..PATIENTS {
            let (control_id, message) = update(patient, number);
            assert_eq!(source.send(&message).unwrap().code(), "AA");
            sent.push(control_id);
        }
    }
    let all: BTreeSet<String> = sent.iter().cloned().collect();
    wait("the healthy destination to have everything", || has_all(&instance.ledger(), &all));
    assert_eq!(repeats_in_order(&instance.ledger()), 0, "a healthy destination gets everything once");

    for case in fhir.iter().chain(&mllp) {
        wait_for_fate(&instance, case, &sent);
    }
    let seen = standing(&instance, "black-hole", sent.len());
    wait("the black hole to be known as one", || {
        standing(&instance, "black-hole", sent.len())[0].1 == "unavailable"
    });
    assert!(seen.iter().all(|(state, _)| state != "delivered"));
    nothing_counts_that_was_not_taken(&instance, &fhir, &mllp, &sent);

    println!(
        "{} bad destinations beside a good one: {} messages to each, 0 lost, 0 out of order, none delivered untaken",
        fhir.len() + mllp.len() + 1,
        sent.len()
    );

    let asked = Instant::now();
    stops_in_time(&instance, engine, asked);
}

/// A retrying destination must have been tried more than once, each time with the same class.
fn wait_for_fate(instance: &Instance, case: &Case, sent: &[String]) {
    let name = case.name;
    let first_of_each = || standing(instance, name, sent.len()).into_iter().take(PATIENTS);
    match case.fate {
        Fate::Delivered => wait(&format!("{name} to have everything"), || {
            standing(instance, name, sent.len()).iter().all(|(state, _)| state == "delivered")
        }),
        Fate::TriedAgain(class) => wait(&format!("{name} to be tried again as {class}"), || {
            case.peer.asked() > 1
                && first_of_each().any(|(state, found)| state == "retrying" && found == class)
                && first_of_each()
                    .all(|(state, found)| state == "ready" || (state == "retrying" && found == class))
        }),
        Fate::Held(class) => wait(&format!("{name} to wait for a person as {class}"), || {
            first_of_each().all(|(state, found)| state == "held" && found == class)
        }),
        Fate::Dead(class) => wait(&format!("{name} to have refused everything as {class}"), || {
            standing(instance, name, sent.len())
                .iter()
                .all(|(state, found)| state == "dead" && found == class)
        }),
    }
}

fn nothing_counts_that_was_not_taken(instance: &Instance, fhir: &[Case], mllp: &[Case], sent: &[String]) {
    for case in fhir.iter().chain(mllp) {
        let taken = case.peer.taken();
        repeats_in_order(&taken);
        let delivered: Vec<_> = standing(instance, case.name, sent.len())
            .into_iter()
            .zip(sent)
            .filter(|((state, _), _)| state == "delivered")
            .map(|(_, control_id)| control_id.clone())
            .collect();
        for control_id in &delivered {
            assert!(taken.contains(control_id), "{}: {control_id} counts as delivered", case.name);
        }
        let expected = if matches!(case.fate, Fate::Delivered) { sent.len() } else { 0 };
        assert_eq!(delivered.len(), expected, "{}", case.name);
    }
}

fn stops_in_time(instance: &Instance, mut engine: support::Process, asked: Instant) {
    engine.terminate();
    wait("the engine to end", || engine.0.try_wait().unwrap().is_some());
    assert!(asked.elapsed() < Duration::from_secs(30), "P10: it took {:?}", asked.elapsed());
    assert_eq!(engine.0.wait().unwrap().code(), Some(0), "{}", instance.log());
}

/// State and class of each message's delivery to a destination, in the order in which they were sent.
fn standing(instance: &Instance, destination: &str, messages: usize) -> Vec<(String, String)> {
    let one = |sequence| {
        let (status, body) = http(instance.admin, "GET", &format!("/api/messages/{sequence}"), "").unwrap();
        assert_eq!(status, 200, "{body}");
        let message: Value = serde_json::from_str(&body).unwrap();
        let deliveries = message["deliveries"].as_array().unwrap().clone();
        let found = deliveries.iter().find(|delivery| delivery["destination"] == destination).unwrap();
        let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        (text("state"), text("class"))
    };
    (1..=messages).map(one).collect()
}

fn configure(instance: &Instance, fhir: &[Case], mllp: &[Case], black_hole: u16) {
    let mut config = instance.config();
    let mut routes: BTreeMap<&str, String> = BTreeMap::new();
    let mut add = |map: &'static str, name: &str, keys: String| {
        let _ = write!(config, "\n[destination.{name}]\ntimeout = \"1s\"\n{keys}\n");
        let to = "retry = { first = \"200ms\", max = \"1s\", give_up = \"1h\", then = \"dead-letter\" }";
        let route = routes.entry(map).or_insert_with(|| {
            format!("about = \"A test.\"\nowner = \"tests\"\nfrom = \"hospital\"\naccept = {{ trigger = \"ADT\" }}\nmap = \"{map}\"\norder = \"patient\"\n")
        });
        let _ = write!(route, "\n[[to]]\ndestination = \"{name}\"\npurpose = \"direct-care\"\n{to}\n");
    };
    let base = |port: u16| format!("kind = \"fhir\"\nbase = \"http://127.0.0.1:{port}/fhir\"");
    for case in fhir {
        add("adt", case.name, base(case.peer.port));
    }
    add("adt", "black-hole", base(black_hole));
    for case in mllp {
        add("forward", case.name, format!("kind = \"mllp\"\naddress = \"127.0.0.1:{}\"", case.peer.port));
    }
    instance.write("mappings/forward.rhai", "// Sends a message on as it is.\nfn map(msg) { msg.copy() }\n");
    for (map, route) in routes {
        instance.write(&format!("routes/bad-{map}.toml"), &route);
    }
    instance.write("tie.toml", &config);
}
