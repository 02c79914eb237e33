//! JSON as FHIR wants it, read into a tree: decimals keep their digits, no name stands twice in an object.
//!
//! Promise:  P6, P9. Linear in the bytes, bounded in depth, in values and in the members of one object; a fault says line,
//!           column and the elements on the way, whose names are shown only if FHIR has them.
//! Source:   RFC 8259; FHIR R4 JSON (no duplicate names, `null` only in lists).

use std::fmt;

use memchr::memchr2;
use smol_str::SmolStr;

use crate::fhir::{Name, Node, Object, elements::is_name};

/// Objects and lists within each other.
const DEEPEST: usize = 100;
/// Values of one message: they take some 60 bytes each beside their text.
const MOST_VALUES: usize = 1_000_000;
/// Members of one object; FHIR has some sixty at most.
const MOST_MEMBERS: usize = 256;

/// Why a text is no JSON that can be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    what: &'static str,
    line: usize,
    column: usize,
    path: String,
}

impl Fault {
    /// The elements on the way: `Bundle.entry[2].resource`; empty at the top.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this is no JSON for FHIR: {} at line {}, column {}", self.what, self.line, self.column)?;
        if self.path.is_empty() { Ok(()) } else { write!(f, " ({})", self.path) }
    }
}

/// Reads a text.
pub(crate) fn parse(text: &str) -> Result<Node, Fault> {
    let mut reader = Reader { text, at: 0, values: 0, way: Vec::new() };
    let read = reader.document();
    read.map_err(|what| reader.fault(what))
}

type Read<T> = Result<T, &'static str>;

/// One step to the value at hand.
enum Step {
    Member(SmolStr),
    Item(usize),
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    values: usize,
    way: Vec<Step>,
}

impl<'t> Reader<'t> {
    fn document(&mut self) -> Read<Node> {
        self.blanks();
        let node = self.value()?;
        self.blanks();
        if self.peek().is_some() { Err("something stands behind the end") } else { Ok(node) }
    }

    fn value(&mut self) -> Read<Node> {
        self.values += 1;
        if self.values > MOST_VALUES {
            return Err("too many values");
        }
        if self.way.len() > DEEPEST {
            return Err("too deep");
        }
        match self.peek() {
            Some(b'{') => self.object(),
            Some(b'[') => self.list(),
            Some(b'"') => self.string().map(Node::Text),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Node::Boolean(true)),
            Some(b'f') => self.word("false", Node::Boolean(false)),
            // In lists it keeps the places of what stands beside them; nothing empty is ever found or written.
            Some(b'n') => self.word("null", Node::Object(Object::new())),
            Some(_) => Err("an unexpected character"),
            None => Err("it breaks off"),
        }
    }

    fn object(&mut self) -> Read<Node> {
        let mut members: Vec<(SmolStr, Node)> = Vec::new();
        self.at += 1;
        loop {
            self.blanks();
            match self.peek() {
                Some(b'}') if members.is_empty() => break,
                Some(b'"') => {}
                Some(_) => return Err("a name is missing"),
                None => return Err("it breaks off"),
            }
            let name = self.string()?;
            self.blanks();
            self.expect(b':', "a colon is missing")?;
            self.blanks();
            if members.len() == MOST_MEMBERS {
                return Err("too many members in one object");
            }
            if members.iter().any(|(known, _)| *known == name) {
                return Err("a name stands twice in one object");
            }
            self.way.push(Step::Member(name.clone()));
            let value = self.value()?;
            self.way.pop();
            members.push((name, value));
            if !self.goes_on(b'}')? {
                return Ok(Node::Object(
                    members.into_iter().map(|(name, value)| (Name::from(name.as_str()), value)).collect(),
                ));
            }
        }
        self.at += 1;
        Ok(Node::Object(Object::new()))
    }

    fn list(&mut self) -> Read<Node> {
        let mut items = Vec::new();
        self.at += 1;
        self.blanks();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Node::Array(items));
        }
        loop {
            self.blanks();
            self.way.push(Step::Item(items.len()));
            let value = self.value()?;
            self.way.pop();
            items.push(value);
            if !self.goes_on(b']')? {
                return Ok(Node::Array(items));
            }
        }
    }

    /// Passes a comma, or the end.
    fn goes_on(&mut self, end: u8) -> Read<bool> {
        self.blanks();
        let found = self.peek();
        self.at += 1;
        match found {
            Some(b',') => Ok(true),
            Some(byte) if byte == end => Ok(false),
            Some(_) => {
                self.at -= 1;
                Err("a comma or an end is missing")
            }
            None => {
                self.at -= 1;
                Err("it breaks off")
            }
        }
    }

    fn string(&mut self) -> Read<SmolStr> {
        self.at += 1;
        let start = self.at;
        let rest = self.text.as_bytes().get(start..).unwrap_or_default();
        let Some(end) = memchr2(b'"', b'\\', rest) else {
            self.at = self.text.len();
            return Err("it breaks off");
        };
        let plain = self.plain(start, start + end)?;
        if rest.get(end) == Some(&b'"') {
            self.at = start + end + 1;
            return Ok(SmolStr::new(plain));
        }
        self.escaped(start + end, plain.to_owned())
    }

    /// The rest of a string from its first escape on.
    fn escaped(&mut self, at: usize, mut out: String) -> Read<SmolStr> {
        self.at = at;
        loop {
            let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
            let Some(end) = memchr2(b'"', b'\\', rest) else {
                self.at = self.text.len();
                return Err("it breaks off");
            };
            out.push_str(self.plain(self.at, self.at + end)?);
            self.at += end + 1;
            if rest.get(end) == Some(&b'"') {
                return Ok(SmolStr::new(out));
            }
            let escape = self.peek().ok_or("it breaks off")?;
            self.at += 1;
            out.push(match escape {
                b'"' | b'\\' | b'/' => char::from(escape),
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => self.unicode()?,
                _ => return Err("an unknown escape"),
            });
        }
    }

    fn unicode(&mut self) -> Read<char> {
        let wrong = "an escape that is no character";
        let first = self.four_digits()?;
        let code = match first {
            0xD800..=0xDBFF => {
                self.expect(b'\\', wrong)?;
                self.expect(b'u', wrong)?;
                let second = self.four_digits()?;
                if !(0xDC00..=0xDFFF).contains(&second) {
                    return Err(wrong);
                }
                0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00)
            }
            code => code,
        };
        char::from_u32(code).ok_or(wrong)
    }

    fn four_digits(&mut self) -> Read<u32> {
        let digits = self.text.get(self.at..self.at + 4).ok_or("an escape that is no character")?;
        self.at += 4;
        let sound = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        u32::from_str_radix(digits, 16).ok().filter(|_| sound).ok_or("an escape that is no character")
    }

    /// What stands between two places of a string, which holds no control character.
    fn plain(&mut self, start: usize, end: usize) -> Read<&'t str> {
        let text = self.text.get(start..end).unwrap_or_default();
        match text.bytes().position(|byte| byte < 0x20) {
            None => Ok(text),
            Some(place) => {
                self.at = start + place;
                Err("a control character in a text")
            }
        }
    }

    fn number(&mut self) -> Read<Node> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let first = self.peek();
        let whole = self.digits()?;
        if first == Some(b'0') && whole > 1 {
            return Err("a number that begins with 0");
        }
        let mut decimal = false;
        if self.peek() == Some(b'.') {
            self.at += 1;
            decimal = true;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            decimal = true;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        if text.len() > 64 {
            return Err("a number that is too long");
        }
        Ok(match text.parse::<i64>() {
            Ok(number) if !decimal => Node::Integer(number),
            Ok(_) | Err(_) => Node::Decimal(SmolStr::new(text)),
        })
    }

    fn digits(&mut self) -> Read<usize> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        if count == 0 { Err("a digit is missing") } else { Ok(count) }
    }

    fn word(&mut self, word: &str, node: Node) -> Read<Node> {
        let found = self.text.as_bytes().get(self.at..).is_some_and(|rest| rest.starts_with(word.as_bytes()));
        if !found {
            return Err("an unexpected character");
        }
        self.at += word.len();
        Ok(node)
    }

    fn expect(&mut self, byte: u8, otherwise: &'static str) -> Read<()> {
        if self.peek() != Some(byte) {
            return Err(otherwise);
        }
        self.at += 1;
        Ok(())
    }

    fn blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.peek() {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn fault(&self, what: &'static str) -> Fault {
        let before = self.text.as_bytes().get(..self.at).unwrap_or(self.text.as_bytes());
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let begin = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |place| place + 1);
        let column = String::from_utf8_lossy(before.get(begin..).unwrap_or_default()).chars().count() + 1;
        let mut path = String::new();
        for step in &self.way {
            match step {
                Step::Item(number) => path += &format!("[{number}]"),
                Step::Member(name) => {
                    path += if path.is_empty() { "" } else { "." };
                    path += if is_name(name.trim_start_matches('_')) { name } else { "…" };
                }
            }
        }
        Fault { what, line, column, path }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn again(text: &str) -> String {
        String::from_utf8(parse(text).unwrap().to_json()).unwrap()
    }

    #[test]
    fn what_is_read_is_written_again_with_its_digits() {
        for text in [
            r#"{"a":1,"b":7.10,"c":1.0e-3,"d":[true,false,"x"],"e":{"f":"\u00e4"}}"#,
            r#"{"value":12345678901234567890}"#,
            r#"{"value":-0.00}"#,
        ] {
            assert_eq!(again(text), text.replace("\\u00e4", "ä"), "{text}");
        }
        assert_eq!(again(r#" { "a" : "\ud83d\ude00\n\"" } "#), "{\"a\":\"😀\\n\\\"\"}");
        assert_eq!(
            again(r#"{"given":["a",null],"_given":[null,{"id":"x"}]}"#),
            r#"{"given":["a"],"_given":[{"id":"x"}]}"#
        );
    }

    #[test]
    fn a_fault_says_where_and_nothing_of_the_content() {
        for (text, told) in [
            ("{\n \"id\": tru}", "an unexpected character at line 2, column 8 (id)"),
            ("{\"name\":[{\"family\":\"SECRET", "it breaks off at line 1, column 27 (name[0].family)"),
            ("{\"SECRET\":[01]}", "a number that begins with 0 at line 1, column 14 (…[0])"),
            ("{\"id\":1,\"id\":2}", "a name stands twice in one object at line 1, column 14"),
            ("{\"id\":\"a\u{1}\"}", "a control character in a text at line 1, column 9 (id)"),
            ("{\"id\":\"\\ud800\"}", "an escape that is no character at line 1, column 14 (id)"),
            ("{} x", "something stands behind the end at line 1, column 4"),
            ("{\"id\" 1}", "a colon is missing at line 1, column 7"),
            ("{\"id\":1 \"a\":2}", "a comma or an end is missing at line 1, column 9"),
            ("{,}", "a name is missing at line 1, column 2"),
        ] {
            assert_eq!(
                parse(text).unwrap_err().to_string(),
                format!("this is no JSON for FHIR: {told}"),
                "{text}"
            );
        }
    }

    #[test]
    fn p6_depth_values_and_members_are_bounded() {
        let deep = "[".repeat(10_000_000);
        assert_eq!(parse(&deep).unwrap_err().what, "too deep");
        let many = format!("[{}1]", "1,".repeat(MOST_VALUES));
        assert_eq!(parse(&many).unwrap_err().what, "too many values");
        let members: Vec<String> = (0..=MOST_MEMBERS).map(|n| format!("\"{n}\":1")).collect();
        assert_eq!(
            parse(&format!("{{{}}}", members.join(","))).unwrap_err().what,
            "too many members in one object"
        );
    }

    proptest! {
        #[test]
        fn nothing_panics_and_serde_agrees(text in "[\\[\\]{}:,\"\\\\a-e0-9.\\-+nulltrefs \u{e9}]{0,40}") {
            let ours = parse(&text);
            let theirs: Result<serde_json::Value, _> = serde_json::from_str(&text);
            if ours.is_ok() {
                prop_assert!(theirs.is_ok(), "{}", text);
            }
        }
    }
}
