//! Acknowledgements that wait: for what, for how long, and who does not wait with them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{task::JoinHandle, time::timeout};

use super::{
    super::tests::{House, numbered},
    *,
};
use crate::{
    connector::{ErrorClass, Intake, Peer},
    journal::{Outcome, conformance},
};

async fn house(acknowledge: Acknowledge, patience: Duration) -> Arc<House> {
    let house = House::with(|settings| {
        settings.acknowledge = acknowledge;
        settings.patience = patience;
    });
    Arc::new(house.await)
}

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);

fn send(house: &Arc<House>, id: &str) -> JoinHandle<String> {
    let (house, raw) = (house.clone(), numbered("ADT^A01", id));
    tokio::spawn(async move { house.accept(raw.as_bytes()).await.unwrap()[1].clone() })
}

/// Waits until a message is owed, and records what became of it.
async fn becomes(house: &House, state: State, class: Option<ErrorClass>, reason: &str) {
    let owed = loop {
        match house.journal.pending("record", Sequence(0), 9).await.unwrap().pop() {
            Some(owed) => break owed.id,
            None => tokio::task::yield_now().await,
        }
    };
    let outcome = conformance::outcome(&owed, state, 1);
    let outcome = Outcome { class, reason: reason.to_owned(), ..outcome };
    house.journal.record(outcome).await.unwrap();
}

#[tokio::test]
async fn the_answer_waits_for_what_the_listener_asks_for_and_says_what_became_of_it() {
    use Acknowledge::{Delivered, Mapped};
    let refused = Some(ErrorClass::Rejected);
    let away = Some(ErrorClass::Unavailable);
    for (wanted, state, class, answer) in [
        (Delivered, State::Delivered, None, "MSA|AA|M1"),
        (Delivered, State::Filtered, None, "MSA|AA|M1"),
        (Delivered, State::Dead, refused, "MSA|AE|M1|stored, but dead for record: so it was"),
        (Delivered, State::Parked, refused, "MSA|AE|M1|stored, but parked for record: so it was"),
        (Delivered, State::Held, None, "MSA|AE|M1|stored, but held for record: so it was"),
        (Mapped, State::Retrying, away, "MSA|AA|M1"),
        (Mapped, State::Dead, refused, "MSA|AA|M1"),
        (Mapped, State::Filtered, None, "MSA|AA|M1"),
        (Mapped, State::Dead, None, "MSA|AE|M1|stored, but dead for record: so it was"),
        (Mapped, State::Held, None, "MSA|AE|M1|stored, but held for record: so it was"),
    ] {
        let house = house(wanted, LONG).await;
        let sent = send(&house, "M1");
        becomes(&house, state, class, "so it was").await;
        let msa = sent.await.unwrap();
        assert_eq!(msa, answer, "{wanted:?} {state:?}");
    }
}

#[tokio::test]
async fn p3_after_the_time_is_up_a_repeat_is_answered_by_how_it_stands_then() {
    let house = house(Acknowledge::Delivered, SHORT).await;
    let msa = send(&house, "M1").await.unwrap();
    assert!(msa.starts_with("MSA|AE|M1|stored, not yet delivered: it takes too long"), "{msa}");
    becomes(&house, State::Retrying, Some(ErrorClass::Unavailable), "503").await;
    let msa = send(&house, "M1").await.unwrap();
    assert!(msa.starts_with("MSA|AE|M1|stored, not yet delivered"), "{msa}");
    becomes(&house, State::Delivered, None, "200").await;
    assert_eq!(send(&house, "M1").await.unwrap(), "MSA|AA|M1");
    assert_eq!(house.journal.stats().await.unwrap().last, Sequence(1), "stored once");
}

/// P6: sources count the memory of a message for as long as its bytes are held.
#[tokio::test]
async fn p6_the_bytes_of_a_message_are_not_held_while_its_answer_waits() {
    struct Held {
        raw: Vec<u8>,
        _held: Arc<()>,
    }
    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            &self.raw
        }
    }
    let house = house(Acknowledge::Delivered, LONG).await;
    for (id, more) in [("M1", 0), ("M2", 100_000)] {
        let mut raw = numbered("ADT^A01", id).into_bytes();
        raw.extend(format!("NTE|1||{}\r", "x".repeat(more)).into_bytes());
        let held = Arc::new(());
        let raw = Bytes::from_owner(Held { raw, _held: held.clone() });
        let waits = tokio::spawn({
            let house = house.clone();
            async move {
                house
                    .reception
                    .accept(raw, &Peer("192.0.2.1".to_owned()))
                    .await
                    .unwrap()
                    .acknowledgement
                    .unwrap()
            }
        });
        let free = timeout(LONG, async {
            while Arc::strong_count(&held) > 1 {
                tokio::task::yield_now().await;
            }
        });
        free.await.expect("its bytes are free once they are stored");
        assert!(!waits.is_finished());
        becomes(&house, State::Delivered, None, "200").await;
        let answer = waits.await.unwrap();
        assert!(String::from_utf8_lossy(&answer).contains(&format!("MSA|AA|{id}")), "{answer:?}");
    }
}

#[tokio::test]
async fn p5_p10_whoever_waits_holds_nobody_up_and_a_stop_ends_the_waiting() {
    let house = house(Acknowledge::Delivered, LONG).await;
    let first = send(&house, "M1");
    becomes(&house, State::Held, Some(ErrorClass::Uncertain), "unclear").await;
    assert!(first.await.unwrap().starts_with("MSA|AE|M1|stored, but held"));
    let waits = send(&house, "M2");
    while house.routed().await < 2 {
        tokio::task::yield_now().await;
    }
    // Another connection of the listener is answered meanwhile.
    let refused = house.accept(numbered("ORU^R01", "M3").as_bytes()).await.unwrap();
    assert!(refused[1].starts_with("MSA|AA|M3") && !waits.is_finished());
    house.stop.cancel();
    let msa = waits.await.unwrap();
    assert!(msa.starts_with("MSA|AE|M2|stored, not yet delivered: the engine stops"), "{msa}");
}
