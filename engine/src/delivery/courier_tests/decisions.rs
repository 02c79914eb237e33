//! What a person lets go on, or gives up.

use super::*;

#[tokio::test]
async fn a_lane_that_is_parked_goes_on_in_order_when_a_person_lets_it() {
    let world = World::new(Retry { then: GiveUp::Park, ..QUICK }).await;
    let receiver = Receiver::new(true, |id, _| if id == "bad" { Fail(ErrorClass::Rejected) } else { Take });
    let running = world.start("record", &receiver);
    let bad = world.append("record", "bad", &["p1"]).await;
    world.stands(bad, State::Parked).await;
    for id in ["p1-2", "p1-3"] {
        world.append("record", id, &["p1"]).await;
    }
    world.append("record", "merge", &["p1", "p2"]).await;
    world.append("record", "p2-1", &["p2"]).await;
    world.append("record", "other", &["p3"]).await;
    assert_eq!(receiver.taken(1).await, ["other"]);
    receiver.mend();
    assert_eq!(world.requeue(&[State::Parked]).await, 1);
    assert_eq!(receiver.taken(6).await, ["other", "bad", "p1-2", "p1-3", "merge", "p2-1"]);
    running.stop().await;
}

#[tokio::test]
async fn a_message_that_a_person_skips_while_it_is_tried_is_not_tried_again() {
    let mut world = World::new(QUICK).await;
    world.settings.timeout = Duration::from_millis(20);
    let receiver = Receiver::new(true, |id, attempt| match (id, attempt) {
        ("bad", 1) => Fail(ErrorClass::Unavailable),
        ("bad", _) => Hang { left: false },
        _ => Take,
    });
    let running = world.start("record", &receiver);
    let bad = world.append("record", "bad", &["p1"]).await;
    let behind = world.append("record", "behind", &["p1"]).await;
    while receiver.attempts("bad") < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.decide(Decision::Skip, &[State::Retrying]).await, 1);
    world.stands(behind, State::Delivered).await;
    let attempts = receiver.attempts("bad");
    world.append("record", "last", &["p1"]).await;
    receiver.taken(2).await;
    assert_eq!((world.record(bad).await.state, receiver.attempts("bad")), (State::Dead, attempts));
    running.stop().await;
}

#[tokio::test]
async fn what_is_released_is_sent_as_it_was_made_before_what_stands_behind_it() {
    let world = World::new(Retry { then: GiveUp::Park, ..QUICK }).await;
    let receiver = Receiver::new(true, |id, _| if id == "bad" { Fail(ErrorClass::Rejected) } else { Take });
    let running = world.start("record", &receiver);
    let bad = world.append("record", "bad", &["p1"]).await;
    world.stands(bad, State::Parked).await;
    world.append("record", "behind", &["p1"]).await;
    receiver.mend();
    assert_eq!(world.decide(Decision::Release, &[State::Parked]).await, 1);
    assert_eq!(receiver.taken(2).await, ["bad", "behind"]);
    assert_eq!(world.stands(bad, State::Delivered).await.revision, "r1", "made once");
    running.stop().await;
}
