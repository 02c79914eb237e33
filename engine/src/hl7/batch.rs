//! Batches: a file of messages between FHS/BHS and BTS/FTS, split into its messages.
//!
//! Promise:  every message comes out as its exact bytes; counts that the trailers state are checked; what is neither
//!           message nor envelope is told. A lone message is a batch of one.
//! Source:   HL7 v2.8.2 chapter 2.10.3.

use bytes::Bytes;
use memchr::{memchr2, memchr2_iter};

use super::Separators;

/// What a file or frame holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Its messages, in order.
    pub messages: Vec<Bytes>,
    /// The FHS, BHS, BTS and FTS segments, in order.
    pub envelope: Vec<Bytes>,
    /// What is wrong with the envelope.
    pub faults: Vec<BatchFault>,
}

/// What can be wrong with a batch. Its messages come out nevertheless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchFault {
    /// BTS-1 states another number of messages.
    #[error("the batch trailer states {stated} messages, and there are {found}")]
    Messages {
        /// By BTS-1.
        stated: usize,
        /// As counted.
        found: usize,
    },
    /// FTS-1 states another number of batches.
    #[error("the file trailer states {stated} batches, and there are {found}")]
    Batches {
        /// By FTS-1.
        stated: usize,
        /// As counted.
        found: usize,
    },
    /// A header without its trailer: the file may have been cut.
    #[error("the file or batch has no trailer")]
    NoTrailer,
    /// Bytes that belong to no message.
    #[error("{bytes} bytes belong to no message")]
    Stray {
        /// How many.
        bytes: usize,
    },
}

/// Whether the bytes begin with FHS or BHS.
pub fn is_batch(raw: &[u8]) -> bool {
    let start =
        raw.iter().position(|byte| !matches!(byte, b' ' | b'\r' | b'\n' | 0x0B | 0 | 0xEF | 0xBB | 0xBF));
    let rest = start.and_then(|start| raw.get(start..)).unwrap_or_default();
    rest.starts_with(b"FHS") || rest.starts_with(b"BHS")
}

/// Splits a file into its messages.
pub fn split(raw: &Bytes) -> Batch {
    let mut splitter = Splitter::default();
    let marks = marks(raw);
    let first = marks.first().map_or(raw.len(), |mark| mark.at);
    splitter.stray(raw.get(..first).unwrap_or_default());
    for (index, mark) in marks.iter().enumerate() {
        let end = marks.get(index + 1).map_or(raw.len(), |next| next.at);
        splitter.take(raw.slice(mark.at..end), mark.name);
    }
    splitter.finish()
}

struct Mark {
    at: usize,
    name: [u8; 3],
}

/// Where lines begin with the name of a header or trailer and a separator or nothing.
fn marks(raw: &[u8]) -> Vec<Mark> {
    let starts = std::iter::once(0).chain(memchr2_iter(b'\r', b'\n', raw).map(|at| at + 1));
    let mut enveloped = false;
    let marks = starts.filter_map(|at| mark(raw, at)).filter(|mark| match &mark.name {
        b"MSH" => true,
        b"FHS" | b"BHS" => {
            enveloped = true;
            true
        }
        // A trailer of nothing is a line of the message that it stands in.
        _ => enveloped,
    });
    marks.collect()
}

fn mark(raw: &[u8], start: usize) -> Option<Mark> {
    let line = raw.get(start..)?;
    let junk = line.iter().take_while(|byte| matches!(byte, b' ' | 0x0B | 0 | 0xEF | 0xBB | 0xBF)).count();
    let at = start + junk;
    let (name, rest) = raw.get(at..)?.split_first_chunk::<3>()?;
    let known = [b"MSH", b"FHS", b"BHS", b"BTS", b"FTS"].contains(&name);
    let ends = rest.first().is_none_or(|byte| !byte.is_ascii_alphanumeric());
    // A header without separators begins nothing: it is a line of the message that it stands in.
    let trailer = matches!(name, b"BTS" | b"FTS");
    let header = trailer || Separators::parse(rest).is_ok();
    (known && ends && header).then_some(Mark { at, name: *name })
}

#[derive(Default)]
struct Splitter {
    batch: Batch,
    separator: u8,
    /// Messages since the last BHS.
    messages: usize,
    batches: usize,
    open: usize,
}

impl Splitter {
    fn take(&mut self, piece: Bytes, name: [u8; 3]) {
        if &name == b"MSH" {
            self.messages += 1;
            self.batch.messages.push(piece);
            return;
        }
        let end = memchr2(b'\r', b'\n', &piece).unwrap_or(piece.len());
        let line = piece.slice(..end);
        self.stray(piece.get(end..).unwrap_or_default());
        match &name {
            b"FHS" | b"BHS" => {
                self.separator = line.get(3).copied().unwrap_or(b'|');
                self.open += 1;
                if &name == b"BHS" {
                    self.messages = 0;
                    self.batches += 1;
                }
            }
            trailer => self.close(&line, trailer == b"BTS"),
        }
        self.batch.envelope.push(line);
    }

    fn close(&mut self, line: &[u8], batch: bool) {
        self.open = self.open.saturating_sub(1);
        let field = line.split(|byte| *byte == self.separator).nth(1).unwrap_or_default();
        let stated = std::str::from_utf8(field).ok().and_then(|field| field.trim().parse::<usize>().ok());
        let found = if batch { self.messages } else { self.batches };
        if let Some(stated) = stated.filter(|stated| *stated != found) {
            self.batch.faults.push(if batch {
                BatchFault::Messages { stated, found }
            } else {
                BatchFault::Batches { stated, found }
            });
        }
    }

    fn stray(&mut self, bytes: &[u8]) {
        let meant = |byte: &&u8| !matches!(byte, b' ' | b'\r' | b'\n' | 0x0B | 0x1C | 0 | 0xEF | 0xBB | 0xBF);
        if bytes.iter().any(|byte| meant(&byte)) {
            self.batch.faults.push(BatchFault::Stray { bytes: bytes.len() });
        }
    }

    fn finish(mut self) -> Batch {
        if self.open > 0 {
            self.batch.faults.push(BatchFault::NoTrailer);
        }
        self.batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &str, messages: &[&str], faults: &[BatchFault]) {
        let batch = split(&Bytes::copy_from_slice(raw.as_bytes()));
        assert_eq!(
            batch.messages.iter().map(|one| std::str::from_utf8(one).unwrap()).collect::<Vec<_>>(),
            messages,
            "{raw}"
        );
        assert_eq!(batch.faults, faults, "{raw}");
    }

    #[test]
    fn a_file_gives_its_messages() {
        let raw = "FHS|^~\\&|A\rBHS|^~\\&|A\rMSH|^~\\&|1\rPID|1\rMSH|^~\\&|2\rBTS|2\rFTS|1\r";
        check(raw, &["MSH|^~\\&|1\rPID|1\r", "MSH|^~\\&|2\r"], &[]);
        assert!(is_batch(raw.as_bytes()) && !is_batch(b"MSH|"));
        assert_eq!(split(&Bytes::copy_from_slice(raw.as_bytes())).envelope.len(), 4);
    }

    #[test]
    fn a_lone_message_and_a_heap_of_messages_come_out() {
        check("MSH|^~\\&|1\rPID|1", &["MSH|^~\\&|1\rPID|1"], &[]);
        check("MSH|^~\\&|1\n\nMSH|^~\\&|2\n", &["MSH|^~\\&|1\n\n", "MSH|^~\\&|2\n"], &[]);
        check("MSH|^~\\&|1\rMSH|\rPID|1", &["MSH|^~\\&|1\rMSH|\rPID|1"], &[]);
        let odd = "MSH|^~\\&|1\rMSH|\rBHS|\rFTS|\rPID|1";
        check(odd, &[odd], &[]);
        check("", &[], &[]);
    }

    #[test]
    fn wrong_counts_cut_files_and_strays_are_told() {
        check(
            "BHS|^~\\&\rMSH|^~\\&|1\rBTS|3\r",
            &["MSH|^~\\&|1\r"],
            &[BatchFault::Messages { stated: 3, found: 1 }],
        );
        check("FHS|^~\\&\rBHS|^~\\&\rBTS|0\rFTS|2\r", &[], &[BatchFault::Batches { stated: 2, found: 1 }]);
        check("BHS|^~\\&\rMSH|^~\\&|1\r", &["MSH|^~\\&|1\r"], &[BatchFault::NoTrailer]);
        check("hello\rMSH|^~\\&|1\r", &["MSH|^~\\&|1\r"], &[BatchFault::Stray { bytes: 6 }]);
        check("BHS|^~\\&\rPID|1\rMSH|^~\\&|1\rBTS|1", &["MSH|^~\\&|1\r"], &[BatchFault::Stray { bytes: 7 }]);
    }
}
