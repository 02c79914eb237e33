//! What comes back of what was put in, over every store.

use super::{Home, at, id, journal, message, outcome};
use crate::journal::{Damage, DeliveryId, Journal, JournalError, Pending, Sequence, State, Work, body::Flaw};

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
