//! Which place of a message a cursor is in.
//!
//! Promise:  the path names the segment, and the field, repetition, component and subcomponent as far as the place
//!           has them; a separator belongs to what stands before it.
//! hl7-parser's cursor takes characters for bytes and needs a tree; the test compares with it on plain messages.

use memchr::{memchr, memchr_iter, memrchr};

use super::{Message, Path, Segment};

impl Message {
    /// The place at an offset, in bytes, of [`Message::text`]; none between segments and in oddities.
    pub fn locate(&self, offset: usize) -> Option<Path> {
        let segment = self
            .segments()
            .find(|segment| segment.range().contains(&offset) || segment.range().end == offset)?;
        let mut path = Path {
            segment: segment.name().as_bytes().try_into().ok()?,
            occurrence: segment.number(),
            field: 0,
            repetition: 1,
            component: None,
            subcomponent: None,
        };
        self.descend(segment, offset - segment.range().start, &mut path);
        Some(path)
    }

    fn descend(&self, segment: Segment<'_>, offset: usize, path: &mut Path) {
        let separators = self.separators();
        let raw = segment.raw().as_bytes();
        let before = raw.get(..offset).unwrap_or(raw);
        let fields = memchr_iter(separators.field, before).count();
        let header = matches!(segment.name(), "MSH" | "FHS" | "BHS");
        if header && (offset == 3 || fields < 2) {
            path.field = if offset < 3 { 0 } else { 1 + usize::from(offset > 3) };
            return;
        }
        path.field = fields + usize::from(header && fields > 0);
        let Some(start) = memrchr(separators.field, before).map(|at| at + 1) else { return };
        let end =
            memchr(separators.field, raw.get(start..).unwrap_or_default()).map_or(raw.len(), |at| start + at);
        let field = Span { raw, start, end, offset };
        let (repetition, span) = field.divide(separators.repetition);
        path.repetition = repetition;
        let (component, inner) = span.divide(separators.component);
        let subcomponent = separators.subcomponent.filter(|separator| inner.has(*separator));
        if span.has(separators.component) || subcomponent.is_some() {
            path.component = Some(component);
        }
        path.subcomponent = subcomponent.map(|separator| inner.divide(separator).0);
    }
}

/// A part of a segment with the cursor in it.
struct Span<'r> {
    raw: &'r [u8],
    start: usize,
    end: usize,
    offset: usize,
}

impl Span<'_> {
    fn has(&self, separator: u8) -> bool {
        memchr(separator, self.raw.get(self.start..self.end).unwrap_or_default()).is_some()
    }

    /// Which piece the cursor is in, from 1, and that piece.
    fn divide(&self, separator: u8) -> (usize, Self) {
        let before = self.raw.get(self.start..self.offset).unwrap_or_default();
        let count = memchr_iter(separator, before).count() + 1;
        let start = memrchr(separator, before).map_or(self.start, |at| self.start + at + 1);
        let rest = self.raw.get(start..self.end).unwrap_or_default();
        let end = memchr(separator, rest).map_or(self.end, |at| start + at);
        (count, Self { raw: self.raw, start, end, offset: self.offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "MSH|^~\\&|APP^1&2|F\rPID|1||A^B&C~D|E\rOBX|1\rOBX|2|NM";

    fn message() -> Message {
        Message::parse(bytes::Bytes::from_static(TEXT.as_bytes()), encoding_rs::UTF_8).unwrap()
    }

    #[test]
    fn every_place_has_its_path() {
        let message = message();
        for (found, expected) in [
            ("MSH", "MSH"),
            ("|^~", "MSH-1"),
            ("~\\&|", "MSH-2"),
            ("APP", "MSH-3.1"),
            ("2|F", "MSH-3.2.2"),
            ("1||A", "PID-1"),
            ("C~D", "PID-3.2.2"),
            ("D|E", "PID-3[2]"),
            ("E\r", "PID-4"),
            ("NM", "OBX(2)-2"),
        ] {
            let offset = TEXT.find(found).unwrap();
            assert_eq!(message.locate(offset).unwrap().to_string(), expected, "{found}");
        }
        assert_eq!(message.locate(TEXT.len() + 1), None);
    }

    #[test]
    fn agrees_with_hl7_parser() {
        let ours = message();
        let theirs = hl7_parser::Message::parse(TEXT).unwrap();
        for offset in TEXT.find("PID").unwrap() + 4..TEXT.len() {
            if TEXT.as_bytes()[offset] == b'\r'
                || TEXT.get(..offset).unwrap().rfind('\r').unwrap() + 5 > offset
            {
                continue;
            }
            let (path, cursor) = (ours.locate(offset).unwrap(), theirs.locate_cursor(offset).unwrap());
            let (name, occurrence, _) = cursor.segment.unwrap();
            assert_eq!((path.segment_name(), path.occurrence), (name, occurrence), "{offset}");
            assert_eq!(Some(path.field), cursor.field.map(|(n, _)| n), "{offset}");
            assert_eq!(Some(path.repetition), cursor.repeat.map(|(n, _)| n), "{offset}");
            assert_eq!(path.component.or(Some(1)), cursor.component.map(|(n, _)| n), "{offset}");
            assert_eq!(path.subcomponent.or(Some(1)), cursor.sub_component.map(|(n, _)| n), "{offset}");
        }
    }
}
