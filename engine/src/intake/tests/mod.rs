//! Every way to come in, over a real journal: what is answered and where it is kept.

mod frames;
mod telling;

use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::fmt::MakeWriter;

use bytes::Bytes;
use jiff::Timestamp;

use super::*;
use crate::{
    connector::{Intake, IntakeClosed, Notice, Peer, Refusal},
    journal::{Sequence, Summary, conformance, sqlite::SqliteStore},
};

pub(super) struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }
}

/// Takes admissions to `record`, in the lanes of their patients.
struct Adt;

impl Router for Adt {
    fn route(&self, listener: &str, message: &Incoming, patient: &PatientKeys) -> Vec<NewDelivery> {
        assert_eq!(listener, "hospital");
        if message.code() != "ADT" {
            return Vec::new();
        }
        let lanes = patient.all().map(|key| format!("patient|{key}")).collect();
        vec![NewDelivery { route: "adt".to_owned(), destination: "record".to_owned(), lanes }]
    }

    fn acknowledge(&self, _: &[NewDelivery], listener: Acknowledge) -> Acknowledge {
        listener
    }
}

pub(super) struct House {
    pub(super) reception: Reception,
    pub(super) journal: Journal,
    room: Arc<Room>,
    pub(super) stop: CancellationToken,
    registry: prometheus::Registry,
    _directory: TempDir,
}

impl House {
    /// As `new`, with other settings.
    pub(super) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings(Unmatched::Accept, Environment::Live);
        change(&mut settings);
        Self::over(settings).await
    }

    async fn new(unmatched: Unmatched, environment: Environment) -> Self {
        Self::over(settings(unmatched, environment)).await
    }

    async fn over(settings: Settings) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&directory.path().join("journal")).await.unwrap();
        let journal = conformance::over(Arc::new(store)).await;
        let registry = prometheus::Registry::new();
        let metrics = Arc::new(Metrics::new(&registry).unwrap());
        let duplicates = Duplicates::new(journal.clone());
        assert!(duplicates.remember(DAY));
        duplicates.recall(Fixed.now()).await.unwrap();
        let stop = CancellationToken::new();
        let room = Arc::new(Room::new(1000, 1 << 20));
        let shared = Shared {
            journal: journal.clone(),
            router: Arc::new(Adt),
            duplicates: Arc::new(duplicates),
            room: room.clone(),
            metrics,
            clock: Arc::new(Fixed),
        };
        let reception = Reception::new(settings, shared, stop.clone());
        Self { reception, journal, room, stop, registry, _directory: directory }
    }

    pub(super) async fn live() -> Self {
        Self::new(Unmatched::Accept, Environment::Live).await
    }

    /// The answer's segments, if there is one.
    pub(super) async fn accept(&self, raw: &[u8]) -> Option<Vec<String>> {
        let answer = self.reception.accept(Bytes::copy_from_slice(raw), &peer()).await.unwrap();
        answer.acknowledgement.map(|answer| lines(&answer))
    }

    pub(super) async fn routed(&self) -> usize {
        self.journal.pending("record", Sequence(0), 1000).await.unwrap().len()
    }

    pub(super) async fn quarantined(&self) -> Vec<Summary> {
        self.journal.quarantine(1000, Sequence(0)).await.unwrap()
    }

    pub(super) fn counted(&self, line: &str) -> bool {
        let mut text = String::new();
        prometheus::TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text).unwrap();
        text.lines().any(|found| found == line)
    }
}

pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

fn settings(unmatched: Unmatched, environment: Environment) -> Settings {
    let listener = "hospital".to_owned();
    // The messages here are of test patients.
    let patients = Arc::new(Patients { test_numbers: Vec::new(), ..Patients::default() });
    let (charset, duplicates) = (encoding_rs::UTF_8, Some(DAY));
    let (acknowledge, patience) = (Acknowledge::Received, Duration::from_secs(10));
    Settings { listener, charset, unmatched, environment, duplicates, patients, acknowledge, patience }
}

pub(super) fn peer() -> Peer {
    Peer("192.0.2.7".to_owned())
}

pub(super) fn lines(answer: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(answer).unwrap();
    text.split('\r').filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

pub(super) const GOOD: &str =
    "MSH|^~\\&|PAS|RXX|TIE|HUB|20260101||ADT^A01|M1|P|2.4\rPID|1||9991001069^^^NHS\r";

/// What comes in, what MSA-1 says (`-` for no answer), where it is kept, and why it is in quarantine.
const TABLE: &[(&str, Unmatched, Environment, &str, &str)] = {
    use Environment::{Live, Test, Training};
    use Unmatched::{Accept, Error, Reject};
    &[
        (GOOD, Reject, Live, "AA", "routed"),
        ("MSH|^~\\&|PAS|RXX|TIE|HUB|20260101||ADT^A01|M1|P\r", Reject, Live, "AA", "routed"),
        ("MSH|^~\\&|PAS|RXX|TIE|HUB|20260101||ADT^A01|M1|P|2\r", Reject, Live, "AA", "routed"),
        (
            "MSH|^~\\&|PAS|RXX|TIE|HUB|20260101||ADT^A01|M1|P|2.5.1^GBR|||AL|NE\r",
            Reject,
            Live,
            "CA",
            "routed",
        ),
        ("MSH|^~\\&|PAS|RXX|TIE|HUB|20260101||ADT^A01|M1|P|2.4|||NE|NE\r", Reject, Live, "-", "routed"),
        (
            "MSH|^~\\&|PAS|RXX|TIE|HUB|20260101||ORU^R01|M1|P|2.4\r",
            Accept,
            Live,
            "AA",
            "no route takes this message",
        ),
        (
            "MSH|^~\\&|PAS|RXX|TIE|HUB|20260101||ORU^R01|M1|P|2.4\r",
            Error,
            Live,
            "AE",
            "no route takes this message",
        ),
        (
            "MSH|^~\\&|PAS|RXX|TIE|HUB|20260101||ORU^R01|M1|P|2.4\r",
            Reject,
            Live,
            "AR",
            "no route takes this message",
        ),
        ("MSH|^~\\&|PAS|RXX|TIE|HUB|20260101||ADT^A01||P|2.4\r", Accept, Live, "AE", "MSH-10 is missing"),
        ("MSH|^~\\&|PAS|RXX|TIE|HUB|20260101||ADT^A01|\"\"|P|2.4\r", Accept, Live, "AE", "MSH-10 is missing"),
        ("MSH|^~\\&|PAS|RXX|TIE|HUB|20260101|||M1|P|2.4\r", Accept, Live, "AE", "MSH-9 is missing"),
        (
            "MSH|^~\\&|PAS|RXX|TIE|HUB|20260101||ADT^A01|M1|P|3.0\r",
            Accept,
            Live,
            "AR",
            "MSH-12 is no version 2 of HL7",
        ),
        (
            "MSH|^~\\&|PAS|RXX|TIE|HUB|20260101||ADT^A01|M1|P|2.x\r",
            Accept,
            Live,
            "AR",
            "MSH-12 is no version 2 of HL7",
        ),
        (
            "MSH|^~\\&|PAS|RXX|TIE|HUB|20260101||ADT^A01|M1|T|2.4\r",
            Accept,
            Live,
            "AR",
            "a test or training message (MSH-11) came to a live system",
        ),
        (
            "MSH|^~\\&|PAS|RXX|TIE|HUB|20260101||ADT^A01|M1|D^T|2.4\r",
            Accept,
            Live,
            "AR",
            "a test or training message (MSH-11) came to a live system",
        ),
        ("MSH|^~\\&|PAS|RXX|TIE|HUB|20260101||ADT^A01|M1||2.4\r", Accept, Live, "AA", "routed"),
        ("MSH|^~\\&|PAS|RXX|TIE|HUB|20260101||ADT^A01|M1|T|2.4\r", Accept, Test, "AA", "routed"),
        ("MSH|^~\\&|PAS|RXX|TIE|HUB|20260101||ADT^A01|M1|P|2.4\r", Accept, Training, "AA", "routed"),
        (
            "MSH|^~\\&|REC|HUB|TIE|HUB|20260101||ACK^A01|M1|P|2.4\rMSA|AA|X\r",
            Reject,
            Live,
            "-",
            "an acknowledgement came where messages are expected",
        ),
        (
            "MSH|^~\\&|REC|HUB|TIE|HUB|20260101||MCF|M1|P|2.4\rMSA|AA|X\r",
            Reject,
            Live,
            "-",
            "an acknowledgement came where messages are expected",
        ),
        ("PID|1||9991001069^^^NHS\r", Accept, Live, "AR", "the message does not begin with an MSH segment"),
        ("\u{0}\u{1}junk", Accept, Live, "AR", "the message does not begin with an MSH segment"),
        ("", Accept, Live, "AR", "nowhere"),
        (" \r\n", Accept, Live, "AR", "nowhere"),
    ]
};

#[tokio::test]
async fn every_input_is_answered_and_kept_as_the_table_says() {
    for (raw, unmatched, environment, code, kept) in TABLE {
        let house = House::new(*unmatched, *environment).await;
        let answer = house.accept(raw.as_bytes()).await;
        let msa = answer.as_ref().map(|lines| lines[1].split('|').nth(1).unwrap());
        assert_eq!(msa.unwrap_or("-"), *code, "{raw:?}");
        let quarantined = house.quarantined().await;
        assert_eq!(house.routed().await, usize::from(*kept == "routed"), "{raw:?}");
        match *kept {
            "routed" | "nowhere" => assert_eq!(quarantined, [], "{raw:?}"),
            reason => {
                assert_eq!(quarantined.len(), 1, "{raw:?}");
                assert_eq!(quarantined[0].quarantine.as_deref(), Some(reason), "{raw:?}");
                let body = house.journal.body(quarantined[0].sequence).await.unwrap().unwrap();
                assert_eq!(body, raw.as_bytes(), "the exact bytes");
                assert!(house.counted("tie_messages_quarantined_total{listener=\"hospital\"} 1"));
                if let Some(lines) = answer.filter(|_| *code != "AA") {
                    assert!(lines.iter().any(|line| line.contains(reason)), "{lines:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn p1_an_accepted_message_is_in_the_journal_with_its_keys_and_lanes() {
    let house = House::live().await;
    let raw = "MSH|^~\\&|PAS^1|RXX^2|TIE|HUB|20260101||ADT^A40^ADT_A39|M7|P|2.4\rPID|1||9991001069^^^NHS~7^^^RXX^MR\rMRG|8^^^RXX^MR\r";
    let answer = house.accept(raw.as_bytes()).await.unwrap();
    assert!(answer[0].starts_with("MSH|^~\\&|TIE|HUB|PAS^1|RXX^2|"), "{answer:?}");
    assert!(answer[1].starts_with("MSA|AA|M7"), "{answer:?}");
    let pending = house.journal.pending("record", Sequence(0), 9).await.unwrap();
    assert_eq!(pending[0].lanes, ["patient|nhs|9991001069", "patient|rxx|7", "patient|rxx|8"]);
    assert_eq!(pending[0].received, Fixed.now());
    let kept = house.journal.message(pending[0].id.sequence).await.unwrap().unwrap();
    assert_eq!((kept.keys.control_id.as_str(), kept.keys.trigger.as_str()), ("M7", "ADT^A40"));
    assert_eq!((kept.keys.sending_application.as_str(), kept.keys.sending_facility.as_str()), ("PAS", "RXX"));
    assert_eq!((kept.keys.patient.as_str(), kept.peer.as_str()), ("nhs|9991001069", "192.0.2.7"));
    assert_eq!(house.journal.body(kept.sequence).await.unwrap().unwrap(), raw.as_bytes());
    assert!(house.counted("tie_acknowledgements_total{code=\"AA\",listener=\"hospital\"} 1"));
}

#[tokio::test]
async fn h11_test_patients_and_test_messages_do_not_get_into_a_live_record() {
    let test = |message: &str| message.replace("|P|2.4", "|T|2.4");
    let merge = GOOD.replace("ADT^A01", "ADT^A40").replace("9991001069^^^NHS", "9434765919^^^NHS^NH")
        + "MRG|9991001069^^^NHS\r";
    let real = GOOD.replace("9991001069", "9434765919");
    for (message, environment, numbers, word) in [
        (GOOD.to_owned(), Environment::Live, &["999"][..], "test_patient"),
        (merge, Environment::Live, &["999"], "test_patient"),
        (real.clone(), Environment::Live, &["999", "94347"], "test_patient"),
        // In every word that the mappings know, too.
        (GOOD.replace("^^^NHS", "^^^NHSNMBR"), Environment::Live, &["999"], "test_patient"),
        (GOOD.replace("^^^NHS", "^^^RXX^NHSNBR"), Environment::Live, &["999"], "test_patient"),
        (test(&real), Environment::Live, &["999"], "environment"),
        (real, Environment::Live, &["999"], ""),
        (GOOD.to_owned(), Environment::Live, &[], ""),
        (GOOD.to_owned(), Environment::Test, &["999"], ""),
        (GOOD.to_owned(), Environment::Training, &["999"], ""),
    ] {
        let house = House::with(|settings| {
            let test_numbers = numbers.iter().map(|number| (*number).to_owned()).collect();
            settings.environment = environment;
            settings.patients = Arc::new(Patients { test_numbers, ..Patients::default() });
        })
        .await;
        let answer = house.accept(message.as_bytes()).await.unwrap();
        let refused = !word.is_empty();
        assert!(answer[1].starts_with(if refused { "MSA|AR|M1" } else { "MSA|AA|M1" }), "{answer:?}");
        assert!(!refused || answer[1].contains("came to a live system"), "{answer:?}");
        assert_eq!(
            (house.routed().await, house.quarantined().await.len()),
            (usize::from(!refused), usize::from(refused))
        );
        if refused {
            assert!(
                house.counted(&format!("tie_refusals_total{{listener=\"hospital\",reason=\"{word}\"}} 1"))
            );
        }
    }
}

#[tokio::test]
async fn p4_a_merge_that_cannot_be_done_is_refused_with_a_reason() {
    let house = House::live().await;
    let merge = "MSH|^~\\&|PAS|RXX|TIE|HUB|20260101||ADT^A40|M7|P|2.4\rPID|1||7^^^RXX^MR\rMRG|7^^^RXX^MR\r";
    let answer = house.accept(merge.as_bytes()).await.unwrap();
    assert!(answer[1].starts_with("MSA|AE|M7|a patient is to be merged with himself"), "{answer:?}");
    assert_eq!((house.routed().await, house.quarantined().await.len()), (0, 1));
    let without = merge.replace("MRG|7^^^RXX^MR\r", "").replace("|M7|", "|M8|");
    assert!(house.accept(without.as_bytes()).await.unwrap()[1].starts_with("MSA|AA|M8"));
    let taken = house.journal.pending("record", Sequence(0), 9).await.unwrap().remove(0);
    assert_eq!(taken.lanes, ["patient|rxx|7"]);
    let flag = house.journal.message(taken.id.sequence).await.unwrap().unwrap().flag.unwrap();
    assert!(flag.starts_with("a merge or move without the old identity (MRG)"), "{flag}");
}

#[tokio::test]
async fn p6_on_a_disk_that_is_nearly_full_nothing_is_taken_until_there_is_room() {
    let house = House::live().await;
    house.room.look(999);
    let answer = house.accept(GOOD.as_bytes()).await.unwrap();
    assert!(answer[1].starts_with("MSA|AR|M1|the engine's disk is nearly full"), "{answer:?}");
    assert!(house.counted("tie_refusals_total{listener=\"hospital\",reason=\"disk_full\"} 1"));
    let head = Bytes::from_static(GOOD.as_bytes());
    house
        .reception
        .refuse(head, Refusal::TooLarge { limit_bytes: 9 }, &peer())
        .await
        .acknowledgement
        .unwrap();
    assert_eq!((house.routed().await, house.quarantined().await.len()), (0, 0));
    // What was taken before is still finished.
    house.room.look(5000);
    assert!(house.accept(GOOD.as_bytes()).await.unwrap()[1].starts_with("MSA|AA|M1"));
    house.room.look(999);
    let owed = house.journal.pending("record", Sequence(0), 9).await.unwrap().remove(0);
    house.journal.record(conformance::outcome(&owed.id, crate::journal::State::Delivered, 1)).await.unwrap();
    assert_eq!(house.routed().await, 0);
}

#[tokio::test]
async fn own_control_ids_differ() {
    let house = House::live().await;
    let id = |answer: Option<Vec<String>>| answer.unwrap()[0].split('|').nth(9).unwrap().to_owned();
    let first = id(house.accept(GOOD.as_bytes()).await);
    let second = id(house.accept(GOOD.as_bytes()).await);
    assert!(!first.is_empty() && first != second);
}

pub(super) fn batch(messages: &[&str], trailer: &str) -> Vec<u8> {
    format!("FHS|^~\\&|PAS\rBHS|^~\\&|PAS\r{}{trailer}", messages.concat()).into_bytes()
}

pub(super) fn numbered(trigger: &str, id: &str) -> String {
    format!("MSH|^~\\&|PAS|RXX|TIE|HUB|20260101||{trigger}|{id}|P|2.4\rPID|1||{id}X^^^RXX^MR\r")
}

#[tokio::test]
async fn p1_a_closed_journal_acknowledges_nothing() {
    let house = House::live().await;
    house.journal.close().await;
    let closed = house.reception.accept(Bytes::from_static(GOOD.as_bytes()), &peer()).await;
    assert_eq!(closed, Err(IntakeClosed));
    let answer =
        house.reception.refuse(Bytes::new(), Refusal::NotFramed, &peer()).await.acknowledgement.unwrap();
    assert!(lines(&answer)[1].starts_with("MSA|AR|"));
}
