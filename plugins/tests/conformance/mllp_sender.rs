//! The MLLP destination: what each answer means, and that none is taken for another's.

use bytes::Bytes;
use tie_engine::connector::{DeliveryError, Destination, ErrorClass, Outbound, Payload, Receipt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use ErrorClass::{Failing, Rejected, Unavailable, Uncertain};

use crate::{
    destination,
    peer::{Act, Peer, acknowledgement, good_mllp, whole_mllp},
};

fn message(n: usize) -> Outbound {
    let text = format!("MSH|^~\\&|PAS|RXX|LAB|RXX|20260301||ADT^A01|M{n}|P|2.4\rPID|||{n}\r");
    Outbound::new(Payload::Hl7(Bytes::from(text)), "ANOTHER")
}

async fn peer(acts: impl IntoIterator<Item = Act>) -> (Peer, std::sync::Arc<dyn Destination>) {
    let peer = Peer::start(whole_mllp, good_mllp, acts).await;
    let options = format!("kind = \"mllp\"\naddress = \"{}\"\n", peer.address);
    (peer, destination(&options))
}

async fn answer(bytes: Vec<u8>, options: &str) -> Result<Receipt, DeliveryError> {
    let peer = Peer::start(whole_mllp, good_mllp, [Act::Say(bytes)]).await;
    let options = format!("kind = \"mllp\"\naddress = \"{}\"\n{options}", peer.address);
    destination(&options).deliver(&message(1)).await
}

fn framed(body: &str) -> Vec<u8> {
    format!("\x0B{body}\x1C\r").into_bytes()
}

const HEAD: &str = "MSH|^~\\&|LAB|RXX|TIE|RXX|20260301||ACK|A1|P|2.4\r";

#[tokio::test]
async fn every_answer_has_its_class() {
    for code in ["AA", "CA"] {
        assert_eq!(answer(acknowledgement(code, "M1"), "").await.unwrap().answer, code);
    }
    let cases = [
        (acknowledgement("AE", "M1"), Rejected),
        (acknowledgement("AR", "M1"), Rejected),
        (acknowledgement("CE", "M1"), Unavailable),
        (acknowledgement("CR", "M1"), Rejected),
        (framed(&format!("{HEAD}MSA|AR|M1\rERR|||207^Application internal error^HL70357|E\r")), Failing),
        (framed(&format!("{HEAD}MSA|AE|M1\rERR|||207|E\r")), Failing),
        (framed(&format!("{HEAD}MSA|CE|M1\rERR|||207|E\r")), Unavailable),
        (framed(&format!("{HEAD}MSA|CR|M1\rERR|||207|E\r")), Unavailable),
        (framed(&format!("{HEAD}MSA|AE|M1\rERR|||206|E\r")), Unavailable),
        (framed(&format!("{HEAD}MSA|AE|M1\rERR|||204|E\r")), Rejected),
        (acknowledgement("ZZ", "M1"), Uncertain),
        (acknowledgement("AA", "M2"), Uncertain),
        (acknowledgement("AA", ""), Uncertain),
        (acknowledgement("AE", "M2"), Uncertain),
        (framed(HEAD), Uncertain),
        (framed("what?"), Uncertain),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), Uncertain),
        ([acknowledgement("AA", "M1"), acknowledgement("AA", "M2")].concat(), Uncertain),
    ];
    for (bytes, class) in cases {
        let told = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(answer(bytes, "").await.unwrap_err().class, class, "{told}");
    }
}

/// Brings about what a row of the table speaks of.
async fn bring_about(sign: &str) -> Option<DeliveryError> {
    let error = |code: &str| framed(&format!("{HEAD}MSA|AE|M1\rERR|||{code}|E\r"));
    let said = match sign {
        "dns" | "refused" | "unreachable" => {
            let address = match sign {
                "dns" => "lis.invalid:2575".to_owned(),
                "refused" => {
                    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                    listener.local_addr().unwrap().to_string()
                }
                _ => "255.255.255.255:2575".to_owned(),
            };
            let options = format!("kind = \"mllp\"\naddress = \"{address}\"\n");
            return destination(&options).deliver(&message(1)).await.err();
        }
        "closed" => {
            let (_peer, destination) = peer([Act::Close]).await;
            return destination.deliver(&message(1)).await.err();
        }
        "payload" => {
            let (_peer, destination) = peer([]).await;
            let bundle = Outbound::new(Payload::FhirBundle(Bytes::from_static(b"{}")), "M1");
            return destination.deliver(&bundle).await.err();
        }
        "junk" => framed("what?"),
        "no-control-id" => acknowledgement("AA", ""),
        "wrong-control-id" => acknowledgement("AA", "M2"),
        "no-code" => acknowledgement("ZZ", "M1"),
        "AE" | "AR" | "CE" | "CR" => acknowledgement(sign, "M1"),
        "206" | "207" => error(sign),
        _ => return None,
    };
    answer(said, "").await.err()
}

/// The promise that the table is tested case by case: each row, over real sockets.
#[tokio::test]
async fn every_row_of_the_table_is_what_happens() {
    let plugin = tie_plugins::ALL.iter().find(|plugin| plugin.name == "mllp").unwrap();
    for (sign, class, _) in plugin.answers.iter().flat_map(|table| table.iter()) {
        let error = bring_about(sign).await.unwrap_or_else(|| panic!("no case for {sign}"));
        assert_eq!(error.class, *class, "{sign}: {}", error.reason);
    }
}

#[tokio::test]
async fn a_site_can_change_the_table() {
    let options = "errors = { AE = \"unavailable\", \"207\" = \"rejected\" }\n";
    assert_eq!(answer(acknowledgement("AE", "M1"), options).await.unwrap_err().class, Unavailable);
    let error = framed(&format!("{HEAD}MSA|AR|M1\rERR|||207|E\r"));
    assert_eq!(answer(error, options).await.unwrap_err().class, Rejected);
}

/// Whoever acknowledges is there, however little he says; who can store nothing, or is no such receiver, is as if away.
#[tokio::test]
async fn p5_an_acknowledgement_shows_that_the_receiver_is_there() {
    let error = |code: &str| framed(&format!("{HEAD}MSA|AE|M1\rERR|||{code}|E\r"));
    let twice = [acknowledgement("AA", "M1"), acknowledgement("AA", "M2")].concat();
    for (bytes, answered) in [
        (acknowledgement("AE", "M1"), true),
        (error("206"), true),
        (error("207"), true),
        (acknowledgement("ZZ", "M1"), true),
        (acknowledgement("AA", "M2"), true),
        (acknowledgement("AA", ""), true),
        (twice, true),
        (acknowledgement("CE", "M1"), false),
        (framed("what?"), false),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), false),
    ] {
        let told = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(answer(bytes, "").await.unwrap_err().answered, answered, "{told}");
    }
    let (_peer, destination) = peer([Act::Close]).await;
    assert!(!destination.deliver(&message(1)).await.unwrap_err().answered);
}

const OR_EMPTY: &str = "control_id = \"match-or-empty\"\n";

#[tokio::test]
async fn an_acknowledgement_that_names_no_message_counts_where_the_site_says_so() {
    let error = answer(acknowledgement("AA", ""), "").await.unwrap_err();
    assert_eq!(error.class, Uncertain);
    assert!(error.reason.contains("set `control_id = \"match-or-empty\"`"), "{}", error.reason);
    for empty in ["", "  ", "\"\""] {
        assert_eq!(answer(acknowledgement("AA", empty), OR_EMPTY).await.unwrap().answer, "AA", "{empty:?}");
    }
    assert_eq!(answer(acknowledgement("AA", "M1"), OR_EMPTY).await.unwrap().answer, "AA");
    assert_eq!(answer(acknowledgement("AE", ""), OR_EMPTY).await.unwrap_err().class, Rejected);
    assert_eq!(answer(acknowledgement("AA", "M2"), OR_EMPTY).await.unwrap_err().class, Uncertain);
}

/// Trap: an answer that names nobody taken for a message that it is not for.
#[tokio::test]
async fn an_acknowledgement_that_names_no_message_must_be_all_that_comes_on_its_connection() {
    let empty = || acknowledgement("AA", "");
    for act in [
        Act::Say([empty(), empty()].concat()),
        Act::SayAndSayAtTheEnd(empty(), empty()),
        Act::SayAndSayAtTheEnd(empty(), acknowledgement("AE", "M1")),
    ] {
        let peer = Peer::start(whole_mllp, good_mllp, [act]).await;
        let options = format!("kind = \"mllp\"\naddress = \"{}\"\n{OR_EMPTY}", peer.address);
        let error = destination(&options).deliver(&message(1)).await.unwrap_err();
        assert_eq!((error.class, error.answered), (Uncertain, true), "{}", error.reason);
    }
}

#[tokio::test]
async fn what_comes_unasked_leaves_open_which_message_an_acknowledgement_without_a_name_is_for() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = format!("kind = \"mllp\"\naddress = \"{}\"\n{OR_EMPTY}", listener.local_addr().unwrap());
    let receiver = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        // Of a message on an earlier connection.
        socket.write_all(&acknowledgement("AA", "")).await.unwrap();
        let mut request = Vec::new();
        while whole_mllp(&request).is_none() {
            socket.read_buf(&mut request).await.unwrap();
        }
        let _ = socket.write_all(&acknowledgement("AA", "")).await;
        let _ = socket.read_to_end(&mut request).await;
    };
    let destination = destination(&options);
    let outbound = message(1);
    let (sent, ()) = tokio::join!(destination.deliver(&outbound), receiver);
    assert_eq!(sent.unwrap_err().class, Uncertain);
}

#[tokio::test]
async fn a_connection_with_an_answer_that_names_no_message_carries_one_message() {
    let acts =
        [Act::Say(acknowledgement("AA", "")), Act::Say(acknowledgement("AA", "")), Act::Well, Act::Well];
    let peer = Peer::start(whole_mllp, good_mllp, acts).await;
    let options = format!("kind = \"mllp\"\naddress = \"{}\"\n{OR_EMPTY}", peer.address);
    let destination = destination(&options);
    for (n, connections) in [(1, 1), (2, 2), (3, 3), (4, 3)] {
        destination.deliver(&message(n)).await.unwrap();
        assert_eq!(peer.connections(), connections, "message {n}");
    }
}

#[tokio::test]
async fn a_peer_that_has_closed_meanwhile_costs_no_attempt() {
    for _ in 0..20 {
        let (peer, destination) = peer([Act::WellAndClose]).await;
        destination.deliver(&message(1)).await.unwrap();
        peer.closed(1).await;
        destination.deliver(&message(2)).await.expect("the closing is noticed before anything is sent");
        assert_eq!(peer.connections(), 2);
    }
}

#[tokio::test]
async fn a_connection_that_was_idle_for_too_long_is_not_used_again() {
    for (idle, connections) in [("0s", 3), ("1h", 1)] {
        let peer = Peer::start(whole_mllp, good_mllp, []).await;
        let options = format!("kind = \"mllp\"\naddress = \"{}\"\nidle = \"{idle}\"\n", peer.address);
        let destination = destination(&options);
        for n in 0..3 {
            destination.deliver(&message(n)).await.unwrap();
        }
        assert_eq!(peer.connections(), connections, "{idle}");
    }
}

/// P9: the receiver's own words stay out of the reason.
#[tokio::test]
async fn p9_the_reason_is_codes_only() {
    let said = framed(&format!("{HEAD}MSA|AE|M1|CANARYTON unknown\rERR|||CANARYTON|E||||CANARYTON\r"));
    let error = answer(said, "").await.unwrap_err();
    assert_eq!(error.reason, "AE");
    assert!(String::from_utf8_lossy(&error.detail.unwrap()).contains("CANARYTON"));
}

#[tokio::test]
async fn what_surrounds_an_answer_does_no_harm() {
    let noisy = [b"\r\n\0".to_vec(), acknowledgement("AA", "M1")].concat();
    assert!(answer(noisy, "").await.is_ok());
    let mut without_cr = acknowledgement("AA", "M1");
    without_cr.pop();
    assert!(answer(without_cr, "").await.is_ok());
}

/// Trap: a late acknowledgement taken for the next message's.
#[tokio::test]
async fn a_connection_that_has_said_too_much_is_not_used_again() {
    let twice = [acknowledgement("AA", "M1"), acknowledgement("AA", "M2")].concat();
    let (peer, destination) = peer([Act::Say(twice)]).await;
    assert_eq!(destination.deliver(&message(1)).await.unwrap_err().class, Uncertain);
    assert!(destination.deliver(&message(2)).await.is_ok());
    assert_eq!(peer.connections(), 2);
    assert_eq!(peer.requests(2).await.len(), 2, "the second answer came for a message that was really sent");
}

#[tokio::test]
async fn an_answer_for_another_message_ends_the_connection_and_a_refusal_does_not() {
    let (peer, destination) =
        peer([Act::Say(acknowledgement("AE", "M1")), Act::Say(acknowledgement("AA", "M1"))]).await;
    assert_eq!(destination.deliver(&message(1)).await.unwrap_err().class, Rejected);
    assert_eq!(destination.deliver(&message(2)).await.unwrap_err().class, Uncertain, "it was M1's");
    assert_eq!(peer.connections(), 1);
    assert!(destination.deliver(&message(3)).await.is_ok());
    assert_eq!(peer.connections(), 2);
}

#[tokio::test]
async fn a_message_that_cannot_be_framed_is_not_sent() {
    let (peer, destination) = peer([]).await;
    for text in ["MSH|^~\\&|PAS\x1C\rPID|", "PID|||1\r", ""] {
        let outbound = Outbound::new(Payload::Hl7(Bytes::from(text)), "M1");
        assert_eq!(destination.deliver(&outbound).await.unwrap_err().class, Rejected, "{text:?}");
    }
    assert_eq!(peer.connections(), 0);
}
