//! Stops, kills and restarts.

use super::*;

/// H4: the engine dies between the first byte and the answer; a person decides, not the next start.
#[tokio::test]
async fn h4_what_was_being_sent_when_the_engine_died_waits_for_a_person() {
    for (safe, expected) in [(false, State::Held), (true, State::Delivered)] {
        let world = World::new(QUICK).await;
        let receiver =
            Receiver::new(safe, |_, attempt| if attempt == 1 { Hang { left: true } } else { Take });
        let running = world.start("record", &receiver);
        let lost = world.append("record", "lost", &["p1"]).await;
        while receiver.attempts("lost") == 0 {
            tokio::task::yield_now().await;
        }
        running.task.abort(); // as a kill: nothing is recorded any more
        assert!(running.task.await.unwrap_err().is_cancelled());

        let running = world.start("record", &receiver);
        let stood = world.stands(lost, expected).await;
        assert_eq!(receiver.attempts("lost"), if safe { 2 } else { 1 });
        if !safe {
            assert_eq!(stood.class, Some(ErrorClass::Uncertain));
            assert_eq!(stood.reason, "the engine ended while it was sent; it may have been taken");
            // A person has looked: it is not there.
            world.decide(Decision::Release, &[State::Held]).await;
            world.stands(lost, State::Delivered).await;
        }
        running.stop().await;
        assert_eq!(receiver.taken(1).await, ["lost"]);
    }
}

#[tokio::test]
async fn what_was_made_once_is_sent_again_as_it_was_even_after_a_restart() {
    let world = World::new(QUICK).await;
    let receiver = Receiver::new(true, |id, attempt| match (id, attempt) {
        ("two", 1..=2) => Fail(ErrorClass::Unavailable),
        ("two", _) => Hang { left: false },
        _ => Take,
    });
    let running = world.start("record", &receiver);
    let sequence = world.append("record", "one+two+three", &["p1"]).await;
    while receiver.attempts("two") < 3 {
        tokio::task::yield_now().await;
    }
    running.task.abort();
    assert!(running.task.await.unwrap_err().is_cancelled(), "as by kill -9");
    receiver.mend();
    let running = world.start("record", &receiver);
    let record = world.stands(sequence, State::Delivered).await;
    assert_eq!(record.revision, "r1");
    assert_eq!(world.mapping.made.load(Ordering::Relaxed), 1, "mapped once");
    assert_eq!(receiver.taken(3).await, ["one", "two", "three"], "what was taken is not repeated");
    running.stop().await;
}

/// P10: a hung delivery does not keep the engine from stopping, and is done again later.
#[tokio::test]
async fn p10_a_stop_waits_for_no_hung_delivery() {
    let mut world = World::new(QUICK).await;
    world.settings.grace = Duration::from_millis(20);
    let receiver = Receiver::new(true, |id, _| if id == "hung" { Hang { left: true } } else { Take });
    let running = world.start("record", &receiver);
    let sequence = world.append("record", "hung", &["p1"]).await;
    while receiver.attempts("hung") == 0 {
        tokio::task::yield_now().await;
    }
    running.stop().await;
    assert_eq!(world.record(sequence).await.state, State::Ready);
    receiver.mend();
    let running = world.start("record", &receiver);
    assert_eq!(receiver.taken(1).await, ["hung"]);
    running.stop().await;
}

#[tokio::test]
async fn p10_what_may_have_left_at_a_stop_is_held_where_repeats_are_not_safe() {
    let mut world = World::new(QUICK).await;
    world.settings.grace = Duration::from_millis(20);
    let receiver = Receiver::new(false, |_, _| Hang { left: true });
    let running = world.start("record", &receiver);
    let sequence = world.append("record", "hung", &["p1"]).await;
    while receiver.attempts("hung") == 0 {
        tokio::task::yield_now().await;
    }
    running.stop().await;
    assert_eq!(world.record(sequence).await.state, State::Held);
}

#[tokio::test]
async fn the_courier_ends_when_the_journal_can_record_nothing() {
    let world = World::new(QUICK).await;
    let receiver = Receiver::new(true, |_, _| Take);
    let running = world.start("record", &receiver);
    world.journal.close().await;
    let ended = timeout(Duration::from_secs(30), running.task).await.unwrap().unwrap();
    assert!(matches!(ended, Err(JournalError::Closed(_))), "{ended:?}");
}

/// P2, P4: whatever fails and however often the engine is killed, each patient's messages arrive in order and none
/// is missing. What is repeated is the last one of its patient, never an earlier one.
#[tokio::test]
async fn p4_the_order_of_each_patient_survives_failures_and_restarts() {
    // Refused at random now and then, but never at fault.
    let refused = Policy::from(QUICK).misconfigured;
    let policy = Policy { misconfigured: Limit { attempts: u32::MAX, ..refused }, ..QUICK.into() };
    for seed in 0..12 {
        let mut chance = StdRng::seed_from_u64(seed);
        let mut world = World::new(policy).await;
        world.settings.timeout = Duration::from_millis(20);
        world.settings.grace = Duration::from_millis(5);
        world.settings.concurrency = chance.random_range(1..9);
        world.settings.limits = Limits {
            window: chance.random_range(4..40),
            per_lane: chance.random_range(1..6),
            page: chance.random_range(2..20),
            waiting: 1000,
            lanes: 1000,
        };
        let moods = Mutex::new(StdRng::seed_from_u64(seed + 1000));
        let receiver = Receiver::new(true, move |_, _| match moods.lock().unwrap().random_range(0..20) {
            0..3 => Fail(ErrorClass::Unavailable),
            3..5 => TakeAndFail,
            5 => Fail(ErrorClass::Misconfigured),
            6 => Hang { left: true },
            7 => Hang { left: false },
            _ => Take,
        });
        let mut running = world.start("record", &receiver);
        let mut lanes: HashMap<String, Vec<String>> = HashMap::new();
        for n in 0..150 {
            let mut own: Vec<String> = vec![format!("p{}", chance.random_range(0..8))];
            if chance.random_range(0..10) == 0 {
                own.push(format!("p{}", chance.random_range(0..8)));
                own.dedup();
            }
            let id = format!("m{n}");
            world.append("record", &id, &own.iter().map(String::as_str).collect::<Vec<_>>()).await;
            own.into_iter().for_each(|lane| lanes.entry(lane).or_default().push(id.clone()));
            if chance.random_range(0..15) == 0 {
                if chance.random() {
                    running.stop().await;
                } else {
                    running.task.abort();
                    let _ = running.task.await;
                }
                running = world.start("record", &receiver);
            }
        }
        // Repeats make the number of takings open: wait for the last message of every lane.
        let last: HashSet<&String> = lanes.values().filter_map(|ids| ids.last()).collect();
        let mut taken = receiver.taken.subscribe();
        let all = taken.wait_for(|taken| last.iter().all(|id| taken.contains(*id)));
        timeout(Duration::from_secs(60), all).await.expect("all arrive").unwrap();
        running.stop().await;
        let taken = receiver.taken.borrow().clone();
        for (lane, ids) in lanes {
            let mut arrived: Vec<&String> = taken.iter().filter(|id| ids.contains(id)).collect();
            arrived.dedup();
            assert_eq!(arrived, ids.iter().collect::<Vec<_>>(), "seed {seed}, lane {lane}");
        }
    }
}

#[tokio::test]
async fn p10_a_courier_finishes_no_reading_when_the_journal_closes_or_it_is_to_stop() {
    for closes in [true, false] {
        let (directory, began) = (tempfile::tempdir().unwrap(), Arc::new(tokio::sync::Notify::new()));
        let (journal, _) = hindered(&directory, Hindrance::Silent(began.clone())).await;
        let world = World { journal: journal.clone(), ..World::new(QUICK).await };
        world.append("record", "a", &["one"]).await;
        let running = world.start("record", &Receiver::new(true, |_, _| Take));
        began.notified().await;
        match closes {
            true => assert!(journal.append(conformance::message(2, &[("adt", "record")])).await.is_err()),
            false => running.stop.cancel(),
        }
        let ended = timeout(Duration::from_secs(20), running.task).await.expect("it waits for its reading");
        assert_eq!(ended.unwrap().is_err(), closes);
    }
}
