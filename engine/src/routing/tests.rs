//! Routes as people write them, rightly and wrongly.

use expect_test::{Expect, expect};

use super::*;

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn parse(files: &[(&str, &str)]) -> Result<Routes, Vec<Problem>> {
    let files = files.iter().map(|(file, text)| (PathBuf::from(file), Arc::from(*text))).collect();
    Routes::parse(
        &files,
        &Known {
            listeners: Some(&names(&["hospital", "laboratory"])),
            destinations: Some(&names(&["shared-care-record", "archive"])),
            mappings: Some(&names(&["adt", "oru"])),
        },
    )
}

fn check(text: &str, expected: Expect) {
    let printed: Vec<String> = match parse(&[("routes/adt.toml", text)]) {
        Ok(routes) => routes.iter().map(|route| format!("{route:?}")).collect(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    };
    expected.assert_eq(&printed.join("\n"));
}

const FULL: &str = r#"
about  = "Admissions from the PAS."
owner  = "integration-team"
from   = "hospital"
accept = { trigger = ["ADT^A0?", "ADT^A40"], sending_application = "LORENZO", sending_facility = "RX?" }
map    = "adt"

[[to]]
destination = "shared-care-record"
purpose     = "direct-care"
retry       = { first = "2s", max = "5m", give_up = "24h", then = "park" }

[[test]]
message = "testdata/adt/a01.hl7"
expect  = "testdata/adt/a01.json"
"#;

#[test]
fn a_whole_route_is_read() {
    let routes = parse(&[("routes/adt.toml", FULL)]).unwrap();
    let route = routes.get("adt").unwrap();
    assert_eq!(
        (route.about.as_str(), route.owner.as_str(), route.map.as_str(), &route.order),
        ("Admissions from the PAS.", "integration-team", "adt", &Order::Patient)
    );
    assert_eq!(route.from, ["hospital"]);
    assert_eq!(route.accept.trigger, [Pattern::new("ADT^A0?"), Pattern::new("ADT^A40")]);
    assert_eq!(route.accept.sending_facility, [Pattern::new("RX?")]);
    let to = &route.to[0];
    assert_eq!((to.destination.as_str(), to.purpose.as_str()), ("shared-care-record", "direct-care"));
    assert_eq!(to.policy.retry.first.as_secs(), 2);
    assert_eq!(to.policy.retry.then, crate::connector::GiveUp::Park);
    assert_eq!(route.tests[0].message, PathBuf::from("testdata/adt/a01.hl7"));
    assert_eq!(route.tests[0].line, 14);
    assert_eq!(files_named(FULL), ["testdata/adt/a01.hl7", "testdata/adt/a01.json"].map(PathBuf::from));
}

#[test]
fn what_is_not_said_has_a_default() {
    let text = "from = ['hospital', 'laboratory']\nmap = 'oru'\n[[to]]\ndestination = 'archive'\nretry = { max = '1h' }";
    let routes = parse(&[("routes/results.toml", text)]).unwrap();
    let route = routes.get("results").unwrap();
    assert_eq!(route.accept, Accept::default());
    assert_eq!(route.to[0].policy.retry.max.as_secs(), 3600);
    assert_eq!(route.to[0].policy.retry.give_up, crate::connector::Retry::default().give_up);
    assert_eq!(routes.from("laboratory").count(), 1);
    assert_eq!(routes.from("pharmacy").count(), 0);
}

#[test]
fn each_kind_of_failure_can_end_otherwise() {
    use crate::connector::{
        GiveUp::{DeadLetter, Park},
        Policy,
    };
    let policy = |more: &str| {
        let text = format!("from = 'hospital'\nmap = 'adt'\n[[to]]\ndestination = 'archive'\n{more}");
        parse(&[("adt", &text)]).map(|routes| routes.get("adt").unwrap().to[0].policy)
    };
    assert_eq!(policy("").unwrap(), Policy::default());
    let parks = policy("retry = { then = 'park' }").unwrap();
    assert_eq!(
        [
            parks.unavailable.then,
            parks.rejected.then,
            parks.failing.then,
            parks.misconfigured.then,
            parks.unmapped
        ],
        [Park; 5]
    );
    let said = policy(
        "retry = { give_up = '2h' }\nrejected = { attempts = 5, then = 'park' }\nunavailable = { give_up = '7d' }\n\
         uncertain = { attempts = 2 }\nfailing = { give_up = '3h' }\nmisconfigured = { attempts = 10 }\nunmapped = 'park'\n",
    )
    .unwrap();
    assert_eq!((said.rejected.attempts, said.rejected.age.as_secs(), said.rejected.then), (5, 7200, Park));
    assert_eq!((said.unavailable.attempts, said.unavailable.age.as_secs()), (u32::MAX, 7 * 86_400));
    assert_eq!((said.uncertain.attempts, said.uncertain.then), (2, DeadLetter));
    assert_eq!(
        (said.failing.attempts, said.failing.age.as_secs(), said.failing.then),
        (5, 10_800, DeadLetter)
    );
    assert_eq!(
        policy("retry = { give_up = '5m' }").unwrap().failing.age.as_secs(),
        300,
        "never longer unsaid"
    );
    assert_eq!((said.misconfigured.attempts, said.unmapped), (10, Park));
    let by_age = policy("rejected = { give_up = '1h' }").unwrap().rejected;
    assert_eq!((by_age.attempts, by_age.age.as_secs()), (u32::MAX, 3600), "not at once then");
    assert_eq!(policy("rejected = { then = 'park' }").unwrap().rejected.attempts, 1);
    assert!(policy("misconfigured = { attempts = 1 }").is_err());
    assert!(policy("rejected = { attempts = 0 }").is_err());
}

#[test]
fn every_slip_of_the_pen_is_told_with_its_place() {
    check(
        "from = 'hospitl'\nmap = 'adtt'\norder = 'pateint'\n[[to]]\ndestinaton = 'archive'\n[accept]\ntriger = 'ADT^A01'\n",
        expect![[r#"
            routes/adt.toml:3:9: unknown value `pateint` (did you mean `patient`?)
            routes/adt.toml:5:1: unknown key `destinaton` (did you mean `destination`?)
            routes/adt.toml:4:1: the key `destination` is missing
            routes/adt.toml:7:1: unknown key `triger` (did you mean `trigger`?)"#]],
    );
}

#[test]
fn the_order_may_be_by_any_place() {
    let route = |order: &str| {
        let text =
            format!("from = 'hospital'\nmap = 'adt'\norder = '{order}'\n[[to]]\ndestination = 'archive'\n");
        parse(&[("routes/adt.toml", &text)]).map(|routes| routes.get("adt").unwrap().order.clone())
    };
    assert_eq!(route("route").unwrap(), Order::Route);
    assert_eq!(route("PV1-19").unwrap(), Order::Value(Path::parse("PV1-19").unwrap()));
    assert_eq!(route("PID-3[2].1").unwrap(), Order::Value(Path::parse("PID-3[2].1").unwrap()));
    let problem = |order: &str| route(order).unwrap_err()[0].to_string();
    assert!(problem("PV1").starts_with("routes/adt.toml:3:9: `PV1` names a segment"), "{}", problem("PV1"));
    assert!(
        problem("PV1-x").starts_with("routes/adt.toml:3:9: `PV1-x` is not a path"),
        "{}",
        problem("PV1-x")
    );
    assert!(problem("patients").ends_with("unknown value `patients` (did you mean `patient`?)"));
}

#[test]
fn references_are_checked() {
    check(
        "from = ['hospitl', 'x']\nmap = 'adtt'\n[[to]]\ndestination = 'archve'\n[[to]]\ndestination = 'archive'\n[[to]]\ndestination = 'archive'\n",
        expect![[r#"
            routes/adt.toml:1:9: unknown listener `hospitl` (did you mean `hospital`?)
            routes/adt.toml:1:20: unknown listener `x` (known are `hospital`, `laboratory`)
            routes/adt.toml:2:7: unknown mapping `adtt` (did you mean `adt`?)
            routes/adt.toml:4:15: unknown destination `archve` (did you mean `archive`?)
            routes/adt.toml:8:15: the destination `archive` is named twice (one [[to]] a destination)"#]],
    );
}

#[test]
fn values_must_make_sense() {
    check(
        "from = []\nmap = 'adt'\nto = []\n[[test]]\nmessage = '/etc/passwd'\nexpect = 'a/../../b'\n",
        expect![[r#"
            routes/adt.toml:1:1: `from` names no listener
            routes/adt.toml:3:6: the route has no destination
            routes/adt.toml:5:11: `/etc/passwd` is not inside the configuration directory
            routes/adt.toml:6:10: `a/../../b` is not inside the configuration directory"#]],
    );
    check(
        "from = 'hospital'\nmap = 'adt'\n[[to]]\ndestination = 'archive'\nretry = { first = '10m', max = '5m' }\n[[to]]\ndestination = 'shared-care-record'\nretry = { first = '0s' }\n",
        expect![[r#"
            routes/adt.toml:5:9: `first` (10m) is longer than `max` (5m)
            routes/adt.toml:8:9: `first` must be longer than nothing"#]],
    );
    check(
        "from = 5\nmap = 'adt'\n[[to]]\ndestination = 'archive'\nretry = { first = 1, then = 'drop' }",
        expect![[r#"
            routes/adt.toml:1:8: expected a string or a list of strings, found integer `5`
            routes/adt.toml:5:19: expected a length of time such as "500ms", "30s", "5m", "24h" or "7d", found integer `1`
            routes/adt.toml:5:29: unknown value `drop` (known are `dead-letter`, `park`)"#]],
    );
    check("about = 'nothing else'", expect!["routes/adt.toml:1:1: the key `from` is missing"]);
}

#[test]
fn a_file_must_have_the_name_of_a_route() {
    let problems = parse(&[("routes/My Route.toml", FULL)]).unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "routes/My Route.toml: `My Route` is no name for a route (lower-case letters, digits, `-` and `_`)"
    );
}

#[test]
fn a_name_that_no_index_holds_is_refused() {
    let file = |bytes| format!("routes/{}.toml", "r".repeat(bytes));
    parse(&[(&file(100), FULL)]).unwrap();
    let problems = parse(&[(&file(101), FULL)]).unwrap_err();
    assert!(
        problems[0].to_string().ends_with("the name of the route has 101 bytes: 100 at most"),
        "{}",
        problems[0]
    );
}

#[test]
fn faults_of_all_files_are_told() {
    let problems =
        parse(&[("routes/a.toml", "x = 1"), ("routes/b.toml", "= 1"), ("routes/c.toml", FULL)]).unwrap_err();
    let mut files: Vec<_> = problems.iter().filter_map(|p| p.place.as_ref()?.file.to_str()).collect();
    files.dedup();
    assert_eq!(files, ["routes/a.toml", "routes/b.toml"]);
}

fn header<'a>(trigger: &'a str, application: &'a str, facility: &'a str) -> Header<'a> {
    Header {
        code: trigger.split('^').next().unwrap_or_default().into(),
        trigger: trigger.into(),
        sending_application: application.into(),
        sending_facility: facility.into(),
        ..Header::default()
    }
}

#[test]
fn a_route_takes_what_all_its_patterns_match() {
    let routes = parse(&[("routes/adt.toml", FULL)]).unwrap();
    let accept = &routes.get("adt").unwrap().accept;
    assert!(accept.matches(&header("ADT^A01", "LORENZO", "RXX")));
    assert!(accept.matches(&header("ADT^A40", "LORENZO", "RXX")));
    assert!(!accept.matches(&header("ADT^A11", "LORENZO", "RXX")));
    assert!(!accept.matches(&header("ADT^A01", "CERNER", "RXX")));
    assert!(!accept.matches(&header("ADT^A01", "LORENZO", "RX")));
    let whole_code = Accept { trigger: vec![Pattern::new("ADT")], ..Accept::default() };
    assert!(
        whole_code.matches(&header("ADT^A01", "", "")) && !whole_code.matches(&header("ORU^R01", "", ""))
    );
}

#[test]
fn a_message_goes_to_every_route_of_its_listener_that_takes_it() {
    let other = "from = ['hospital', 'laboratory']\nmap = 'oru'\naccept = { trigger = 'ADT' }\n[[to]]\ndestination = 'archive'";
    let routes = parse(&[("routes/adt.toml", FULL), ("routes/other.toml", other)]).unwrap();
    let message = |text: &'static str| Message::parse(text.into(), encoding_rs::UTF_8).unwrap();
    let taken = |listener: &str, text: &'static str| {
        let message = message(text);
        routes.matching(listener, &message).map(|route| route.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(taken("hospital", "MSH|^~\\&|LORENZO^x|RXX^y|||||ADT^A01^ADT_A01|1\r"), ["adt", "other"]);
    assert_eq!(taken("hospital", "MSH|^~\\&|CERNER|RXX|||||ADT^A01|1\r"), ["other"]);
    assert_eq!(taken("laboratory", "MSH|^~\\&|LORENZO|RXX|||||ADT^A01|1\r"), ["other"]);
    assert_eq!(taken("hospital", "MSH|^~\\&|LORENZO|RXX|||||ORU^R01|1\r"), [""; 0]);
    assert_eq!(taken("hospital", "MSH|^~\\&|\r"), [""; 0]);
}

#[test]
fn what_no_other_route_takes_goes_to_the_one_that_says_otherwise() {
    let rest = "from = ['hospital', 'laboratory']\nmap = 'oru'\naccept = { otherwise = true, sending_facility = 'RXX' }\n[[to]]\ndestination = 'archive'";
    let routes = parse(&[("routes/adt.toml", FULL), ("routes/rest.toml", rest)]).unwrap();
    let taken = |listener: &str, text: &'static str| {
        let message = Message::parse(text.into(), encoding_rs::UTF_8).unwrap();
        routes.matching(listener, &message).map(|route| route.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(taken("hospital", "MSH|^~\\&|LORENZO|RXX|||||ADT^A01|1\r"), ["adt"]);
    assert_eq!(taken("hospital", "MSH|^~\\&|LORENZO|RXX|||||ORU^R01|1\r"), ["rest"]);
    assert_eq!(taken("hospital", "MSH|^~\\&|LORENZO|RYY|||||ORU^R01|1\r"), [""; 0]);
    // Another listener's routes do not count.
    assert_eq!(taken("laboratory", "MSH|^~\\&|LORENZO|RXX|||||ADT^A01|1\r"), ["rest"]);
}

#[test]
fn the_schema_knows_what_the_parser_knows() {
    let schema = schema().to_value();
    let keys: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["about", "owner", "from", "accept", "map", "order", "ack", "retention", "to", "test"]);
    assert_eq!(schema["required"], serde_json::json!(["from", "map", "to"]));
}
