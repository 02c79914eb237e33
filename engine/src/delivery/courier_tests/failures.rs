//! What each kind of failure comes to: tried again, held, parked, given up.

use super::*;

#[tokio::test]
async fn every_class_of_error_comes_to_its_state() {
    let world = World::new(QUICK).await;
    let receiver = Receiver::new(true, |id, attempt| match (id, attempt) {
        ("rejected", _) => Fail(ErrorClass::Rejected),
        ("uncertain", 1) => TakeAndFail,
        ("unavailable", 1..=3) => Fail(ErrorClass::Unavailable),
        ("misconfigured", 1..=3) => Fail(ErrorClass::Misconfigured),
        _ => Take,
    });
    let running = world.start("record", &receiver);
    let cases = [
        ("rejected", State::Dead, 1),
        ("uncertain", State::Delivered, 2),
        ("unavailable", State::Delivered, 4),
        ("misconfigured", State::Delivered, 4),
        ("good", State::Delivered, 1),
        ("filtered-1", State::Filtered, 0),
        ("empty-1", State::Filtered, 0),
        ("held-1", State::Held, 0),
        ("dead-1", State::Dead, 0),
        ("panic-1", State::Held, 0),
    ];
    for (id, state, attempts) in cases {
        let sequence = world.append("record", id, &[id]).await;
        let record = world.stands(sequence, state).await;
        assert_eq!(record.attempts, attempts, "{id}");
        assert!(!record.reason.is_empty(), "{id}");
    }
    running.stop().await;
}

#[tokio::test]
async fn p7_what_a_mapping_has_noticed_stands_with_the_attempt_that_it_was_made_for() {
    let world = World::new(QUICK).await;
    let receiver = Receiver::new(true, |id, _| match id {
        "refused, odd" => Fail(ErrorClass::Rejected),
        _ => Take,
    });
    let running = world.start("record", &receiver);
    for (id, state, noticed) in [
        ("plain", State::Delivered, None),
        ("an odd one", State::Delivered, Some("; look at: one; two")),
        ("refused, odd", State::Dead, Some("; look at: one; two")),
    ] {
        let sequence = world.append("record", id, &[id]).await;
        let reason = world.stands(sequence, state).await.reason;
        assert_eq!(noticed.is_some(), reason.contains("look at"), "{reason}");
        assert!(reason.ends_with(noticed.unwrap_or_default()), "{reason}");
    }
    let much = world.append("record", "odd and long", &["long"]).await;
    let reason = world.stands(much, State::Delivered).await.reason;
    assert!(reason.contains("look at: one; two; sss") && reason.ends_with('…') && reason.len() < 1100);
    running.stop().await;
}

#[tokio::test]
async fn what_may_have_been_taken_is_not_repeated_where_repeats_are_not_safe() {
    let world = World::new(QUICK).await;
    let receiver = Receiver::new(false, |id, _| match id {
        "lost" => TakeAndFail,
        "panic!" => Panic,
        _ => Take,
    });
    let running = world.start("record", &receiver);
    let lost = world.append("record", "lost", &["p1"]).await;
    let behind = world.append("record", "behind", &["p1"]).await;
    let fault = world.append("record", "panic!", &["p2"]).await;
    world.stands(lost, State::Held).await;
    world.stands(fault, State::Held).await;
    world.append("record", "other", &["p3"]).await;
    assert_eq!(receiver.taken(2).await, ["lost", "other"]);
    assert_eq!(world.record(behind).await.state, State::Ready, "its lane waits for a person");
    running.stop().await;
    assert_eq!(receiver.attempts("lost"), 1);
}

#[tokio::test]
async fn a_time_out_is_uncertain_only_if_something_had_left() {
    let mut world = World::new(QUICK).await;
    world.settings.timeout = Duration::from_millis(20);
    let receiver = Receiver::new(false, |id, attempt| match (id, attempt) {
        ("left", _) => Hang { left: true },
        ("not-left", 1) => Hang { left: false },
        _ => Take,
    });
    let running = world.start("record", &receiver);
    let left = world.append("record", "left", &["p1"]).await;
    let not_left = world.append("record", "not-left", &["p2"]).await;
    assert_eq!(world.stands(left, State::Held).await.class, Some(ErrorClass::Uncertain));
    world.stands(not_left, State::Delivered).await;
    running.stop().await;
}

#[tokio::test]
async fn giving_up_is_by_age_and_never_for_a_destination_that_needs_a_person() {
    let world = World::new(QUICK).await;
    let receiver = Receiver::new(true, |id, _| match id {
        "away" => Fail(ErrorClass::Unavailable),
        _ => Fail(ErrorClass::Misconfigured),
    });
    let running = world.start("record", &receiver);
    let away = world.append("record", "away", &["p1"]).await;
    world.stands(away, State::Retrying).await;
    world.clock.0.fetch_add(3600, Ordering::Relaxed);
    world.stands(away, State::Dead).await;
    let held = world.append("record", "held!", &["p1"]).await;
    world.stands(held, State::Retrying).await;
    world.clock.0.fetch_add(1_000_000, Ordering::Relaxed);
    let before = receiver.attempts("held!");
    while receiver.attempts("held!") < before + 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.record(held).await.state, State::Retrying);
    running.stop().await;
}

/// P5: one message that is always answered by 401 or 403, while the destination takes all others.
#[tokio::test]
async fn p5_one_message_that_is_always_refused_does_not_hold_its_destination() {
    let mut world = World::new(QUICK).await;
    // Whoever waited for the probe of a held destination would wait longer than this test.
    world.settings.pauses.held = Duration::from_secs(600);
    let receiver =
        Receiver::new(true, |id, _| if id == "bad" { Fail(ErrorClass::Misconfigured) } else { Take });
    let running = world.start("record", &receiver);
    let bad = world.append("record", "bad", &["p0"]).await;
    let behind = world.append("record", "behind", &["p0"]).await;
    let mut others = 0;
    while world.record(bad).await.state != State::Dead {
        others += 1;
        let other = world.append("record", &format!("o{others}"), &[&format!("p{others}")]).await;
        world.stands(other, State::Delivered).await;
    }
    assert!(receiver.attempts("bad") >= REFUSALS);
    world.stands(behind, State::Delivered).await;
    running.stop().await;
}

/// P5: one message that the receiver always fails over, while it takes all others.
#[tokio::test]
async fn p5_one_message_that_is_always_failed_over_ends_soon_and_opens_no_circuit() {
    let mut world = World::new(QUICK).await;
    // Whoever waited for a probe would wait longer than this test.
    world.settings.pauses.first = Duration::from_secs(600);
    let receiver = Receiver::new(true, |id, attempt| match (id, attempt) {
        ("bad" | "worse", _) => Answer(ErrorClass::Failing),
        // Two of three that open the circuit.
        (_, 1) => Fail(ErrorClass::Unavailable),
        _ => Take,
    });
    let running = world.start("record", &receiver);
    let bad = [world.append("record", "bad", &["p0"]).await, world.append("record", "worse", &["p1"]).await];
    let behind = world.append("record", "behind", &["p0"]).await;
    let mut others = 1;
    for bad in bad {
        while world.record(bad).await.state != State::Dead {
            others += 1;
            let other = world.append("record", &format!("o{others}"), &[&format!("p{others}")]).await;
            world.stands(other, State::Delivered).await;
        }
    }
    assert!(receiver.attempts("bad") >= FAILURES && receiver.attempts("worse") >= FAILURES);
    world.stands(behind, State::Delivered).await;
    running.stop().await;
}

#[tokio::test]
async fn a_destination_that_fails_over_all_gives_nobody_up_before_its_time() {
    let day = Duration::from_secs(24 * 3600);
    let world = World::new(Retry { give_up: day, ..QUICK }).await;
    let receiver = Receiver::new(true, |_, _| Answer(ErrorClass::Failing));
    let running = world.start("record", &receiver);
    let mut all = Vec::new();
    for n in 0..4 {
        all.push(world.append("record", &format!("m{n}"), &[&format!("p{n}")]).await);
    }
    let asked = |times: u32| (0..4).all(|n| receiver.attempts(&format!("m{n}")) >= times);
    while !asked(10) {
        tokio::task::yield_now().await;
    }
    world.clock.0.fetch_add(2 * 3600, Ordering::Relaxed);
    while !asked(30) {
        tokio::task::yield_now().await;
    }
    receiver.mend();
    receiver.taken(4).await;
    for sequence in all {
        world.stands(sequence, State::Delivered).await;
    }
    running.stop().await;
}

#[tokio::test]
async fn a_message_that_is_failed_over_alone_ends_after_an_hour() {
    let world = World::new(Retry { give_up: Duration::from_secs(24 * 3600), ..QUICK }).await;
    let receiver = Receiver::new(true, |_, _| Answer(ErrorClass::Failing));
    let running = world.start("record", &receiver);
    let alone = world.append("record", "alone", &["p1"]).await;
    while receiver.attempts("alone") < 20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.record(alone).await.state, State::Retrying);
    world.clock.0.fetch_add(3600, Ordering::Relaxed);
    world.stands(alone, State::Dead).await;
    running.stop().await;
}

#[tokio::test]
async fn what_is_failed_over_is_not_repeated_where_repeats_are_not_safe() {
    let world = World::new(QUICK).await;
    let receiver = Receiver::new(false, |_, _| Answer(ErrorClass::Failing));
    let running = world.start("record", &receiver);
    let sequence = world.append("record", "m1", &["p1"]).await;
    assert_eq!(world.stands(sequence, State::Dead).await.attempts, 1);
    running.stop().await;
}

/// H4: a receiver that never says which message its acknowledgements are for files each repeat.
#[tokio::test]
async fn what_is_answered_unclearly_is_asked_three_times_then_held_and_its_destination_is_not_away() {
    let mut world = World::new(QUICK).await;
    world.settings.pauses.first = Duration::from_secs(600);
    let receiver = Receiver::new(true, |id, attempt| match (id, attempt) {
        ("good", _) => Take,
        ("early", 1..=9) => Fail(ErrorClass::Unavailable),
        _ => Answer(ErrorClass::Uncertain),
    });
    let shown = watch::Sender::new(Standing::Closed);
    let running = world.start_showing("record", &receiver, shown.clone());
    for n in 0..5 {
        let sequence = world.append("record", &format!("m{n}"), &[&format!("p{n}")]).await;
        let record = world.stands(sequence, State::Held).await;
        assert_eq!((record.attempts, record.class), (3, Some(ErrorClass::Uncertain)));
    }
    let early = world.append("record", "early", &["p9"]).await;
    assert_eq!(world.stands(early, State::Held).await.attempts, 12, "what nobody answered does not count");
    let good = world.append("record", "good", &["p10"]).await;
    world.stands(good, State::Delivered).await;
    assert_eq!(*shown.borrow(), Standing::Closed);
    running.stop().await;
}

#[tokio::test]
async fn a_destination_that_refuses_all_gives_nobody_up() {
    let world = World::new(QUICK).await;
    let receiver = Receiver::new(true, |_, _| Fail(ErrorClass::Misconfigured));
    let running = world.start("record", &receiver);
    let mut all = Vec::new();
    for n in 0..10 {
        all.push(world.append("record", &format!("m{n}"), &[&format!("p{n}")]).await);
    }
    let probes = || receiver.seen.lock().unwrap().values().sum::<u32>();
    while probes() < 40 {
        tokio::task::yield_now().await;
    }
    receiver.mend();
    receiver.taken(10).await;
    for sequence in all {
        world.stands(sequence, State::Delivered).await;
    }
    running.stop().await;
}

#[tokio::test]
async fn what_is_rejected_can_be_tried_again_and_then_parked() {
    let rejected = Limit { attempts: 3, age: Duration::MAX, then: GiveUp::Park };
    let world = World::new(Policy { rejected, unmapped: GiveUp::Park, ..QUICK.into() }).await;
    let receiver = Receiver::new(true, |id, attempt| match (id, attempt) {
        ("bad", _) | ("locked", 1..=2) => Fail(ErrorClass::Rejected),
        _ => Take,
    });
    let running = world.start("record", &receiver);
    let cases = [("bad", State::Parked, 3), ("locked", State::Delivered, 3), ("dead-1", State::Parked, 0)];
    for (id, state, attempts) in cases {
        let sequence = world.append("record", id, &[id]).await;
        assert_eq!(world.stands(sequence, state).await.attempts, attempts, "{id}");
    }
    running.stop().await;
}
