//! Every message of the corpus, if it is there: accepted or refused with a reason, none cut short, none a panic.
//!
//! The corpus is other people's messages and no part of this project. It is looked for at `../shared/data/messages`
//! beside the checkout, or where `TIE_CORPUS` says; without it this test says so and passes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

use std::{
    collections::BTreeMap,
    path::{Path as FilePath, PathBuf},
};

use bytes::Bytes;
use jiff::Timestamp;
use tie_engine::hl7::{Fault, Message, ack, batch, edit::Draft};

/// The folder, or none with a word about it.
fn corpus() -> Option<PathBuf> {
    let beside = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/messages");
    let folder = std::env::var_os("TIE_CORPUS").map_or(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("NOT TESTED: there is no corpus at {}; set TIE_CORPUS to test with one", folder.display());
    None
}

fn files(folder: &FilePath, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "hl7") {
            found.push(path);
        }
    }
}

/// Lines that look like segments, counted without our index: three capitals or digits and a separator. In messages
/// whose segments end with CR such a line may also follow an LF.
fn segments_in(text: &str, separator: char) -> usize {
    let looks = |line: &&str| {
        let mut letters = line.chars();
        let name: String = letters.by_ref().take(3).collect();
        let named = name.len() == 3
            && name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
        named && letters.next() == Some(separator)
    };
    text.split(['\r', '\n']).filter(looks).count()
}

#[test]
fn every_message_of_the_corpus_is_read_whole_or_refused_with_a_reason() {
    let Some(folder) = corpus() else { return };
    let mut paths = Vec::new();
    files(&folder, &mut paths);
    let (mut accepted, mut refused) = (0, BTreeMap::<String, usize>::new());
    let (mut compared, mut odd) = (0, BTreeMap::<String, usize>::new());
    for path in &paths {
        let raw = Bytes::from(std::fs::read(path).unwrap());
        let split = batch::split(&raw);
        let messages = if split.messages.is_empty() { vec![raw.clone()] } else { split.messages };
        for raw in messages {
            match Message::parse(raw.clone(), encoding_rs::WINDOWS_1252) {
                Ok(message) => {
                    accepted += 1;
                    check(path, &message);
                    compared += usize::from(agrees(path, &message));
                    for oddity in message.oddities() {
                        *odd.entry(oddity.fault.to_string()).or_default() += 1;
                    }
                }
                Err(error) => *refused.entry(error.to_string()).or_default() += 1,
            }
            let verdict = ack::Verdict::Accepted;
            if let Some(answer) = ack::acknowledge(&raw, &verdict, Timestamp::UNIX_EPOCH, "1") {
                Message::parse(answer.bytes, encoding_rs::WINDOWS_1252)
                    .expect("an acknowledgement is a message");
            }
        }
    }
    println!("{} files: {accepted} messages read, refused {refused:?}, odd {odd:?}", paths.len());
    println!("{compared} messages compared with hl7-parser field by field");
    assert!(accepted > 0, "the corpus is empty");
    assert!(compared * 2 > accepted, "hl7-parser reads most of the corpus");
}

fn check(path: &FilePath, message: &Message) {
    let place = path.display();
    assert_eq!(&Draft::of(message).print().unwrap(), message.raw(), "{place}: parse and print");
    let separator = char::from(message.separators().field);
    let seen = message.segments().filter(|segment| !segment.is_empty()).count();
    assert_eq!(seen, segments_in(message.text(), separator), "{place}: all segments are seen");
    let mut covered = vec![false; message.text().len()];
    let odd = message.oddities().iter().map(|odd| odd.start..odd.end);
    for byte in message.segments().map(|segment| segment.range()).chain(odd).flatten() {
        covered[byte] = true;
    }
    for (at, byte) in message.text().bytes().enumerate() {
        let mark = at < 3 && message.text().starts_with('\u{FEFF}');
        assert!(covered[at] || mark || matches!(byte, b'\r' | b'\n'), "{place}: byte {at} is nowhere");
    }
}

/// Compares every component with hl7-parser, where that is sound; whether it could be.
fn agrees(path: &FilePath, message: &Message) -> bool {
    // It ends at a line that is no segment, and takes an LF in a field for the end of a segment.
    let plain = message.oddities().iter().all(|odd| odd.fault == Fault::SecondHeader);
    if !plain || message.separators().escape.is_none() || message.separators().subcomponent.is_none() {
        return false;
    }
    // It takes the fifth character of MSH-2 for MSH-3, and does not know of a doubled escape.
    let declared = message.segment("MSH").unwrap().raw_field(2).len();
    let truncation = message.separators().truncation.is_some();
    if declared != 4 + usize::from(truncation) {
        return false;
    }
    let text = message.segments().map(|segment| segment.raw()).collect::<Vec<_>>().join("\r");
    let Ok(theirs) = hl7_parser::Message::parse(&text) else { return false };
    if theirs.raw_value().len() != text.len() || theirs.segments().count() != message.segments().len() {
        return false;
    }
    for (ours, theirs) in message.segments().zip(theirs.segments()) {
        assert_eq!(ours.name(), theirs.name, "{}", path.display());
        for (n, field) in theirs.fields().enumerate().map(|(n, field)| (n + 1, field)) {
            // It numbers FHS and BHS as if they were no headers.
            let header = matches!(theirs.name, "FHS" | "BHS");
            if header || theirs.name == "MSH" && (n <= 2 || truncation || ours.index() > 0) {
                continue;
            }
            assert_eq!(ours.raw_field(n), field.raw_value(), "{}: {}-{n}", path.display(), ours.name());
            for (r, repeat) in field.repeats().enumerate() {
                let value = ours.repetition(n, r + 1);
                for (c, component) in repeat.components().enumerate() {
                    let raw = value.component(c + 1).part().map_or("", |part| part.raw());
                    let expected = component.raw_value();
                    // What holds only separators, or is null, has no part.
                    let content = expected != "\"\""
                        && repeat.raw_value() != "\"\""
                        && expected.chars().any(|one| one != '&');
                    assert_eq!(
                        raw,
                        if content { expected } else { "" },
                        "{}: {}-{n}.{}",
                        path.display(),
                        ours.name(),
                        c + 1
                    );
                }
            }
        }
    }
    true
}
