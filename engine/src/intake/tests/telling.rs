//! What is counted, logged and told, and what never is.

use super::*;

#[tokio::test]
async fn notices_are_counted_and_tell_when_the_source_serves() {
    let house = House::live().await;
    let serving = house.reception.serving();
    assert!(!*serving.borrow());
    for notice in [Notice::Serving, Notice::Connected, Notice::Connected, Notice::Disconnected] {
        house.reception.notice(notice);
    }
    house.reception.notice(Notice::Junk { bytes: 7 });
    assert!(*serving.borrow());
    assert!(house.counted("tie_connections_open{listener=\"hospital\"} 1"));
    assert!(house.counted("tie_junk_bytes_total{listener=\"hospital\"} 7"));
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn p9_no_canary_in_any_answer_log_metric_or_reason() {
    let log = Log::default();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).finish();
    // With a single dispatcher alive, tracing asks the thread that first meets a call site whether anybody listens,
    // and a parallel test would answer no for all. A second one makes it ask both.
    let _second = tracing::Dispatch::new(tracing_subscriber::fmt().with_writer(std::io::sink).finish());
    let _guard = tracing::subscriber::set_default(subscriber);
    let house = House::new(Unmatched::Reject, Environment::Live).await;
    let body = "EVN|CANARY|CANARY\rPID|CANARY|CANARY|CANARY^^^NHS^NH~CANARY2^^^CANARY^MR|CANARY|CANARY\u{fffd}\rMRG|CANARY3\rZZZ|CANARY";
    let mut served = Vec::new();
    for header in [
        "MSH|^~\\&|PAS|RXX|TIE|HUB|20260101||ADT^A01|M1|P|2.4",
        "MSH|^~\\&|PAS|RXX|TIE|HUB|20260101||ORU^R01|M1|P|2.4",
        "MSH|^~\\&|PAS|RXX|TIE|HUB|20260101||ADT^A01||P|2.4",
        "MSH|^~\\&|PAS|RXX|TIE|HUB|20260101||ADT^A01|M1|T|2.4",
        "MSH|^~\\&|PAS|RXX|TIE|HUB|20260101||ADT^A01|M1|P|9.9",
        "MSHCANARY",
        "CANARY",
        "FHS|^~\\&|CANARY\rBHS|CANARY\rMSH|^~\\&|PAS|RXX|TIE|HUB|20260101||ADT^A01|M1|P|2.4",
    ] {
        let raw = Bytes::from(format!("{header}\r{body}\rPID|\u{b5}").into_bytes());
        let latin = Bytes::from([raw.as_ref(), b"\xe9CANARY\xff"].concat());
        served.extend(house.reception.accept(raw, &peer()).await.unwrap().acknowledgement);
        served.extend(house.reception.accept(latin.clone(), &peer()).await.unwrap().acknowledgement);
        served.extend(
            house
                .reception
                .refuse(latin, Refusal::TooLarge { limit_bytes: 9 }, &peer())
                .await
                .acknowledgement,
        );
    }
    let mut metrics = String::new();
    prometheus::TextEncoder::new().encode_utf8(&house.registry.gather(), &mut metrics).unwrap();
    let reasons: Vec<_> = house.quarantined().await.into_iter().filter_map(|one| one.quarantine).collect();
    assert!(reasons.len() >= 16 && house.routed().await >= 2);
    let answers: Vec<_> = served.iter().flat_map(|answer| lines(answer)).collect();
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("a message is in quarantine"), "the log was not captured");
    for text in [answers.join("\n"), log, metrics, reasons.join("\n")] {
        assert!(!text.to_lowercase().contains("canary"), "{text}");
    }
}
