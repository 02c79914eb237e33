//! When a destination is given something, and how much: windows, pauses, rates, outages, and what others notice.

use super::*;

/// P5: one destination that hangs, one that is away: the third does not notice.
#[tokio::test]
async fn p5_a_dead_destination_does_not_block_another() {
    let world = World::new(QUICK).await;
    let [hung, away, good] = [
        Receiver::new(true, |_, _| Hang { left: true }),
        Receiver::new(true, |_, _| Fail(ErrorClass::Unavailable)),
        Receiver::new(true, |_, _| Take),
    ];
    let running = [("hung", &hung), ("away", &away), ("good", &good)].map(|(name, r)| world.start(name, r));
    for n in 0..50 {
        for name in ["hung", "away", "good"] {
            world.append(name, &format!("m{n}"), &[&format!("p{}", n % 7)]).await;
        }
    }
    good.taken(50).await;
    assert_eq!(hung.taken(0).await.len() + away.taken(0).await.len(), 0);
    let [hung, ..] = running;
    hung.task.abort();
}

/// P5, P6: 10,000 messages of a patient whom the receiver cannot store, before and among 1,000 others.
#[tokio::test]
async fn p5_one_poisoned_patient_does_not_hold_up_the_others() {
    let slow = Retry { first: Duration::from_secs(600), max: Duration::from_secs(600), ..QUICK };
    let world = World::new(slow).await;
    let receiver = Receiver::new(true, |id, _| match id.starts_with("poison") {
        true => Fail(ErrorClass::Uncertain),
        false => Take,
    });
    let ids = (0..11_000).map(|n| match n % 11 == 10 {
        true => (format!("other{n}"), format!("p{}", n % 101)),
        false => (format!("poison{n}"), "poisoned".to_owned()),
    });
    let ids: Vec<_> = ids.collect();
    for some in ids.chunks(1000) {
        let all = some.iter().map(async |(id, lane)| world.append("record", id, &[lane]).await);
        futures::future::join_all(all).await;
    }
    let running = world.start("record", &receiver);
    assert_eq!(receiver.taken(1000).await.len(), 1000);
    running.stop().await;
    assert_eq!(receiver.seen.lock().unwrap().keys().filter(|id| id.starts_with("poison")).count(), 1);
}

/// Messages of a patient each for some destinations, and a disk that takes its time from now on: no outcome is written
/// before the gate opens.
async fn held_up(folder: &tempfile::TempDir, to: &[(&str, usize)]) -> (World, Arc<Hindered>, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(1000));
    let (journal, store) = hindered(folder, Hindrance::Gate(gate.clone())).await;
    let mut world = World { journal, ..World::new(QUICK).await };
    world.settings.concurrency = 3;
    for (destination, messages) in to {
        for n in 0..*messages {
            world.append(destination, &format!("m{n}"), &[&format!("p{n}")]).await;
        }
    }
    gate.forget_permits(usize::MAX);
    (world, store, gate)
}

/// While the disk takes its time over one outcome, others are asked for: all their outcomes are written together.
#[tokio::test]
async fn outcomes_are_written_together_while_no_more_are_asked_for_than_may_be() {
    let folder = tempfile::tempdir().unwrap();
    let (world, store, gate) = held_up(&folder, &[("record", 100)]).await;
    gate.add_permits(1);
    let second = world.append("record", "p0-second", &["p0"]).await;
    let before = store.commits();
    let receiver = Receiver::new(true, |_, _| Take);
    let running = world.start("record", &receiver);
    receiver.taken(100).await;
    assert_eq!(receiver.attempts("p0-second"), 0, "its lane waits for the outcome before it");
    gate.add_permits(1000);
    world.stands(second, State::Delivered).await;
    assert_eq!(receiver.taken(101).await.last().unwrap(), "p0-second");
    assert_eq!(receiver.most.load(Ordering::Relaxed), 3);
    let commits = store.commits() - before;
    assert!(commits <= 4, "{commits} commits for 101 outcomes");
    running.stop().await;
}

/// H4: what has no outcome when the engine ends is sent again.
#[tokio::test]
async fn h4_what_may_be_filed_twice_is_not_sent_while_the_outcome_of_another_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (world, _, gate) = held_up(&folder, &[("laboratory", 20), ("record", 100)]).await;
    let laboratory = Receiver::to_which(Repeats::AreRecognised, |_, _| Take);
    let running = world.start("laboratory", &laboratory);
    laboratory.taken(3).await;
    // Another one, which began later, is given all meanwhile.
    let record = Receiver::new(true, |_, _| Take);
    let beside = world.start("record", &record);
    record.taken(100).await;
    assert_eq!(laboratory.taken(0).await.len(), 3);
    gate.add_permits(1000);
    laboratory.taken(20).await;
    running.stop().await;
    beside.stop().await;
}

#[tokio::test]
async fn in_a_maintenance_window_everything_waits_quietly_and_goes_on_in_order() {
    let mut world = World::new(QUICK).await;
    // The clock of the test stands at 13:46:40 of a Monday.
    let window = Window::new(vec![jiff::civil::Weekday::Monday], "13:00", "14:00").unwrap();
    world.settings.windows = Some(Windows::new(jiff::tz::TimeZone::UTC, vec![window]));
    let receiver = Receiver::new(true, |_, _| Take);
    let shown = watch::Sender::new(Standing::Closed);
    let running = world.start_showing("record", &receiver, shown.clone());
    let first = world.append("record", "first", &["p1"]).await;
    shown.subscribe().wait_for(|standing| *standing == Standing::Maintenance).await.unwrap();
    world.append("record", "second", &["p1"]).await;
    assert_eq!((world.record(first).await.state, receiver.attempts("first")), (State::Ready, 0));
    world.clock.0.fetch_add(3600, Ordering::Relaxed);
    world.append("record", "third", &["p1"]).await;
    assert_eq!(receiver.taken(3).await, ["first", "second", "third"]);
    shown.subscribe().wait_for(|standing| *standing == Standing::Closed).await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn a_destination_that_is_paused_is_given_nothing() {
    let mut world = World::new(QUICK).await;
    world.settings.paused = true;
    let receiver = Receiver::new(true, |_, _| Take);
    let shown = watch::Sender::new(Standing::Closed);
    let running = world.start_showing("record", &receiver, shown.clone());
    let sequence = world.append("record", "first", &["p1"]).await;
    shown.subscribe().wait_for(|standing| *standing == Standing::Paused).await.unwrap();
    running.stop().await;
    assert_eq!((world.record(sequence).await.state, receiver.attempts("first")), (State::Ready, 0));
    world.settings.paused = false;
    let running = world.start("record", &receiver);
    receiver.taken(1).await;
    running.stop().await;
}

#[tokio::test]
async fn a_rate_is_kept_and_what_is_filtered_costs_nothing_of_it() {
    let mut world = World::new(QUICK).await;
    world.settings.rate = Some("50/s".parse().unwrap());
    let receiver = Receiver::new(true, |_, _| Take);
    for n in 0..200 {
        world.append("record", &format!("filtered-{n}"), &[&format!("f{n}")]).await;
    }
    for n in 0..20 {
        world.append("record", &format!("m{n}+x{n}"), &[&format!("p{n}")]).await;
    }
    let began = Instant::now();
    let running = world.start("record", &receiver);
    receiver.taken(40).await;
    // Forty requests, of which a tenth of a second's worth may go at once, and the last two are paid afterwards.
    let took = began.elapsed();
    assert!((Duration::from_millis(600)..Duration::from_secs(20)).contains(&took), "{took:?}");
    running.stop().await;
}

/// After an outage the backlog does not fall upon the receiver at once, and while it lasts nobody storms.
#[tokio::test]
async fn a_dead_destination_is_probed_and_not_stormed() {
    let mut world = World::new(QUICK).await;
    world.settings.pauses = Pauses {
        first: Duration::from_millis(50),
        longest: Duration::from_secs(60),
        held: Duration::from_secs(60),
    };
    let receiver = Receiver::new(true, |_, _| Fail(ErrorClass::Unavailable));
    for n in 0..300 {
        world.append("record", &format!("m{n}"), &[&format!("p{n}")]).await;
    }
    let running = world.start("record", &receiver);
    let attempts = || receiver.seen.lock().unwrap().values().sum::<u32>();
    let began = Instant::now();
    while attempts() < 12 {
        tokio::task::yield_now().await;
    }
    // Eight were under way when it opened; then one each after 50, 100, 200 and 400 ms, though each of the three
    // hundred would be due again after some milliseconds.
    assert!(began.elapsed() > Duration::from_millis(700), "{:?}", began.elapsed());
    receiver.mend();
    receiver.taken(300).await;
    running.stop().await;
}

/// H8: a corrected mapping is in force for whatever has not been sent.
#[tokio::test]
async fn h8_what_was_mapped_before_a_reload_and_waits_for_its_place_is_mapped_anew() {
    let mut world = World::new(QUICK).await;
    (world.settings.concurrency, world.settings.timeout) = (1, Duration::from_millis(200));
    let first = world.append("record", "first", &["p1"]).await;
    let second = world.append("record", "second", &["p2"]).await;
    let hangs = |id: &str, attempt| if id == "first" && attempt == 1 { Hang { left: false } } else { Take };
    let receiver = Receiver::new(true, hangs);
    let running = world.start("record", &receiver);
    while world.mapping.made.load(Ordering::Relaxed) < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(receiver.attempts("second"), 0, "it is mapped, and waits");
    world.mapping.reloaded_at.store(2, Ordering::Relaxed);
    assert_eq!(world.stands(second, State::Delivered).await.revision, "r3");
    assert_eq!(
        world.stands(first, State::Delivered).await.revision,
        "r1",
        "what was tried goes as it was made"
    );
    running.stop().await;
}
