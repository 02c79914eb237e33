//! What a person may ask the engine to change.

use super::*;

#[tokio::test]
async fn a_pause_is_ended_once_and_with_a_reason() {
    let server = server(false).await;
    let asked = r#"{"who":"me","why":"the original is switched off"}"#;
    assert_eq!(server.post("/api/resume", JSON, asked).await, (200, json!({ "resumed": true })));
    let (status, refused) = server.post("/api/resume", JSON, r#"{"why":"again"}"#).await;
    assert_eq!((status, &refused["error"]), (409, &json!("the engine is not paused")));
    assert_eq!(server.post("/api/resume", JSON, "{}").await.0, 400);
}

#[tokio::test]
async fn a_replay_is_handed_on_with_who_and_why() {
    let server = server(false).await;
    let asked =
        r#"{"states":["dead"],"destination":"record","after":40,"dry_run":true,"who":"me","why":"mended"}"#;
    let (status, answer) = server.post("/api/replay", JSON, asked).await;
    assert_eq!(status, 200);
    assert_eq!(
        answer,
        json!({
            "deliveries": 1,
            "dry_run": true,
            "without_bytes": 2,
            "more_after": 41,
            "first": [{ "sequence": 7, "route": "adt", "destination": "record" }],
        })
    );
    let (decision, asked) = server.engine.asked.lock().unwrap().pop().unwrap();
    assert_eq!(decision, Decision::Replay);
    assert_eq!(
        (asked.who.as_str(), asked.why.as_str(), asked.limit, asked.at),
        ("me", "mended", 1_000, at(120))
    );
    assert_eq!(asked.filter.after, Some(Sequence(40)));
    assert_eq!(
        (asked.filter.states, asked.filter.destination.as_deref()),
        (vec![State::Dead], Some("record"))
    );
}

#[tokio::test]
async fn a_decision_that_makes_no_sense_is_refused() {
    let server = server(false).await;
    for (decision, asked, why) in [
        ("replay", "{}", "missing field `states`"),
        ("replay", r#"{"states":[]}"#, "at least one"),
        ("replay", r#"{"states":["ready"]}"#, "at least one of parked, held, filtered, delivered, dead"),
        ("replay", r#"{"states":["delivered"]}"#, "name a message"),
        ("replay", r#"{"states":["dead"],"limit":0}"#, "`limit`"),
        ("replay", r#"{"states":["dead"],"destinaton":"x"}"#, "unknown field"),
        ("replay", "x", "cannot be read"),
        ("release", r#"{"states":["dead"]}"#, "at least one of parked, held, and"),
        ("skip", r#"{"states":["ready"],"sequence":7,"why":"x"}"#, "at least one of retrying, parked, held,"),
        ("skip", r#"{"states":["parked"],"sequence":7,"why":" "}"#, "must say why"),
        ("skip", r#"{"states":["parked"],"why":"x"}"#, "name a message"),
    ] {
        let (status, answer) = server.post(&format!("/api/{decision}"), JSON, asked).await;
        assert_eq!(status, 400, "{asked}");
        assert!(answer["error"].as_str().unwrap().contains(why), "{asked}: {answer}");
    }
    assert!(server.engine.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_release_and_a_skip_are_handed_on() {
    let server = server(false).await;
    let asked = r#"{"states":["parked"],"sequence":7,"who":"me","why":"a test message"}"#;
    for (path, decision) in [("/api/release", Decision::Release), ("/api/skip", Decision::Skip)] {
        let (status, answer) = server.post(path, JSON, asked).await;
        assert_eq!((status, &answer["deliveries"]), (200, &json!(1)));
        let (decided, request) = server.engine.asked.lock().unwrap().pop().unwrap();
        assert_eq!((decided, request.filter.sequence), (decision, Some(Sequence(7))));
    }
}

#[tokio::test]
async fn lanes_and_audit_are_listed() {
    let server = server(false).await;
    let (status, lanes) = server.json("/api/lanes?destination=archive").await;
    assert_eq!((status, &lanes["lanes"][0]["destination"]), (200, &json!("archive")));
    assert_eq!((&lanes["lanes"][0]["behind"], &lanes["complete"]), (&json!(2), &json!(true)));
    assert_eq!(server.json("/api/lanes?limit=0").await.1["lanes"], json!([]));
    let (status, audit) = server.json("/api/audit").await;
    assert_eq!((status, &audit["audit"][0]["action"]), (200, &json!("skip")));
    assert_eq!(audit["audit"][0]["asked"], json!({ "states": ["parked"] }));
    assert_eq!(server.json("/api/audit?sort=x").await.0, 400);
}
