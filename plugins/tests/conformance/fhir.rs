//! The FHIR destination: the whole table of answers, case by case.

use bytes::Bytes;
use tie_engine::connector::{DeliveryError, ErrorClass, Outbound, Payload, Receipt};

use ErrorClass::{Misconfigured, Rejected, Unavailable, Uncertain};

use crate::{
    destination,
    peer::{Act, Peer, good_http, http, whole_http},
};

const CANARY: &str = "CANARYTON";

fn bundle() -> Outbound {
    Outbound::new(Payload::FhirBundle(Bytes::from_static(b"{\"resourceType\":\"Bundle\"}")), "M1")
}

fn patient() -> Outbound {
    let json = Bytes::from_static(b"{\"resourceType\":\"Patient\",\"id\":\"p-1\"}");
    Outbound::new(Payload::FhirResource { resource_type: "Patient".into(), id: "p-1".into(), json }, "M1")
}

async fn answer(act: Act, options: &str, outbound: &Outbound) -> Result<Receipt, DeliveryError> {
    let peer = Peer::start(whole_http, good_http, [act]).await;
    let options = format!("kind = \"fhir\"\nbase = \"http://{}/fhir\"\n{options}", peer.address);
    destination(&options).deliver(outbound).await
}

fn outcome(severity: &str, code: &str) -> String {
    format!(
        r#"{{"resourceType":"OperationOutcome","issue":[{{"severity":"{severity}","code":"{code}","diagnostics":"{CANARY}"}}]}}"#
    )
}

#[tokio::test]
async fn every_status_has_its_class() {
    let cases: &[(u16, ErrorClass)] = &[
        (301, Misconfigured),
        (307, Misconfigured),
        (400, Rejected),
        (401, Misconfigured),
        (402, Misconfigured),
        (403, Misconfigured),
        (404, Misconfigured),
        (405, Misconfigured),
        (406, Misconfigured),
        (407, Misconfigured),
        (408, Unavailable),
        (409, Unavailable),
        (410, Misconfigured),
        (412, Rejected),
        (413, Rejected),
        (415, Misconfigured),
        (418, Rejected),
        (421, Misconfigured),
        (422, Rejected),
        (423, Unavailable),
        (425, Unavailable),
        (429, Unavailable),
        (500, Uncertain),
        (501, Rejected),
        (502, Uncertain),
        (503, Unavailable),
        (504, Uncertain),
        (505, Misconfigured),
        (507, Unavailable),
        (511, Misconfigured),
        (599, Uncertain),
    ];
    for (status, class) in cases {
        let error = answer(Act::Say(http(*status, &[], "")), "", &bundle()).await.unwrap_err();
        assert_eq!((error.class, error.reason), (*class, status.to_string()));
    }
}

#[tokio::test]
async fn the_answer_to_one_resource_is_about_the_resource() {
    for (status, class) in
        [(404, Rejected), (405, Rejected), (410, Rejected), (403, Misconfigured), (409, Unavailable)]
    {
        let error = answer(Act::Say(http(status, &[], "")), "", &patient()).await.unwrap_err();
        assert_eq!(error.class, class, "{status}");
    }
}

#[tokio::test]
async fn a_success_is_believed_only_if_its_body_agrees() {
    let entry = |status: &str| {
        format!(r#"{{"resourceType":"Bundle","entry":[{{"response":{{"status":"{status}"}}}}]}}"#)
    };
    let cases = [
        (outcome("error", "processing"), Rejected),
        (outcome("fatal", "exception"), Rejected),
        (outcome("error", "throttled"), Unavailable),
        (outcome("error", "lock-error"), Unavailable),
        (entry("422 Unprocessable Entity"), Rejected),
        (entry("500"), Uncertain),
        ("<html>Log in</html>".to_owned(), Misconfigured),
        ("{\"no\":\"resource\"}".to_owned(), Misconfigured),
    ];
    for (body, class) in cases {
        let error = answer(Act::Say(http(200, &[], &body)), "", &bundle()).await.unwrap_err();
        assert_eq!(error.class, class, "{body}");
        assert!(error.reason.starts_with("200, but "), "{}", error.reason);
        assert_eq!(error.detail, Some(Bytes::from(body)), "the detail is kept");
    }
    for body in [String::new(), outcome("warning", "processing"), entry("201 Created")] {
        assert!(answer(Act::Say(http(200, &[], &body)), "", &bundle()).await.is_ok(), "{body}");
    }
    for status in [200, 201, 202, 204] {
        assert_eq!(
            answer(Act::Say(http(status, &[], "")), "", &bundle()).await.unwrap().answer,
            status.to_string()
        );
    }
}

#[tokio::test]
async fn a_reply_that_is_cut_or_too_long_is_uncertain() {
    let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"resourceType\":".to_vec();
    let error = answer(Act::SayAndClose(cut), "", &bundle()).await.unwrap_err();
    assert_eq!(error.class, Uncertain);
    let long = http(200, &[], &"x".repeat(3000));
    let error = answer(Act::Say(long), "longest_reply = \"1kB\"\n", &bundle()).await.unwrap_err();
    assert_eq!(error.class, Uncertain);
}

/// P9: a server's own words may repeat patient data.
#[tokio::test]
async fn p9_the_reason_tells_codes_only_and_the_detail_everything() {
    let body = format!(
        r#"{{"resourceType":"OperationOutcome","issue":[
            {{"severity":"error","code":"required","diagnostics":"{CANARY}"}},
            {{"severity":"error","code":"required","details":{{"text":"{CANARY}"}}}},
            {{"severity":"warning","code":"{CANARY}"}}]}}"#
    );
    let error = answer(Act::Say(http(422, &[], &body)), "", &bundle()).await.unwrap_err();
    assert_eq!(error.reason, "422: error/required ×2, warning/other");
    assert!(String::from_utf8_lossy(&error.detail.unwrap()).contains(CANARY));
}

#[tokio::test]
async fn retry_after_is_handed_on() {
    let error = answer(Act::Say(http(429, &[("retry-after", "7")], "")), "", &bundle()).await.unwrap_err();
    assert_eq!(error.retry_after.unwrap().as_secs(), 7);
    let dated = [("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT"), ("date", "Sun, 06 Nov 1994 08:49:37 GMT")];
    let error = answer(Act::Say(http(503, &dated, "")), "", &bundle()).await.unwrap_err();
    assert_eq!(error.retry_after.unwrap().as_secs(), 60);
}

#[tokio::test]
async fn a_site_can_change_the_table() {
    let options =
        "errors = { \"409\" = \"rejected\", \"5xx\" = \"unavailable\", \"outcome-error\" = \"uncertain\" }\n";
    let status = async |status| answer(Act::Say(http(status, &[], "")), options, &bundle()).await;
    assert_eq!(status(409).await.unwrap_err().class, Rejected);
    assert_eq!(status(599).await.unwrap_err().class, Unavailable);
    assert_eq!(status(500).await.unwrap_err().class, Uncertain, "an own line goes before its family");
    let body = http(200, &[], &outcome("error", "processing"));
    assert_eq!(answer(Act::Say(body), options, &bundle()).await.unwrap_err().class, Uncertain);
}

#[tokio::test]
async fn tls_that_does_not_come_about_is_misconfigured_and_nothing_has_left() {
    let peer = Peer::start(|bytes| (!bytes.is_empty()).then_some(bytes.len()), good_http, []).await;
    let options = format!("kind = \"fhir\"\nbase = \"https://{}/fhir\"\n", peer.address);
    let outbound = bundle();
    let error = destination(&options).deliver(&outbound).await.unwrap_err();
    assert_eq!(error.class, Misconfigured, "{}", error.reason);
    assert!(!outbound.has_left());
}

#[tokio::test]
async fn the_request_is_what_fhir_servers_take() {
    let peer = Peer::start(whole_http, good_http, []).await;
    let options = format!(
        "kind = \"fhir\"\nbase = \"http://{}/fhir/\"\nheaders = {{ \"X-Site\" = \"RXX\" }}\n",
        peer.address
    );
    let destination = destination(&options);
    destination.deliver(&bundle()).await.unwrap();
    destination.deliver(&patient()).await.unwrap();
    let requests = peer.requests(2).await;
    let [posted, put] = [0, 1].map(|n| String::from_utf8(requests[n].clone()).unwrap());
    assert!(posted.starts_with("POST /fhir/ HTTP/1.1\r\n"), "{posted}");
    assert!(put.starts_with("PUT /fhir/Patient/p-1 HTTP/1.1\r\n"), "{put}");
    for line in [
        "accept: application/fhir+json",
        "content-type: application/fhir+json",
        "x-request-id: M1",
        "x-site: RXX",
    ] {
        assert!(posted.contains(&format!("\r\n{line}\r\n")), "{line} in {posted}");
    }
    assert!(!posted.contains("content-encoding"), "never compressed");
}

#[tokio::test]
async fn a_token_that_was_renewed_is_read_again_when_the_old_one_is_not_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "old\n").unwrap();
    let refused = || Act::Say(http(401, &[], ""));
    let peer = Peer::start(whole_http, good_http, [Act::Well, refused(), refused()]).await;
    let destination = destination(&format!(
        "kind = \"fhir\"\nbase = \"http://{}/fhir\"\ntoken = {{ file = {file:?} }}\n",
        peer.address
    ));
    destination.deliver(&bundle()).await.unwrap();
    std::fs::write(&file, "new\n").unwrap();
    let error = destination.deliver(&bundle()).await.unwrap_err();
    assert_eq!(error.class, Misconfigured, "both were refused");
    destination.deliver(&bundle()).await.unwrap();
    let used: Vec<String> = peer
        .requests(4)
        .await
        .iter()
        .map(|request| {
            let text = String::from_utf8_lossy(request).into_owned();
            text.lines().find_map(|line| line.strip_prefix("authorization: ")).unwrap().to_owned()
        })
        .collect();
    assert_eq!(used, ["Bearer old", "Bearer old", "Bearer new", "Bearer new"]);
}

#[tokio::test]
async fn a_secret_or_ca_that_cannot_be_read_is_misconfigured() {
    for options in ["token = { env = \"TIE_TEST_NO_SUCH_TOKEN\" }\n", "ca = \"/no/such/roots.pem\"\n"] {
        let outbound = bundle();
        let error = answer(Act::Well, options, &outbound).await.unwrap_err();
        assert_eq!(error.class, Misconfigured);
        assert!(!outbound.has_left());
    }
}

#[tokio::test]
async fn a_resource_without_a_proper_id_is_not_sent() {
    for (resource_type, id) in [("Patient", ""), ("Patient", "a/b"), ("Pat ient", "1"), ("../x", "1")] {
        let json = Bytes::from_static(b"{}");
        let payload = Payload::FhirResource { resource_type: resource_type.into(), id: id.into(), json };
        let error = answer(Act::Well, "", &Outbound::new(payload, "M1")).await.unwrap_err();
        assert_eq!(error.class, Rejected, "{resource_type}/{id}");
    }
}
