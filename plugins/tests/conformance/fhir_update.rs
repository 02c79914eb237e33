//! The FHIR destination with `update = "merge"`: what is read, what is written, and what happens when another writes.

use bytes::Bytes;
use serde_json::Value;
use tie_engine::connector::{DeliveryError, ErrorClass, Outbound, Payload, Receipt};

use ErrorClass::{Misconfigured, Rejected, Unavailable};

use crate::{
    destination,
    peer::{Act, Peer, good_http, http, whole_http},
};

const NEW: &str =
    r#"{"resourceType":"Patient","id":"p-1","meta":{"source":"urn:pas"},"gender":"female","telecom":null}"#;
const HELD: &str = r#"{"resourceType":"Patient","id":"p-1","meta":{"versionId":"3","security":[{"code":"R"}]},"gender":"male","telecom":[{"value":"0207"}],"multipleBirthInteger":2}"#;
const MERGED: &str = r#"{"resourceType":"Patient","id":"p-1","meta":{"source":"urn:pas"},"gender":"female","multipleBirthInteger":2}"#;

fn patient() -> Outbound {
    let json = Bytes::from_static(NEW.as_bytes());
    Outbound::new(Payload::FhirResource { resource_type: "Patient".into(), id: "p-1".into(), json }, "M1")
}

fn bundle() -> Outbound {
    let entry = |resource: &str, url: &str| {
        format!(
            r#"{{"fullUrl":"urn:uuid:{url}","resource":{resource},"request":{{"method":"PUT","url":"{url}"}}}}"#
        )
    };
    let observation = r#"{"resourceType":"Observation","id":"o","valueQuantity":{"value":7.10},"note":null}"#;
    let json = format!(
        r#"{{"resourceType":"Bundle","type":"transaction","entry":[{},{}]}}"#,
        entry(observation, "Observation/o"),
        entry(NEW, "Patient/p-1")
    );
    Outbound::new(Payload::FhirBundle(json.into()), "M1")
}

/// What came of it, and the requests: first lines with their `If-Match`, and bodies.
async fn deliver(
    acts: Vec<Act>,
    outbound: &Outbound,
) -> (Result<Receipt, DeliveryError>, Vec<String>, Vec<String>) {
    let peer = Peer::start(whole_http, good_http, acts).await;
    let options = format!("kind = \"fhir\"\nbase = \"http://{}/fhir\"\nupdate = \"merge\"\n", peer.address);
    let result = destination(&options).deliver(outbound).await;
    let requests = peer.requests(0).await;
    let split = |request: &Vec<u8>| {
        let text = String::from_utf8(request.clone()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let first = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
        let condition = head.lines().find_map(|line| line.strip_prefix("if-match: "));
        (format!("{first} {}", condition.unwrap_or_default()).trim_end().to_owned(), body.to_owned())
    };
    let (heads, bodies) = requests.iter().map(split).unzip();
    (result, heads, bodies)
}

fn say(status: u16, body: &str) -> Act {
    Act::Say(http(status, &[], body))
}

fn outcome(code: &str) -> String {
    format!(r#"{{"resourceType":"OperationOutcome","issue":[{{"severity":"error","code":"{code}"}}]}}"#)
}

#[tokio::test]
async fn a_resource_is_read_merged_and_written_under_the_version_that_was_read() {
    let (result, heads, bodies) = deliver(vec![say(200, HELD)], &patient()).await;
    result.unwrap();
    assert_eq!(heads, ["GET /fhir/Patient/p-1", "PUT /fhir/Patient/p-1 W/\"3\""]);
    assert_eq!(bodies[1], MERGED, "the label that was lifted is gone, what was removed too, all else stays");
    let tagged = Act::Say(http(200, &[("etag", "W/\"x9\"")], HELD));
    assert_eq!(deliver(vec![tagged], &patient()).await.1[1], "PUT /fhir/Patient/p-1 W/\"x9\"");
}

#[tokio::test]
async fn what_the_server_does_not_have_is_written_as_it_is() {
    for (status, body) in [(404, outcome("not-found")), (410, outcome("deleted")), (404, String::new())] {
        let (result, heads, bodies) = deliver(vec![say(status, &body)], &patient()).await;
        result.unwrap();
        assert_eq!(heads[1], "PUT /fhir/Patient/p-1", "{status}");
        assert_eq!(bodies[1], NEW.replace(r#","telecom":null"#, ""), "{status}");
    }
}

#[tokio::test]
async fn of_a_transaction_only_what_may_be_merged_is_read() {
    let (result, heads, bodies) = deliver(vec![say(200, HELD)], &bundle()).await;
    result.unwrap();
    assert_eq!(heads, ["GET /fhir/Patient/p-1", "POST /fhir"]);
    let sent = &bodies[1];
    assert!(sent.contains(MERGED), "{sent}");
    assert!(sent.contains(r#""valueQuantity":{"value":7.10}}"#), "a result is replaced as a whole: {sent}");
    let sent: Value = serde_json::from_str(sent).unwrap();
    assert_eq!(sent["entry"][0]["request"].get("ifMatch"), None);
    assert_eq!(sent["entry"][1]["request"]["ifMatch"], "W/\"3\"");
}

/// H3: what another wrote in between is in the end result.
#[tokio::test]
async fn h3_a_change_by_another_is_read_again_and_not_overwritten() {
    let later = HELD.replace(r#""versionId":"3""#, r#""versionId":"4""#).replace(":2}", ":3}");
    let acts = vec![say(200, HELD), say(412, &outcome("conflict")), say(200, &later)];
    let (result, heads, bodies) = deliver(acts, &bundle()).await;
    result.unwrap();
    assert_eq!(heads, ["GET /fhir/Patient/p-1", "POST /fhir", "GET /fhir/Patient/p-1", "POST /fhir"]);
    assert!(
        bodies[3].contains(r#""multipleBirthInteger":3"#) && bodies[3].contains("W/\\\"4\\\""),
        "{}",
        bodies[3]
    );
}

#[tokio::test]
async fn a_race_that_is_lost_each_time_is_left_for_later() {
    let version = |n: u32| say(200, &HELD.replace(r#""versionId":"3""#, &format!(r#""versionId":"{n}""#)));
    let refused = || say(409, &outcome("conflict"));
    let acts = vec![version(1), refused(), version(2), refused(), version(3), refused()];
    let (result, heads, _) = deliver(acts, &patient()).await;
    let error = result.unwrap_err();
    assert_eq!((error.class, heads.len()), (Unavailable, 6), "{}", error.reason);
}

/// Else it would be tried for ever: a 412 may be about a reference that leads to two.
#[tokio::test]
async fn a_refusal_though_nothing_has_changed_is_about_the_message() {
    let acts = vec![say(200, HELD), say(412, &outcome("multiple-matches")), say(200, HELD)];
    let (result, heads, _) = deliver(acts, &bundle()).await;
    let error = result.unwrap_err();
    assert_eq!((error.class, heads.len()), (Rejected, 3));
    assert_eq!(error.reason, "412: error/multiple-matches");
}

#[tokio::test]
async fn what_cannot_be_read_is_not_written() {
    let long = format!(r#"{{"resourceType":"Patient","id":"p-1","x":"{}"}}"#, "x".repeat(9 << 20));
    let cases = [
        (say(503, ""), Unavailable),
        (say(500, &outcome("exception")), Unavailable),
        (Act::Close, Unavailable),
        (Act::SayAndClose(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{".to_vec()), Unavailable),
        (say(401, ""), Misconfigured),
        (say(200, "<html>Log in</html>"), Misconfigured),
        (say(404, "<html>Nothing here</html>"), Misconfigured),
        (say(200, &HELD.replace("p-1", "p-2")), Misconfigured),
        (say(200, &long), Rejected),
    ];
    for (act, class) in cases {
        let outbound = bundle();
        let (result, heads, _) = deliver(vec![act], &outbound).await;
        let error = result.unwrap_err();
        assert_eq!(error.class, class, "{}", error.reason);
        assert!(heads.iter().all(|head| head.starts_with("GET")), "{heads:?}");
        assert!(!outbound.has_left(), "nothing of the message has left");
    }
}

/// P3: the same message again, whatever was merged of it before, gives the same resource.
#[tokio::test]
async fn p3_a_repeat_changes_nothing() {
    let once = MERGED.replace(r#""meta":{"#, r#""meta":{"versionId":"4","#);
    let (result, _, bodies) = deliver(vec![say(200, &once)], &patient()).await;
    result.unwrap();
    assert_eq!(bodies[1], MERGED);
}

#[test]
fn only_types_of_fhir_can_be_merged() {
    let text = "[destination.x]\nkind = \"fhir\"\nbase = \"http://x/fhir\"\nupdate = \"merge\"\nmerge = [\"Pateint\"]\n";
    let plugin = tie_plugins::ALL.iter().find(|plugin| plugin.name == "fhir").unwrap();
    let options = tie_engine::connector::Options::from_example(text).unwrap();
    let problems = (plugin.destination.as_ref().unwrap().build)(&options).err().unwrap();
    assert!(
        problems[0].to_string().contains("`Pateint` in `merge` is no resource of FHIR R4"),
        "{problems:?}"
    );
}
