//! Building and editing messages.
//!
//! Promise:  what is not touched stays as it was, to the byte; text is escaped as it is set, so that no value can become
//!           structure; the result is in the character set of the original or an error, never with lost letters.
//! Decided:  setting a place makes what is missing before it (fields, repetitions, components) as empty; a segment
//!           that is missing is an error, because its place in the message is a decision.

use std::{borrow::Cow, cell::Cell};

use bytes::Bytes;
use encoding_rs::Encoding;

use super::{Message, Path, Separators, escape};

/// A message in the making.
#[derive(Clone)]
pub struct Draft {
    separators: Separators,
    encoding: &'static Encoding,
    /// What it was made from, until something is changed.
    original: Option<Bytes>,
    /// Segments, and what stands between them; joined they are the message.
    pieces: Vec<Piece>,
    /// Where the segment was found that was looked for last: most are set field by field.
    found: Cell<Option<Found>>,
}

/// A segment by name and occurrence, and its piece.
type Found = ([u8; 3], usize, usize);

/// What to put at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'t> {
    /// Text, to be escaped.
    Text(&'t str),
    /// Separators and escapes as they are: several components at once, say. It must hold no line end.
    Raw(&'t str),
    /// `""`: remove what is known.
    Null,
    /// Nothing: leave alone what is known.
    Absent,
}

/// Why a message cannot be changed so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The message has no such segment.
    #[error("the message has no segment {segment}({occurrence})")]
    NoSegment {
        /// Its name.
        segment: String,
        /// Which of its name.
        occurrence: usize,
    },
    /// The separators of a message cannot be set, nor a whole segment.
    #[error("{path} cannot be set")]
    Fixed {
        /// The place.
        path: String,
    },
    /// The message has no subcomponent separator.
    #[error("the message has no separator for {path}")]
    NoSeparator {
        /// The place.
        path: String,
    },
    /// A raw value that would change the structure outside its place.
    #[error("the raw value for {path} holds a line end or a field separator")]
    Structure {
        /// The place.
        path: String,
    },
    /// Three capital letters or digits are wanted.
    #[error("`{name}` is no name of a segment")]
    Name {
        /// What was given.
        name: String,
    },
    /// The character set of the message lacks a character.
    #[error("the message holds characters that {charset} does not have")]
    Charset {
        /// The character set of the message.
        charset: &'static str,
    },
}

#[derive(Clone)]
struct Piece {
    text: String,
    /// The name, if it is a segment.
    name: Option<[u8; 3]>,
}

impl Draft {
    /// An empty message: MSH with separators and nothing else.
    pub fn new(separators: Separators) -> Self {
        let header = Piece { text: format!("MSH{}", separators.header()), name: Some(*b"MSH") };
        Self {
            separators,
            encoding: encoding_rs::UTF_8,
            original: None,
            pieces: vec![header, Piece::end()],
            found: Cell::default(),
        }
    }

    /// An existing message, to be changed.
    pub fn of(message: &Message) -> Self {
        let text = message.text();
        let mut pieces = Vec::with_capacity(message.segments().len() * 2 + 1);
        let mut at = 0;
        for segment in message.segments() {
            let range = segment.range();
            pieces.push(Piece { text: text.get(at..range.start).unwrap_or_default().to_owned(), name: None });
            pieces.push(Piece {
                text: segment.raw().to_owned(),
                name: segment.name().as_bytes().try_into().ok(),
            });
            at = range.end;
        }
        pieces.push(Piece { text: text.get(at..).unwrap_or_default().to_owned(), name: None });
        let encoding = Encoding::for_label(message.charset().name.as_bytes()).unwrap_or(encoding_rs::UTF_8);
        Self {
            separators: message.separators(),
            encoding,
            original: Some(message.raw().clone()),
            pieces,
            found: Cell::default(),
        }
    }

    /// Its separators.
    pub fn separators(&self) -> Separators {
        self.separators
    }

    /// Puts something at a place.
    ///
    /// # Errors
    /// The segment is missing, or the place cannot hold it.
    pub fn set(&mut self, path: &Path, content: Content<'_>) -> Result<(), EditError> {
        let separators = self.separators;
        let raw = self.written(path, content)?;
        let mut levels = vec![self.field(path)?, (separators.repetition, path.repetition - 1)];
        if let Some(component) = path.component {
            levels.push((separators.component, component - 1));
        }
        if let Some(subcomponent) = path.subcomponent {
            let Some(separator) = separators.subcomponent else {
                return Err(EditError::NoSeparator { path: path.to_string() });
            };
            levels.push((separator, subcomponent - 1));
        }
        self.put(path, &levels, &raw)
    }

    /// Empties a field with all its repetitions; of the path only segment, occurrence and field count.
    ///
    /// # Errors
    /// The segment is missing, or it is a field that cannot be changed.
    pub fn clear(&mut self, path: &Path) -> Result<(), EditError> {
        let (separator, place) = self.field(path)?;
        let at = self.find(path)?;
        let field = self.pieces.get(at).and_then(|piece| piece.text.split(char::from(separator)).nth(place));
        match field {
            None | Some("") => Ok(()),
            Some(_) => self.put(path, &[(separator, place)], ""),
        }
    }

    /// The separator of fields, and which piece between them the field is.
    fn field(&self, path: &Path) -> Result<(u8, usize), EditError> {
        let header = matches!(&path.segment, b"MSH" | b"FHS" | b"BHS");
        if path.field == 0 || header && path.field <= 2 {
            return Err(EditError::Fixed { path: path.to_string() });
        }
        Ok((self.separators.field, path.field - usize::from(header)))
    }

    fn put(&mut self, path: &Path, levels: &[(u8, usize)], raw: &str) -> Result<(), EditError> {
        let at = self.find(path)?;
        if let Some(piece) = self.pieces.get_mut(at) {
            piece.text = with(&piece.text, levels, raw);
            self.original = None;
        }
        Ok(())
    }

    /// Whether something stands at a place.
    pub fn holds(&self, path: &Path) -> bool {
        let Some(piece) = self.find(path).ok().and_then(|at| self.pieces.get(at)) else { return false };
        let separators = self.separators;
        let header = matches!(&path.segment, b"MSH" | b"FHS" | b"BHS");
        let nth = |text: &'_ str, separator: u8, place: usize| -> String {
            text.split(char::from(separator)).nth(place).unwrap_or_default().to_owned()
        };
        let mut found = nth(&piece.text, separators.field, path.field.saturating_sub(usize::from(header)));
        found = nth(&found, separators.repetition, path.repetition.saturating_sub(1));
        if let Some(component) = path.component {
            found = nth(&found, separators.component, component.saturating_sub(1));
        }
        if let (Some(subcomponent), Some(separator)) = (path.subcomponent, separators.subcomponent) {
            found = nth(&found, separator, subcomponent.saturating_sub(1));
        }
        !found.is_empty()
    }

    /// Adds an empty segment at the end; it can then be set.
    ///
    /// # Errors
    /// The name is none.
    pub fn append(&mut self, name: &str) -> Result<(), EditError> {
        let last = self.pieces.iter().rposition(|piece| piece.name.is_some()).unwrap_or_default();
        self.insert(last, name)
    }

    /// Adds an empty segment behind another one; of the path only segment and occurrence count.
    ///
    /// # Errors
    /// The name is none, or there is no such segment.
    pub fn insert_after(&mut self, path: &Path, name: &str) -> Result<(), EditError> {
        let at = self.find(path)?;
        self.insert(at, name)
    }

    /// Removes a segment; of the path only segment and occurrence count.
    ///
    /// # Errors
    /// There is no such segment, or it is the header.
    pub fn remove(&mut self, path: &Path) -> Result<(), EditError> {
        if &path.segment == b"MSH" && path.occurrence == 1 {
            return Err(EditError::Fixed { path: path.to_string() });
        }
        let at = self.find(path)?;
        self.pieces.remove(at);
        self.found.set(None);
        if let Some(next) = self.pieces.get_mut(at) {
            let rest = next.text.strip_prefix("\r\n").or_else(|| next.text.strip_prefix(['\r', '\n']));
            next.text = rest.unwrap_or(&next.text).to_owned();
        }
        // The line end of the last segment has gone: that of the one before now ends the message.
        self.original = None;
        Ok(())
    }

    /// How many segments of a name there are.
    pub fn count(&self, name: &str) -> usize {
        self.pieces.iter().filter(|piece| piece.name.is_some_and(|own| own == *name.as_bytes())).count()
    }

    /// The bytes of the message: those it was made from, if nothing was changed.
    ///
    /// # Errors
    /// The character set of the message lacks a character that was put in, or the message held bytes that were no
    /// text in it.
    pub fn print(&self) -> Result<Bytes, EditError> {
        if let Some(original) = &self.original {
            return Ok(original.clone());
        }
        let text: String = self.pieces.iter().map(|piece| piece.text.as_str()).collect();
        let charset = EditError::Charset { charset: self.encoding.name() };
        if self.encoding == encoding_rs::UTF_8 {
            return Ok(Bytes::from(text));
        }
        let (bytes, used, unmappable) = self.encoding.encode(&text);
        // There is no encoder for UTF-16: it would write UTF-8.
        if unmappable || used != self.encoding { Err(charset) } else { Ok(Bytes::from(bytes.into_owned())) }
    }

    fn written<'t>(&self, path: &Path, content: Content<'t>) -> Result<Cow<'t, str>, EditError> {
        match content {
            Content::Text(text) => Ok(escape::encode(text, self.separators)),
            Content::Null => Ok(Cow::Borrowed("\"\"")),
            Content::Absent => Ok(Cow::Borrowed("")),
            Content::Raw(raw) => {
                let breaks =
                    |byte: u8| byte == self.separators.field || matches!(byte, b'\r' | b'\n' | 0x0B | 0x1C);
                if raw.bytes().any(breaks) {
                    return Err(EditError::Structure { path: path.to_string() });
                }
                Ok(Cow::Borrowed(raw))
            }
        }
    }

    fn find(&self, path: &Path) -> Result<usize, EditError> {
        if let Some((name, occurrence, at)) = self.found.get()
            && name == path.segment
            && occurrence == path.occurrence
        {
            return Ok(at);
        }
        let named = self.pieces.iter().enumerate().filter(|(_, piece)| piece.name == Some(path.segment));
        let found = path.occurrence.checked_sub(1).and_then(|skip| named.map(|(at, _)| at).nth(skip));
        self.found.set(found.map(|at| (path.segment, path.occurrence, at)));
        found.ok_or_else(|| EditError::NoSegment {
            segment: path.segment_name().to_owned(),
            occurrence: path.occurrence,
        })
    }

    fn insert(&mut self, behind: usize, name: &str) -> Result<(), EditError> {
        let Ok(Path { segment, field: 0, occurrence: 1, .. }) = Path::parse(name) else {
            return Err(EditError::Name { name: name.to_owned() });
        };
        let end = self.line_end();
        self.pieces.insert(behind + 1, Piece { text: end, name: None });
        self.pieces.insert(behind + 2, Piece { text: name.to_owned(), name: Some(segment) });
        self.found.set(None);
        self.original = None;
        Ok(())
    }

    /// The line end that the message uses.
    fn line_end(&self) -> String {
        let behind_header = self.pieces.iter().skip_while(|piece| piece.name.is_none()).nth(1);
        let text = behind_header.map(|piece| piece.text.as_str()).unwrap_or_default();
        ["\r\n", "\r", "\n"].into_iter().find(|end| text.starts_with(end)).unwrap_or("\r").to_owned()
    }
}

impl Piece {
    fn end() -> Self {
        Self { text: "\r".to_owned(), name: None }
    }
}

/// The text with what stands at a place replaced. `levels` holds separators from the outermost, and which piece
/// between them, from 0.
fn with(text: &str, levels: &[(u8, usize)], raw: &str) -> String {
    let Some(((separator, place), deeper)) = levels.split_first() else { return raw.to_owned() };
    let separator = char::from(*separator);
    let mut pieces: Vec<Cow<'_, str>> = text.split(separator).map(Cow::Borrowed).collect();
    if pieces.len() <= *place {
        pieces.resize(place + 1, Cow::Borrowed(""));
    }
    if let Some(piece) = pieces.get_mut(*place) {
        // A null stands for the whole field: it gives way to what is put into it.
        let inner = if !deeper.is_empty() && piece.as_ref() == "\"\"" { "" } else { piece.as_ref() };
        *piece = Cow::Owned(with(inner, deeper, raw));
    }
    pieces.join(&separator.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(raw: impl AsRef<[u8]>) -> Message {
        Message::parse(Bytes::copy_from_slice(raw.as_ref()), encoding_rs::WINDOWS_1252).unwrap()
    }

    fn path(text: &str) -> Path {
        Path::parse(text).unwrap()
    }

    fn printed(draft: &Draft) -> String {
        String::from_utf8(draft.print().unwrap().to_vec()).unwrap()
    }

    #[test]
    fn a_message_is_built() {
        let mut draft = Draft::new(Separators::default());
        draft.set(&path("MSH-3.2"), Content::Text("A|B")).unwrap();
        draft.append("PID").unwrap();
        draft.set(&path("PID-3[2].4.2"), Content::Text("1&2")).unwrap();
        draft.set(&path("PID-5"), Content::Raw("SMITH^JOHN")).unwrap();
        draft.set(&path("PID-7"), Content::Null).unwrap();
        draft.insert_after(&path("MSH"), "EVN").unwrap();
        assert_eq!(printed(&draft), "MSH|^~\\&|^A\\F\\B\rEVN\rPID|||~^^^&1\\T\\2||SMITH^JOHN||\"\"\r");
        assert_eq!((draft.count("PID"), draft.count("OBX")), (1, 0));
        let holds = |at: &str| draft.holds(&path(at));
        assert!(holds("MSH-3.2") && holds("PID-3[2].4.2") && holds("PID-5") && holds("PID-7"));
        assert!(
            !holds("MSH-3.1") && !holds("PID-3") && !holds("PID-4") && !holds("PID-50.2") && !holds("OBX-1")
        );
    }

    #[test]
    fn what_is_not_touched_stays() {
        let raw = "MSH|^~\\&|A\r\nhello\r\nPID|1||x^y~z|\r\nOBX|1\r\nOBX|2\r\n\u{1c}";
        let mut draft = Draft::of(&message(raw));
        assert_eq!(printed(&draft), raw);
        draft.set(&path("PID-3.2"), Content::Text("Y")).unwrap();
        draft.set(&path("PID-4.2"), Content::Absent).unwrap();
        draft.remove(&path("OBX(1)")).unwrap();
        draft.append("ZZ1").unwrap();
        assert_eq!(printed(&draft), "MSH|^~\\&|A\r\nhello\r\nPID|1||x^Y~z|^\r\nOBX|2\r\nZZ1\r\n\u{1c}");
    }

    #[test]
    fn a_null_gives_way() {
        let mut draft = Draft::of(&message("MSH|^~\\&|A\rPID|\"\""));
        draft.set(&path("PID-1.2"), Content::Text("b")).unwrap();
        assert_eq!(printed(&draft), "MSH|^~\\&|A\rPID|^b");
    }

    #[test]
    fn what_cannot_be_is_an_error() {
        let mut draft = Draft::of(&message("MSH|^~\\|A\rPID|1"));
        let set =
            |draft: &mut Draft, at: &str, content| draft.set(&path(at), content).unwrap_err().to_string();
        assert_eq!(set(&mut draft, "OBX(2)-5", Content::Null), "the message has no segment OBX(2)");
        assert_eq!(set(&mut draft, "MSH-2", Content::Null), "MSH-2 cannot be set");
        assert_eq!(set(&mut draft, "PID", Content::Null), "PID cannot be set");
        assert_eq!(set(&mut draft, "PID-1.1.2", Content::Null), "the message has no separator for PID-1.1.2");
        assert_eq!(
            set(&mut draft, "PID-1", Content::Raw("a\rOBX")),
            "the raw value for PID-1 holds a line end or a field separator"
        );
        assert!(
            draft.append("pid").is_err()
                && draft.append("PID-3").is_err()
                && draft.remove(&path("MSH")).is_err()
        );
        assert_eq!(printed(&draft), "MSH|^~\\|A\rPID|1");
    }

    #[test]
    fn the_character_set_is_kept() {
        let mut draft = Draft::of(&message(b"MSH|^~\\&|A\rPID|\xE9"));
        draft.set(&path("PID-2"), Content::Text("µ")).unwrap();
        assert_eq!(draft.print().unwrap().as_ref(), b"MSH|^~\\&|A\rPID|\xE9|\xB5");
        draft.set(&path("PID-2"), Content::Text("日")).unwrap();
        assert_eq!(draft.print(), Err(EditError::Charset { charset: "windows-1252" }));
    }

    proptest! {
        #[test]
        fn parse_and_print_are_the_identity(tail in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let raw = [b"MSH|^~\\&|".as_slice(), &tail].concat();
            let printed = Draft::of(&message(&raw)).print().unwrap();
            prop_assert_eq!(printed.as_ref(), raw.as_slice());
        }

        #[test]
        fn the_pieces_are_the_whole_text(tail in "[A-Z0-9|^~&\\\\\r\n\u{0}é]{0,200}") {
            let raw = format!("MSH|^~\\&|{tail}");
            let mut draft = Draft::of(&message(&raw));
            draft.original = None;
            prop_assert_eq!(printed(&draft), raw);
        }

        #[test]
        fn what_is_set_is_got_and_nothing_else_moves(
            text in "[\\PC|^~&\\\\\n]{1,20}", field in 1usize..12, repetition in 1usize..4,
            component in proptest::option::of(1usize..5), subcomponent in proptest::option::of(1usize..4),
        ) {
            let raw = "MSH|^~\\&|A\rPID|1||x^y&z~w|\"\"|^^^|last\rOBX|1";
            let before = message(raw);
            let at = Path { segment: *b"PID", occurrence: 1, field, repetition, component, subcomponent: subcomponent.filter(|_| component.is_some()) };
            let mut draft = Draft::of(&before);
            draft.set(&at, Content::Text(&text)).unwrap();
            let after = message(draft.print().unwrap());
            if text == "\"\"" {
                prop_assert!(after.get(&at).is_null());
            } else {
                prop_assert_eq!(after.get(&at).text().unwrap(), text);
            }
            let (was, is) = (before.segment("PID").unwrap(), after.segment("PID").unwrap());
            for n in (1..=was.len()).filter(|n| *n != field) {
                prop_assert_eq!(was.raw_field(n), is.raw_field(n));
            }
            prop_assert_eq!(after.segments().len(), 3);
        }
    }
}
