//! MLLP frames: `VT message FS CR`, found in a stream of bytes, and written.
//!
//! Promise:  any split of the stream gives the same frames; no byte is looked at twice; the buffer never holds
//!           more than one frame of the allowed size, whatever is sent; no message is lost to what stands between
//!           frames.
//! Decided:  - FS ends a frame, whether a CR follows or not.
//!           - Bytes between frames are junk: passed over and told. The CR behind an FS is none.
//!           - `VT MSH`, `VT FHS` and `VT BHS` within a frame begin a new one: the sender broke off and started
//!             again. What was cut is told. Any other VT is part of the message.
//!           - A frame over the limit is told once, with its head, and passed over to its end.
//! Not here: sockets, time-outs, and what to answer (the `mllp` plugin).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use memchr::{memchr, memchr2};

/// Begins a frame.
pub const VT: u8 = 0x0B;
/// Ends a frame, with a CR behind it.
pub const FS: u8 = 0x1C;

/// So many bytes of what is refused are kept, to answer it.
const HEAD_BYTES: usize = 4096;

/// What a [`Scanner`] has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// What stood between VT and FS, unchanged.
    Message(Bytes),
    /// Bytes outside any frame.
    Junk {
        /// How many.
        bytes: usize,
        /// The first of them: a sender that knows no frames shows here.
        head: Bytes,
    },
    /// A frame is longer than allowed; its end has not come yet.
    TooLarge {
        /// Its beginning.
        head: Bytes,
    },
    /// A frame was cut off by another.
    Cut {
        /// Its beginning.
        head: Bytes,
    },
}

/// Finds frames in a stream, one read after the other.
#[derive(Debug)]
pub struct Scanner {
    limit_bytes: usize,
    state: State,
    /// Bytes of the buffer that have been looked at.
    seen: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Outside {
        behind_frame: bool,
    },
    Inside,
    /// In a frame that is too large.
    Skipping,
}

impl Scanner {
    /// A scanner for messages up to a size.
    pub fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, state: State::Outside { behind_frame: false }, seen: 0 }
    }

    /// Whether a frame has begun and not ended.
    pub fn in_frame(&self) -> bool {
        !matches!(self.state, State::Outside { .. })
    }

    /// The beginning of a frame that has begun and not ended, to refuse it.
    pub fn head(&self, buffer: &BytesMut) -> Bytes {
        match self.state {
            State::Inside => head(buffer),
            State::Outside { .. } | State::Skipping => Bytes::new(),
        }
    }

    /// Takes the next thing out of the buffer; `None` when more bytes are needed. Between calls bytes may only be
    /// added to the buffer.
    pub fn scan(&mut self, buffer: &mut BytesMut) -> Option<Found> {
        loop {
            let found = match self.state {
                State::Outside { behind_frame } => self.outside(buffer, behind_frame),
                State::Inside => self.inside(buffer),
                State::Skipping => self.skip(buffer),
            };
            match found {
                Step::Found(found) => return Some(found),
                Step::Again => {}
                Step::More => return None,
            }
        }
    }

    fn outside(&mut self, buffer: &mut BytesMut, behind_frame: bool) -> Step {
        if buffer.is_empty() {
            return Step::More;
        }
        if behind_frame {
            self.state = State::Outside { behind_frame: false };
            if buffer.first() == Some(&b'\r') {
                buffer.advance(1);
                return Step::Again;
            }
        }
        let junk = memchr(VT, buffer).unwrap_or(buffer.len());
        let begins = junk < buffer.len();
        let found = (junk > 0)
            .then(|| Found::Junk { bytes: junk, head: head(buffer.get(..junk).unwrap_or_default()) });
        buffer.advance(junk);
        if begins {
            buffer.advance(1);
            self.state = State::Inside;
        }
        found.map_or(Step::Again, Step::Found)
    }

    fn inside(&mut self, buffer: &mut BytesMut) -> Step {
        let (at, mark) = match self.mark(buffer) {
            Ok(found) => found,
            Err(unclear) if unclear > self.limit_bytes => return self.too_large(buffer),
            Err(_) => return Step::More,
        };
        if at > self.limit_bytes {
            return self.too_large(buffer);
        }
        self.seen = 0;
        let content = buffer.split_to(at).freeze();
        buffer.advance(1);
        match mark {
            Mark::End => {
                self.state = State::Outside { behind_frame: true };
                Step::Found(Found::Message(content))
            }
            Mark::Begin => Step::Found(Found::Cut { head: head(&content) }),
        }
    }

    fn skip(&mut self, buffer: &mut BytesMut) -> Step {
        match self.mark(buffer) {
            Ok((at, mark)) => {
                buffer.advance(at + 1);
                self.seen = 0;
                self.state = match mark {
                    Mark::End => State::Outside { behind_frame: true },
                    Mark::Begin => State::Inside,
                };
                Step::Again
            }
            Err(clear) => {
                buffer.advance(clear);
                self.seen = 0;
                Step::More
            }
        }
    }

    fn too_large(&mut self, buffer: &BytesMut) -> Step {
        self.state = State::Skipping;
        self.seen = 0;
        let allowed = buffer.get(..self.limit_bytes).unwrap_or(buffer);
        Step::Found(Found::TooLarge { head: head(allowed) })
    }

    /// The next byte that ends or begins a frame; else how many bytes are certainly part of this one.
    fn mark(&mut self, buffer: &[u8]) -> Result<(usize, Mark), usize> {
        while let Some(at) = memchr2(VT, FS, buffer.get(self.seen..).unwrap_or_default()) {
            let at = self.seen + at;
            if buffer.get(at) == Some(&FS) {
                return Ok((at, Mark::End));
            }
            let behind = buffer.get(at + 1..).unwrap_or_default();
            if [b"MSH", b"FHS", b"BHS"].iter().any(|name| behind.starts_with(*name)) {
                return Ok((at, Mark::Begin));
            }
            if [b"MSH", b"FHS", b"BHS"].iter().any(|name| name.starts_with(behind)) {
                // Too few bytes to tell.
                self.seen = at;
                return Err(at);
            }
            self.seen = at + 1;
        }
        self.seen = buffer.len();
        Err(self.seen)
    }
}

/// Frames a message for one write: VT first, a CR before FS and one behind it.
///
/// # Errors
/// A message that holds the bytes of frames would arrive as something else.
pub fn frame(message: &[u8]) -> Result<Bytes, Unframeable> {
    if memchr2(VT, FS, message).is_some() {
        return Err(Unframeable);
    }
    let mut framed = BytesMut::with_capacity(message.len() + 4);
    framed.put_u8(VT);
    framed.put_slice(message);
    if message.last() != Some(&b'\r') {
        framed.put_u8(b'\r');
    }
    framed.put_slice(&[FS, b'\r']);
    Ok(framed.freeze())
}

/// The message holds VT or FS and cannot be framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message holds control characters that end or begin a frame")]
pub struct Unframeable;

enum Step {
    Found(Found),
    Again,
    More,
}

enum Mark {
    Begin,
    End,
}

fn head(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes.get(..HEAD_BYTES).unwrap_or(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds the pieces one after the other; messages, cuts and refusals as text, and how much junk there was.
    fn feed<'a>(limit: usize, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<String>, usize) {
        let (mut scanner, mut buffer) = (Scanner::new(limit), BytesMut::new());
        let (mut found, mut junk) = (Vec::new(), 0);
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while let Some(one) = scanner.scan(&mut buffer) {
                let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
                match one {
                    Found::Message(message) => found.push(text(&message)),
                    Found::Junk { bytes, .. } => junk += bytes,
                    Found::TooLarge { head } => found.push(format!("large {}", text(&head))),
                    Found::Cut { head } => found.push(format!("cut {}", text(&head))),
                }
            }
            assert!(buffer.len() <= limit + 4, "{}", buffer.len());
        }
        (found, junk)
    }

    fn check(stream: &str, expected: &[&str], junk: usize) {
        let whole = feed(100, [stream.as_bytes()]);
        assert_eq!(whole, (expected.iter().map(|one| (*one).to_owned()).collect(), junk), "{stream:?}");
        assert_eq!(feed(100, stream.as_bytes().chunks(1)), whole, "{stream:?} byte by byte");
    }

    #[test]
    fn frames_are_found() {
        check("\u{b}MSH|1\r\u{1c}\r", &["MSH|1\r"], 0);
        check(
            "\u{b}MSH|1\r\u{1c}\r\u{b}MSH|2\r\u{1c}\r\u{b}MSH|3\r\u{1c}\r",
            &["MSH|1\r", "MSH|2\r", "MSH|3\r"],
            0,
        );
        check("\u{b}MSH|1\u{1c}\u{b}MSH|2\u{1c}", &["MSH|1", "MSH|2"], 0);
        check("\u{b}\u{1c}\r", &[""], 0);
    }

    #[test]
    fn junk_between_frames_is_counted() {
        check("\0\0\u{b}MSH|1\u{1c}\r\r\n\0\u{b}MSH|2\u{1c}\rMSH|3", &["MSH|1", "MSH|2"], 10);
    }

    #[test]
    fn a_frame_that_was_broken_off_does_not_swallow_the_next() {
        check("\u{b}MSH|1\rPID\u{b}MSH|2\u{1c}\r", &["cut MSH|1\rPID", "MSH|2"], 0);
        check("\u{b}MSH|1\rNTE|\u{b}MS \u{b}\u{1c}\r", &["MSH|1\rNTE|\u{b}MS \u{b}"], 0);
    }

    #[test]
    fn a_frame_over_the_limit_is_told_and_passed_over() {
        let (found, junk) = feed(8, [b"\x0bMSH|12345678\x1c\r\x0bMSH|2\x1c\r".as_slice()]);
        assert_eq!((found, junk), (vec!["large MSH|1234".to_owned(), "MSH|2".to_owned()], 0));
        let (found, _) = feed(8, b"\x0bMSH|123456789\x0bMSH|2\x1c\r".chunks(1));
        assert_eq!(found, ["large MSH|1234", "MSH|2"]);
        assert_eq!(feed(8, [b"\x0bMSH|1234\x1c".as_slice()]).0, ["MSH|1234"]);
    }

    #[test]
    fn frames_are_written_for_one_write() {
        assert_eq!(frame(b"MSH|1").unwrap().as_ref(), b"\x0bMSH|1\r\x1c\r");
        assert_eq!(frame(b"MSH|1\r").unwrap().as_ref(), b"\x0bMSH|1\r\x1c\r");
        assert_eq!(frame(b"MSH|\x1c"), Err(Unframeable));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_frames(
            stream in proptest::collection::vec(proptest::sample::select(vec![
                b"\x0b".as_slice(), b"\x1c", b"\x1c\r", b"\x0bMSH", b"MSH|x", b"\x0bM", b"S", b"H", b"BHS|", b"\r", b"\0", b"abcdefgh",
            ]), 0..40),
            cuts in proptest::collection::vec(0usize..400, 0..20),
        ) {
            let stream = stream.concat();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(stream.len())).chain([0, stream.len()]).collect();
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]);
            prop_assert_eq!(feed(24, pieces), feed(24, stream.chunks(1)));
        }

        #[test]
        fn what_is_framed_is_found(messages in proptest::collection::vec("[A-Z|^\r\n日]{0,30}", 0..6)) {
            let stream: Vec<u8> = messages.iter().flat_map(|message| frame(message.as_bytes()).unwrap()).collect();
            let expected: Vec<_> = messages.iter().map(|one| if one.ends_with('\r') { one.clone() } else { format!("{one}\r") }).collect();
            prop_assert_eq!(feed(1000, [stream.as_slice()]), (expected, 0));
        }
    }
}
