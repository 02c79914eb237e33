//! Tests of [`Message`] and its index: what is read, and what is odd.

use super::*;
use proptest::prelude::*;

fn message(raw: impl AsRef<[u8]>) -> Message {
    Message::parse(Bytes::copy_from_slice(raw.as_ref()), encoding_rs::WINDOWS_1252).unwrap()
}

fn refused(raw: impl AsRef<[u8]>) -> ParseError {
    Message::parse(Bytes::copy_from_slice(raw.as_ref()), encoding_rs::WINDOWS_1252).unwrap_err()
}

fn text(message: &Message, path: &str) -> Option<String> {
    message.get(&Path::parse(path).unwrap()).text().map(Cow::into_owned)
}

fn names(message: &Message) -> String {
    message.segments().map(|segment| segment.name().to_owned()).collect::<Vec<_>>().join(" ")
}

fn faults(message: &Message) -> Vec<(Fault, &str)> {
    message
        .oddities()
        .iter()
        .map(|odd| (odd.fault, message.text().get(odd.start..odd.end).unwrap()))
        .collect()
}

const ADT: &str = "MSH|^~\\&|APP^1.2&x^ISO|FAC|||20260101||ADT^A01^ADT_A01|ID1|P|2.4\rPID|1||A1^^^RXX^PI~999^^^NHS&2.16&ISO^NH||SM\\T\\ITH^JOHN|\"\"|\rOBX|1|NM|K||5\rOBX|2|ST|N||x~y";

#[test]
fn paths_reach_every_level() {
    let message = message(ADT);
    assert_eq!(names(&message), "MSH PID OBX OBX");
    for (path, expected) in [
        ("MSH-1", Some("|")),
        ("MSH-2", Some("^~\\&")),
        ("MSH-3", Some("APP")),
        ("MSH-3.2", Some("1.2")),
        ("MSH-3.2.2", Some("x")),
        ("MSH-12", Some("2.4")),
        ("MSH-13", None),
        ("PID-3", Some("A1")),
        ("PID-3[2].4.2", Some("2.16")),
        ("PID-3[2].4.3", Some("ISO")),
        ("PID-3[3]", None),
        ("PID-5", Some("SM&ITH")),
        ("PID-7", None),
        ("PID-60000", None),
        ("OBX(2)-5[2]", Some("y")),
        ("OBX(3)-5", None),
        ("ZZZ-1", None),
    ] {
        assert_eq!(text(&message, path).as_deref(), expected, "{path}");
    }
    assert!(message.get(&Path::parse("PID-6").unwrap()).is_null());
    assert!(message.get(&Path::parse("PID-6.2").unwrap()).is_null());
    let all: Vec<_> = message.all(&Path::parse("PID-3.1").unwrap()).map(|one| one.text().unwrap()).collect();
    assert_eq!(all, ["A1", "999"]);
    assert_eq!(message.all(&Path::parse("PID-2").unwrap()).count(), 0);
    assert_eq!(message.get(&Path::parse("OBX").unwrap()).part().unwrap().raw(), "OBX|1|NM|K||5");
    assert_eq!(message.trigger().to_string(), "ADT^A01");
    assert_eq!(message.trigger().structure, "ADT_A01");
    assert_eq!(message.control_id(), "ID1");
    assert_eq!(message.segments_named("OBX").map(Segment::number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(message.segment("MSH").unwrap().len(), 12);
    assert_eq!(message.segment("PID").unwrap().len(), 7);
    assert!(faults(&message).is_empty());
}

#[test]
fn every_line_end_gives_the_same_segments() {
    for end in ["\r", "\n", "\r\n", "\r\r", "\n\n", "\r\n\r\n"] {
        let message = message(ADT.replace('\r', end) + end);
        assert_eq!(names(&message), "MSH PID OBX OBX", "{end:?}");
        assert_eq!(text(&message, "OBX(2)-5[2]").as_deref(), Some("y"));
        assert!(faults(&message).is_empty(), "{end:?}");
    }
}

#[test]
fn junk_around_the_message_is_tolerated_and_told() {
    let mail = message(format!("\u{0B}\r\n {ADT}\r\u{1C}\r\0\0"));
    assert_eq!(names(&mail), "MSH PID OBX OBX");
    assert_eq!(
        faults(&mail).iter().map(|(fault, _)| *fault).collect::<Vec<_>>(),
        [Fault::Trailing, Fault::Leading]
    );
    let marked = message(format!("\u{FEFF}{ADT}"));
    assert_eq!(names(&marked), "MSH PID OBX OBX");
    assert!(faults(&marked).is_empty());
}

#[test]
fn a_line_that_is_no_segment_hides_nothing() {
    let message = message("MSH|^~\\&|A\r\rpid|1\rhello\rPIDX|2\rP\rPID\rZ01|3\rMSH|^~\\&|B");
    assert_eq!(names(&message), "MSH PID Z01 MSH");
    assert_eq!(
        faults(&message),
        [
            (Fault::NotASegment, "pid|1"),
            (Fault::NotASegment, "hello"),
            (Fault::NotASegment, "PIDX|2"),
            (Fault::NotASegment, "P"),
            (Fault::SecondHeader, "MSH|^~\\&|B"),
        ]
    );
}

#[test]
fn h5_the_text_of_a_result_goes_on_over_broken_lines() {
    for broken in ["\r", "\n", "\r\n", "\r\n\r\n"] {
        let raw = format!(
            "MSH|^~\\&|A{broken}OBX|1|TX|A||one{broken}two: malignant||||||F{broken}NTE|1||a{broken}b{broken}ZZZ|1"
        );
        let message = message(&raw);
        assert_eq!(names(&message), "MSH OBX NTE ZZZ", "{broken:?}");
        assert_eq!(text(&message, "OBX-5"), Some(format!("one{broken}two: malignant")));
        assert_eq!(text(&message, "OBX-11").as_deref(), Some("F"));
        assert_eq!(text(&message, "NTE-3"), Some(format!("a{broken}b")));
        assert!(faults(&message).iter().all(|(fault, _)| *fault == Fault::BreakInField));
    }
    let indented = message("MSH|^~\\&|A\r OBR|1\r \tOBX|1|ST|K||5\r x");
    assert_eq!(
        (names(&indented), text(&indented, "OBX-3").as_deref()),
        ("MSH OBR OBX".to_owned(), Some("K"))
    );
    assert_eq!(text(&indented, "OBX-5").as_deref(), Some("5\r x"));
    let words = message(
        "MSH|^~\\&|A\rOBX|1|TX|K||Result:\rPOS\r  CSF\r  WBC| 12||||||F\rOBX|2|NM|K||5\r-- end --\robx|3",
    );
    assert_eq!(text(&words, "OBX-5").as_deref(), Some("Result:\rPOS\r  CSF\r  WBC"));
    assert_eq!(words.segments_named("OBX").nth(1).and_then(|obx| obx.field(5).text()).as_deref(), Some("5"));
    assert_eq!(faults(&words)[3..], [(Fault::NotASegment, "-- end --"), (Fault::NotASegment, "obx|3")]);
    let message = message("MSH|^~\\&|A\rOBX|1|TX|A||one||||||F\rlost\rPV1|1\rlost");
    assert_eq!(faults(&message), [(Fault::NotASegment, "lost"), (Fault::NotASegment, "lost")]);
}

#[test]
fn a_forgotten_line_feed_is_text_where_segments_end_with_cr() {
    let message = message("MSH|^~\\&|A\rOBX|1|TX|||line one\nline|two\nEND\n\rNTE|1||x\nOBX|2\n");
    assert_eq!(names(&message), "MSH OBX NTE OBX");
    assert_eq!(text(&message, "OBX-5").as_deref(), Some("line one\nline"));
    assert_eq!(text(&message, "OBX-6").as_deref(), Some("two\nEND"));
    assert_eq!(faults(&message), [(Fault::BreakInField, "\n"), (Fault::BreakInField, "\n")]);
}

#[test]
fn what_is_no_message_is_refused_with_a_reason() {
    assert_eq!(refused(""), ParseError::Empty);
    assert_eq!(refused(" \r\n\0"), ParseError::Empty);
    assert_eq!(refused("hello"), ParseError::NoHeader);
    assert_eq!(refused("MS"), ParseError::NoHeader);
    assert_eq!(refused("PID|1"), ParseError::NoHeader);
    assert_eq!(refused("BHS|^~\\&|"), ParseError::Batch);
    assert_eq!(refused("MSH|"), ParseError::Separators("MSH-2 has fewer than two separators"));
}

#[test]
fn custom_separators_and_three_characters() {
    let custom = message("MSH$%*!@$APP$FAC\rPID$1$$A%B@C*D!F!E");
    assert_eq!(text(&custom, "PID-3.2.2").as_deref(), Some("C"));
    assert_eq!(text(&custom, "PID-3[2]").as_deref(), Some("D$E"));
    assert_eq!(text(&custom, "MSH-3").as_deref(), Some("APP"));
    let three = message("MSH|^~\\|APP\rPID|1|A&B^C");
    assert_eq!(text(&three, "PID-2").as_deref(), Some("A&B"));
}

#[test]
fn the_character_set_is_found_before_the_structure() {
    let mut raw = b"MSH|^~\\&||||||||||||||||Shift_JIS\rPID|1|".to_vec();
    raw.extend(b"\x83\x7C\x83\x5E");
    let decoded = message(&raw);
    assert_eq!(text(&decoded, "PID-2").as_deref(), Some("ポタ"));
    assert_eq!(decoded.charset().name, "Shift_JIS");
    assert_eq!(decoded.raw().as_ref(), raw);
}

#[test]
fn debug_keeps_the_secret() {
    assert_eq!(format!("{:?}", message(ADT)), format!("Message(ADT^A01, {} bytes, 4 segments)", ADT.len()));
    assert_eq!(format!("{:?}", message(ADT).segment("PID")), "Some(Segment(PID at 1))");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_every_byte_is_accounted_for(tail in "(\\PC|[|^~\\\\&\r\n\u{0}\u{1c}A-Z0-9]){0,200}") {
        let raw = format!("MSH|^~\\&|{tail}");
        let message = message(&raw);
        prop_assert_eq!(message.raw().as_ref(), raw.as_bytes());
        let mut covered = vec![false; raw.len()];
        let odd = message.oddities().iter().map(|odd| odd.start..odd.end);
        for place in message.segments().map(Segment::range).chain(odd).flatten() {
            covered[place] = true;
        }
        for (byte, covered) in raw.bytes().zip(covered) {
            prop_assert!(covered || matches!(byte, b'\r' | b'\n'), "{:?}", raw);
        }
    }

    #[test]
    fn fields_join_to_their_segment(tail in "[A-Z0-9|^~&\r]{0,200}") {
        let message = message(format!("MSH|^~\\&|{tail}"));
        for segment in message.segments() {
            let from = usize::from(segment.name() == "MSH") + 1;
            let mut whole = segment.name().to_owned();
            for n in from..=segment.len() {
                whole = format!("{whole}|{}", segment.raw_field(n));
                let repetitions: Vec<_> = segment.repetitions(n).collect();
                let first = segment.field(n);
                prop_assert_eq!(first.is_absent(), repetitions.first().is_none_or(|one| one.is_absent()));
            }
            prop_assert_eq!(whole, segment.raw());
        }
    }
}

#[test]
fn a_trigger_is_read_however_it_is_written() {
    for (sent, evn, meant) in [
        ("ADT^A01^ADT_A01", "", "ADT^A01"),
        ("oru^r01", "", "ORU^R01"),
        ("ORU ^R01", "", "ORU^R01"),
        ("ORU_R01", "", "ORU^R01"),
        ("^^ORU_R01", "", "ORU^R01"),
        ("ADT^ADT_A08", "", "ADT^A08"),
        ("ADT", "A01", "ADT^A01"),
        ("^^ADT_A01", "A08", "ADT^A08"),
        ("^^ADT_A01", "", ""),
        ("SIU_S12", "", "SIU_S12"),
        ("ADT^A04", "A01", "ADT^A04"),
        ("ACK", "", "ACK"),
        ("", "", ""),
    ] {
        let raw = format!("MSH|^~\\&|A|B|||20260101||{sent}|1|P|2.4\rEVN|{evn}\r");
        assert_eq!(message(&raw).trigger().to_string(), meant, "{sent}");
    }
}

#[test]
fn p7_what_was_not_read_is_told() {
    let doubts = |segments: &str, charset: &str| {
        let raw = format!("MSH|^~\\&|A|B|||20260101||ORU^R01|1|P|2.4||||||{charset}\r{segments}");
        message(&raw).doubts().collect::<Vec<_>>().join("; ")
    };
    assert_eq!(doubts("OBX|1|TX|A||caf\u{e9}\r", "UNICODE UTF-8"), "");
    assert_eq!(doubts("PV1|1|I\rlost\r", ""), "a line is no segment: it was not read");
    assert_eq!(doubts("OBX|1|TX|A||one\rtwo\r", ""), "");
    let twice = "there is a second MSH segment: all of it was read as one message";
    assert_eq!(doubts("MSH|^~\\&|A\r", ""), twice);
    assert_eq!(
        doubts("OBX|1|TX|A||caf\u{e9}\r", "8859/1"),
        "MSH-18 names another set, but the bytes are UTF-8 and were read as such"
    );
}
