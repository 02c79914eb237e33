//! The plain HTTP destination: what is sent, which statuses count, and every row of the tables of answers over sockets.

use std::collections::BTreeSet;

use bytes::Bytes;
use tie_engine::connector::{DeliveryError, ErrorClass, Outbound, Payload, Receipt};
use tokio::net::TcpListener;

use ErrorClass::{Rejected, Uncertain};

use crate::{
    destination,
    peer::{Act, Peer, good_http, http, whole_http},
};

fn er7() -> Outbound {
    Outbound::new(Payload::Hl7(Bytes::from_static(b"MSH|^~\\&|PAS|RXX|||||ADT^A01|M1|P|2.4\r")), "M1")
}

fn bundle() -> Outbound {
    Outbound::new(Payload::FhirBundle(Bytes::from_static(b"{\"resourceType\":\"Bundle\"}")), "M1")
}

fn resource() -> Outbound {
    let json = Bytes::from_static(b"{\"resourceType\":\"Patient\",\"id\":\"p-1\"}");
    Outbound::new(Payload::FhirResource { resource_type: "Patient".into(), id: "p-1".into(), json }, "M1")
}

async fn answer(act: Act, options: &str) -> Result<Receipt, DeliveryError> {
    let peer = Peer::start(whole_http, good_http, [act]).await;
    let options = format!("kind = \"http\"\nurl = \"http://{}/in\"\n{options}", peer.address);
    destination(&options).deliver(&er7()).await
}

#[tokio::test]
async fn the_content_type_tells_what_the_bytes_are() {
    let peer = Peer::start(whole_http, good_http, []).await;
    let url = format!("kind = \"http\"\nurl = \"http://{}/in?from=tie\"\n", peer.address);
    let posts = destination(&url);
    for outbound in [er7(), bundle(), resource()] {
        posts.deliver(&outbound).await.unwrap();
    }
    let own = "method = \"PUT\"\ncontent_type = \"text/plain\"\nheaders = { \"X-Site\" = \"RXX\" }\n";
    destination(&format!("{url}{own}")).deliver(&er7()).await.unwrap();
    let requests: Vec<String> =
        peer.requests(4).await.into_iter().map(|request| String::from_utf8(request).unwrap()).collect();
    let kinds = ["application/hl7-v2+er7; charset=utf-8", "application/fhir+json", "application/fhir+json"];
    for (request, kind) in requests.iter().zip(kinds) {
        assert!(request.starts_with("POST /in?from=tie HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(&format!("\r\ncontent-type: {kind}\r\n")), "{request}");
        assert!(request.contains("\r\nx-request-id: M1\r\n"), "{request}");
    }
    let put = &requests[3];
    assert!(put.starts_with("PUT /in?from=tie HTTP/1.1\r\n"), "{put}");
    assert!(put.contains("\r\ncontent-type: text/plain\r\n") && put.contains("\r\nx-site: RXX\r\n"), "{put}");
}

#[tokio::test]
async fn only_an_expected_status_is_a_success() {
    for status in [200, 201, 202, 204] {
        let receipt = answer(Act::Say(http(status, &[], "")), "").await.unwrap();
        assert_eq!(receipt.answer, status.to_string());
    }
    let only = "expect = [200]\n";
    assert_eq!(answer(Act::Say(http(202, &[], "")), only).await.unwrap_err().class, Uncertain);
    let changed = "expect = [200]\nerrors = { unexpected = \"rejected\" }\n";
    let error = answer(Act::Say(http(202, &[], "")), changed).await.unwrap_err();
    assert_eq!((error.class, error.reason.as_str()), (Rejected, "202, but this is not expected"));
    let said = answer(Act::Say(http(200, &[], "MSA|AA|M1")), "").await.unwrap();
    assert_eq!(said.detail, Some(Bytes::from_static(b"MSA|AA|M1")), "what it said is kept");
    let error = answer(Act::Say(http(429, &[("retry-after", "7")], "")), "").await.unwrap_err();
    assert_eq!(error.retry_after.unwrap().as_secs(), 7);
}

/// What a receiver says so that a sign of the tables comes about; by itself it answers well.
fn said(sign: &str) -> Act {
    let outcome = |code: &str| {
        format!(r#"{{"resourceType":"OperationOutcome","issue":[{{"severity":"error","code":"{code}"}}]}}"#)
    };
    let entry = |status: &str| {
        format!(r#"{{"resourceType":"Bundle","entry":[{{"response":{{"status":"{status}"}}}}]}}"#)
    };
    match sign {
        "tls" => Act::SayAndClose(b"no TLS at all\r\n".to_vec()),
        "lost-after" => Act::Close,
        "reply-cut" => Act::SayAndClose(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{".to_vec()),
        "reply-too-long" => Act::Say(http(200, &[], &"x".repeat(3000))),
        "unexpected" => Act::Say(http(205, &[], "")),
        "not-fhir" => Act::Say(http(200, &[], "<html>")),
        "outcome-error" => Act::Say(http(200, &[], &outcome("processing"))),
        "outcome-transient" => Act::Say(http(200, &[], &outcome("throttled"))),
        "entry-refused" => Act::Say(http(200, &[], &entry("422"))),
        "entry-failed" => Act::Say(http(200, &[], &entry("500"))),
        _ => {
            let status = sign.strip_prefix("resource-").unwrap_or(sign).replace("xx", "99");
            status.parse().map_or(Act::Well, |status| Act::Say(http(status, &[], "")))
        }
    }
}

/// Brings about what a row of the tables of an HTTP destination speaks of.
async fn bring_about(kind: &str, sign: &str) -> DeliveryError {
    let whole =
        if sign == "tls" { |bytes: &[u8]| (!bytes.is_empty()).then_some(bytes.len()) } else { whole_http };
    let peer = Peer::start(whole, good_http, [said(sign)]).await;
    let address = match sign {
        "dns" => "http://record.invalid/x".to_owned(),
        "unreachable" => "http://255.255.255.255/x".to_owned(),
        "refused" => {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            format!("http://{}/x", listener.local_addr().unwrap())
        }
        "tls" => format!("https://{}/x", peer.address),
        _ => format!("http://{}/x", peer.address),
    };
    let more = match sign {
        "setup" => "ca = \"/no/such/roots.pem\"\n",
        "reply-too-long" => "longest_reply = \"1kB\"\n",
        _ => "",
    };
    let outbound = match sign {
        "payload" => er7(),
        _ if sign.starts_with("resource-") => resource(),
        _ => bundle(),
    };
    let key = if kind == "fhir" { "base" } else { "url" };
    let options = format!("kind = \"{kind}\"\n{key} = \"{address}\"\n{more}");
    destination(&options).deliver(&outbound).await.expect_err(sign)
}

/// The promise that the table is tested case by case: each row, over real sockets.
#[tokio::test]
async fn every_row_of_the_tables_is_what_happens() {
    // A connection cannot be made to break at the very moment between opening and sending, and no client hands on an
    // interim answer as one.
    // What merging alone meets with is in `fhir_update`.
    let not_here = ["lost-before", "1xx", "changed", "too-long-to-merge"];
    for kind in ["fhir", "http"] {
        let plugin = tie_plugins::ALL.iter().find(|plugin| plugin.name == kind).unwrap();
        let mut seen = BTreeSet::new();
        for (sign, class, _) in plugin.answers.iter().flat_map(|table| table.iter()) {
            assert!(seen.insert(*sign), "{kind}: {sign} stands twice");
            if not_here.contains(sign) {
                continue;
            }
            let error = bring_about(kind, sign).await;
            assert_eq!(error.class, *class, "{kind}: {sign}: {}", error.reason);
        }
        assert!(seen.len() > 40);
    }
}
