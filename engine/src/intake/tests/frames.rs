//! Frames with several messages, and those that never became one.

use super::*;

#[tokio::test]
async fn a_batch_is_split_and_answered_once_by_its_worst() {
    let (one, two, odd) = (numbered("ADT^A01", "M1"), numbered("ADT^A02", "M2"), numbered("ORU^R01", "M3"));
    for (messages, trailer, unmatched, msa, routed, kept) in [
        (&[&*one, &two][..], "BTS|2\rFTS|1\r", Unmatched::Reject, "MSA|AA|M1", 2, &[][..]),
        (&[&*one, &two], "", Unmatched::Reject, "MSA|AA|M1", 2, &[]),
        (
            &[&*one, &odd, &two],
            "BTS|3\rFTS|1\r",
            Unmatched::Accept,
            "MSA|AA|M1",
            2,
            &["no route takes this message"],
        ),
        (
            &[&*one, &odd, &two],
            "BTS|3\rFTS|1\r",
            Unmatched::Reject,
            "MSA|AR|M1",
            2,
            &["no route takes this message"],
        ),
        (
            &[&*one, &two],
            "BTS|3\rFTS|1\r",
            Unmatched::Accept,
            "MSA|AE|M1",
            2,
            &["the batch trailer states 3 messages, and there are 2"],
        ),
        (&[], "BTS|0\rFTS|1\r", Unmatched::Accept, "MSA|AE|", 0, &["the batch holds no message"]),
    ] {
        let house = House::new(unmatched, Environment::Live).await;
        let raw = batch(messages, trailer);
        let answer = house.accept(&raw).await.unwrap();
        assert!(answer[1].starts_with(msa), "{answer:?}");
        assert_eq!(house.routed().await, routed);
        let quarantined = house.quarantined().await;
        let reasons: Vec<_> = quarantined.iter().map(|one| one.quarantine.as_deref().unwrap()).collect();
        assert_eq!(reasons, kept);
    }
}

#[tokio::test]
async fn two_messages_in_one_frame_are_both_taken() {
    let house = House::live().await;
    let raw = [numbered("ADT^A01", "M1"), numbered("ADT^A02", "M2")].concat();
    let answer = house.accept(raw.as_bytes()).await.unwrap();
    assert!(answer[1].starts_with("MSA|AA|M1"), "{answer:?}");
    assert_eq!(house.routed().await, 2);
}

#[tokio::test]
async fn what_is_refused_gets_a_reason_and_its_head_is_kept() {
    let waited = std::time::Duration::from_secs(30);
    let head = [GOOD.as_bytes(), &vec![b'x'; 100_000]].concat();
    for (refusal, head, told, kept) in [
        (
            Refusal::TooLarge { limit_bytes: 50 },
            &head[..],
            "the message is longer than 50 bytes",
            Some(65_536),
        ),
        (
            Refusal::Incomplete { waited },
            GOOD.as_bytes(),
            "the message was broken off: no end of its frame came in 30 s",
            Some(GOOD.len()),
        ),
        (
            Refusal::OtherFormat { taken: "HL7 v2" },
            b"{\"resourceType\":\"Patient\"}",
            "this listener takes HL7 v2 here, and this is not",
            Some(26),
        ),
        (Refusal::NotFramed, b"GET / HTTP/1.1", "the bytes are not framed as a message", Some(14)),
        (
            Refusal::Busy,
            GOOD.as_bytes(),
            "the engine is busy: its memory for messages is taken, send again",
            None,
        ),
        (Refusal::TooManyConnections { limit: 9 }, b"", "the listener already serves 9 connections", None),
        (Refusal::PeerNotAllowed, GOOD.as_bytes(), "this address is not on the listener's list", None),
    ] {
        let house = House::live().await;
        let answer = house
            .reception
            .refuse(Bytes::copy_from_slice(head), refusal, &peer())
            .await
            .acknowledgement
            .unwrap();
        let lines = lines(&answer);
        assert!(lines[1].starts_with("MSA|AR|"), "{lines:?}");
        assert!(lines.iter().any(|line| line.contains(told)), "{lines:?}");
        let quarantined = house.quarantined().await;
        assert_eq!(quarantined.first().map(|one| one.size_bytes), kept);
        assert_eq!(house.routed().await, 0, "what is cut short is never routed");
        if kept == Some(65_536) {
            let reason = quarantined[0].quarantine.as_deref().unwrap();
            assert_eq!(reason, "the message is longer than 50 bytes; only its first 65536 bytes are kept");
            assert_eq!(quarantined[0].keys.control_id, "M1");
        }
    }
}
