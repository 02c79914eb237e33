//! What repeats are recognised by.

use super::{Home, at, journal, message};
use crate::journal::{Arrival, Disposition, Sequence};

pub(crate) async fn p3_repeats_are_found_by_source_control_id_and_content(home: &dyn Home) {
    let journal = journal(home).await;
    let routed = [("adt", "record")];
    let first = journal.append(message(1, &routed)).await.unwrap();
    let mut quarantined = message(1, &[]);
    quarantined.disposition = Disposition::Quarantined { reason: "no route".to_owned() };
    journal.append(quarantined).await.unwrap();
    // Enough that a store which indexes behind its intake has done so for some and not for others.
    let others =
        journal.append_all((100..700).map(|number| message(number, &routed)).collect()).await.unwrap();
    let second = journal.append(message(1, &routed)).await.unwrap();

    let page = journal.arrivals(Sequence(i64::MAX), 2).await.unwrap();
    assert_eq!(page.iter().map(|one| one.sequence).collect::<Vec<_>>(), [second, others[599]]);
    let rest = journal.arrivals(others[0], 10).await.unwrap();
    assert_eq!(rest.iter().map(|one| one.sequence).collect::<Vec<_>>(), [first], "none from quarantine");
    let summary = journal.message(first).await.unwrap().unwrap();
    assert_eq!((&rest[0].hash, &rest[0].control_id), (&summary.hash, &summary.keys.control_id));
    assert!(rest[0].is_repeat_of(&summary, at(1)) && !rest[0].is_repeat_of(&summary, at(2)));

    let end = Sequence(i64::MAX);
    let found = async |arrival: &Arrival, since, before| {
        let found = journal.earlier(arrival, at(since), before).await.unwrap();
        (found.copy, found.other)
    };
    let arrival = &rest[0];
    assert_eq!(found(arrival, 1, end).await, (Some(second), None));
    assert_eq!(found(arrival, 1, second).await, (Some(first), None));
    assert_eq!(found(arrival, 1, first).await, (None, None));
    assert_eq!(found(arrival, 2, end).await, (None, None));
    assert_eq!(found(&Arrival { hash: [7; 32], ..arrival.clone() }, 1, end).await, (None, Some(second)));
    for other in [
        Arrival { listener: "laboratory".to_owned(), ..arrival.clone() },
        Arrival { sending_application: "EPR".to_owned(), ..arrival.clone() },
        Arrival { sending_facility: "RYY".to_owned(), ..arrival.clone() },
        Arrival { control_id: "2".to_owned(), ..arrival.clone() },
    ] {
        assert_eq!(found(&other, 1, end).await, (None, None));
    }
}
