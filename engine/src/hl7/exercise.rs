//! Everything that reads bytes from outside, in one call: for the fuzz target and for the mutation test.
//!
//! Promise:  panics exactly when a promise of this room is broken.

#![allow(clippy::panic, clippy::expect_used)] // that is what it is for

use bytes::{Bytes, BytesMut};
use jiff::{Timestamp, tz::TimeZone};

use super::{Message, ack, batch, dictionary, edit::Draft, escape, framing, time};

/// Takes bytes through framing, batches, index, values, escapes, times, groups, edits and acknowledgements.
///
/// # Panics
/// When a promise is broken; see the messages of the checks.
pub fn exercise(data: &[u8]) {
    let (mut scanner, mut buffer) = (framing::Scanner::new(data.len() / 2 + 16), BytesMut::from(data));
    while scanner.scan(&mut buffer).is_some() {}
    let raw = Bytes::copy_from_slice(data);
    for message in batch::split(&raw).messages.into_iter().chain([raw.clone()]) {
        if let Ok(message) = Message::parse(message, encoding_rs::WINDOWS_1252) {
            read(&message);
        }
    }
    let reason = ack::Reason::new(ack::ErrorCode::Internal, "text");
    for verdict in [ack::Verdict::Accepted, ack::Verdict::Rejected(reason)] {
        if let Some(answer) = ack::acknowledge(data, &verdict, Timestamp::UNIX_EPOCH, "1") {
            let read_back = Message::parse(answer.bytes.clone(), encoding_rs::WINDOWS_1252);
            let read_back = read_back.expect("an acknowledgement is a message");
            assert!(ack::is_acknowledgement(read_back.raw()), "an acknowledgement is known as one");
            assert!(framing::frame(&answer.bytes).is_ok(), "an acknowledgement can be framed");
        }
    }
}

fn read(message: &Message) {
    let zone = TimeZone::UTC;
    let mut covered = 0;
    for segment in message.segments() {
        covered += segment.raw().len();
        let version = message.version();
        for n in 0..=segment.len().min(200) + 1 {
            for value in segment.repetitions(n) {
                let Some(part) = value.part() else { continue };
                let text = part.text();
                let encoded = escape::encode(&text, message.separators());
                if message.separators().escape.is_some() {
                    assert_eq!(
                        escape::decode(&encoded, message.separators()),
                        text,
                        "what is encoded is decoded"
                    );
                }
                if let Ok(time) = time::parse(&text, &zone) {
                    assert!(!time.date_time().is_empty(), "a time has a text");
                }
                part.components().chain(part.subcomponents()).for_each(|one| drop(one.text()));
            }
            dictionary::field(Some(&version), segment.name(), n);
        }
    }
    let odd: usize = message.oddities().iter().map(|odd| odd.end - odd.start).sum();
    let breaks = message.text().bytes().filter(|byte| matches!(byte, b'\r' | b'\n')).count();
    let marks = message.text().chars().take_while(|c| *c == '\u{FEFF}').map(char::len_utf8).sum::<usize>();
    assert!(
        covered + odd + breaks + marks >= message.text().len(),
        "every byte is in a segment, an oddity or a line end"
    );
    let printed = Draft::of(message).print().expect("what is not changed can be printed");
    assert_eq!(&printed, message.raw(), "parse and print are the identity");
    assert_eq!(count(&message.groups()), message.segments().len(), "every segment is in one group");
}

fn count(group: &super::groups::Group<'_>) -> usize {
    group.segments.len() + group.groups.iter().map(count).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small generator of our own: the same mutations in every run.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % (sides.max(1) as u64)).unwrap()
        }
    }

    #[test]
    fn four_thousand_mutations_break_no_promise() {
        let seeds: [&[u8]; 4] = [
            b"MSH|^~\\&|A|B|C|D|20260101||ADT^A01^ADT_A01|1|P|2.4|||AL|NE||8859/1\rEVN|A01\rPID|1||1^^^X&1&ISO~2|\\F\\a\\X41\\\rOBX|1|TX|||a\nb\r",
            b"\x0bMSH|^~\\&#|A|B|C|D|20260101||ORU^R01^ORU_R01|1|P|2.8\rPID|1\rORC|1\rOBR|1\rNTE|1\rOBX|1|NM|||\"\"\rSPM|1\r\x1c\r",
            b"FHS|^~\\&\rBHS|^~\\&\rMSH|^~\\&|A\nPID|2\nMSH$%*!@$B\nBTS|2\rFTS|1\r",
            b"MSH|^~\\&||||||||||||||||ISO IR87\rPID|\x1B$B;3ED\x1B(B|2026-01-01 24:00|19450000+\r",
        ];
        let pieces: [&[u8]; 14] = [
            b"\r",
            b"\n",
            b"|",
            b"^",
            b"~",
            b"\\",
            b"&",
            b"\"\"",
            b"MSH",
            b"\x0b",
            b"\x1c",
            b"\0",
            b"\xff",
            "日".as_bytes(),
        ];
        let mut dice = Dice(0x5EED_5EED_5EED_5EED);
        for round in 0..4000 {
            let mut data = seeds[round % seeds.len()].to_vec();
            for _ in 0..=dice.roll(6) {
                let at = dice.roll(data.len());
                match dice.roll(4) {
                    0 => data.truncate(at),
                    1 => drop(data.splice(at..at, pieces[dice.roll(pieces.len())].iter().copied())),
                    2 => drop(data.drain(at..(at + dice.roll(8)).min(data.len()))),
                    _ => data.iter_mut().skip(at).take(1).for_each(|byte| *byte = (round % 251) as u8),
                }
            }
            exercise(&data);
        }
    }
}
