//! What comes back of what was put in, over every store.

use std::time::Duration;

use bytes::Bytes;

use super::{Home, at, id, journal, message, noise, outcome};
use crate::{
    connector::Payload,
    journal::{
        Ages, Damage, DeliveryId, Journal, JournalError, Outcome, Pending, Retention, Sequence, State, Work,
        codec::Flaw,
    },
};

/// The bytes of deliveries that were tried before.
pub(crate) async fn load(
    journal: &Journal,
    ids: &[DeliveryId],
) -> Result<Vec<Result<Work, Damage>>, JournalError> {
    let tried = ids.iter().map(|id| Pending {
        id: id.clone(),
        lanes: Vec::new(),
        received: at(0),
        state: State::Retrying,
        attempts: 1,
        first_attempt: None,
    });
    journal.load(&tried.collect::<Vec<_>>(), usize::MAX).await
}

pub(crate) async fn p6_so_much_is_loaded_as_there_is_room_for(home: &dyn Home) {
    let journal = journal(home).await;
    for number in 0..6 {
        journal.append(message(number, &[("adt", "record")])).await.unwrap();
    }
    let mut pending = journal.pending("record", Sequence(0), 10).await.unwrap();
    let size = journal.message(pending[0].id.sequence).await.unwrap().unwrap().size_bytes;
    let loaded = async |pending: &[Pending], bytes| {
        let loaded = journal.load(pending, bytes).await.unwrap();
        loaded.into_iter().map(|one| one.map(|work| work.entry.sequence.0)).collect::<Vec<_>>()
    };
    assert_eq!(loaded(&pending, 0).await, [Ok(1)], "one at least");
    assert_eq!(loaded(&pending, 2 * size).await, [Ok(1), Ok(2), Ok(3)], "and the one with which it is more");
    assert_eq!(loaded(&pending, 6 * size).await.len(), 6);
    pending[1].id.sequence = Sequence(1);
    pending[5].id.sequence = Sequence(99);
    let missing = Err(Damage { sequence: Sequence(99), flaw: Flaw::Missing });
    let all = loaded(&pending, 6 * size).await;
    assert_eq!(all, [Ok(1), Ok(1), Ok(3), Ok(4), Ok(5), missing]);
}

pub(crate) async fn p7_a_damaged_body_is_told_by_its_sequence_and_harms_no_other(home: &dyn Home) {
    let journal = journal(home).await;
    let mut ids = Vec::new();
    for number in 0..3 {
        let sequence = journal.append(message(number, &[("adt", "record")])).await.unwrap();
        ids.push(id(sequence, "adt", "record"));
    }
    journal.close().await;
    home.damage(ids[1].sequence).await;

    let journal = self::journal(home).await;
    let loaded = load(&journal, &ids).await.unwrap();
    assert!(loaded[0].is_ok() && loaded[2].is_ok());
    let damage = loaded[1].as_ref().unwrap_err();
    assert_eq!(damage.sequence, ids[1].sequence);
    assert!(damage.to_string().starts_with("message 2 in the journal is damaged: "), "{damage}");
    let read = journal.body(ids[1].sequence).await;
    assert!(matches!(read, Err(JournalError::Damaged(damage)) if damage.sequence == ids[1].sequence));
    journal.record(outcome(&ids[1], State::Dead, 0)).await.unwrap();
}

/// Documents lie in the journal once, not again with what was sent.
pub(crate) async fn a_long_output_comes_back_and_goes_with_its_message(home: &dyn Home) {
    let first = journal(home).await;
    let raw = Bytes::from(noise(1, 1 << 20));
    let id = id(
        first
            .append(crate::journal::NewMessage { raw: raw.clone(), ..message(1, &[("adt", "record")]) })
            .await
            .unwrap(),
        "adt",
        "record",
    );
    let output = vec![
        Payload::FhirBundle([b"{\"data\":\"".as_slice(), &raw[9..], b"\"}"].concat().into()),
        Payload::Hl7(raw.slice(100..)),
    ];
    let told = |state, attempts| Outcome {
        output: output.clone(),
        message: raw.clone(),
        ..outcome(&id, state, attempts)
    };
    first.record(told(State::Retrying, 1)).await.unwrap();
    let stored = first.store.outputs(std::slice::from_ref(&id)).await.unwrap();
    let bytes = stored[0].output.as_ref().unwrap().stored_bytes();
    assert!(bytes < 2000, "{bytes}");
    first.close().await;

    let journal = self::journal(home).await;
    let work = load(&journal, std::slice::from_ref(&id)).await.unwrap().remove(0).unwrap();
    assert!(work.output.unwrap().payloads == output && work.entry.raw == raw, "to be sent again");
    journal.record(told(State::Delivered, 2)).await.unwrap();
    assert!(journal.exchange(&id).await.unwrap().unwrap().output == output, "to be shown");
    let bodies = Ages { bodies: Some(Duration::ZERO), messages: None };
    journal.retain(&Retention { default: bodies, ..Retention::default() }, at(90_000)).await.unwrap();
    assert!(journal.body(id.sequence).await.unwrap_err().to_string().contains("removed"));
    assert_eq!(journal.exchange(&id).await.unwrap().unwrap().output, []);
}
