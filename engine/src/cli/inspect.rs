//! `tie inspect`: shows what is in a file of messages, with the names that the standard gives to fields.
//!
//! A plain file, MLLP frames and batches are taken. The tree is made from our own index: it shows every
//! message that the engine would accept, as the engine reads it.
//! Promise:  what is odd about a message is said before its tree; a message that cannot be read is shown with the
//!           reason, and those behind it still come.
//! Not here: whether a message is right.

use std::{fmt::Write as _, path::PathBuf};

use bytes::{Bytes, BytesMut};
use serde::Serialize;

use super::{Exit, complain, read, say};
use crate::{
    fhir::is_fhir,
    hl7::{Message, Path, Segment, Value, batch, charset, dictionary, framing},
};

/// Show the messages of a file as trees, with the names of segments and fields.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A file with messages: plain, in MLLP frames, or as a batch; `-` is stdin.
    file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Say only which field stands at this line and column of the file, both from 1.
    #[arg(long, value_name = "LINE:COLUMN", value_parser = place)]
    at: Option<(usize, usize)>,
    /// The character set of messages that name none and are not UTF-8.
    #[arg(long, default_value = "windows-1252")]
    charset: String,
}

/// Wrong when a message cannot be read or nothing is at the place.
pub(super) fn run(arguments: &Arguments) -> Exit {
    let Some(encoding) = charset::by_name(&arguments.charset) else {
        complain(format_args!("tie: `{}` is no character set that is known", arguments.charset));
        return Exit::Usage;
    };
    let raw = match read(&arguments.file) {
        Ok(raw) => Bytes::from(raw),
        Err(exit) => return exit,
    };
    if is_fhir(&raw) {
        return super::inspect_fhir::run(raw, arguments.json);
    }
    let report = Report::of(&raw, encoding);
    let good = match arguments.at {
        Some((line, column)) => {
            let found = report.at(&raw, line, column);
            match &found {
                Some(found) if arguments.json => say(json(found)),
                Some(found) => say(found.line()),
                None => complain("tie: there is no field at this place"),
            }
            found.is_some()
        }
        None => {
            say(if arguments.json { json(&report) } else { report.tree() });
            report.good()
        }
    };
    if good { Exit::Well } else { Exit::Wrong }
}

/// What a file holds.
#[derive(Debug, Serialize)]
struct Report {
    /// How many MLLP frames it has; 0 for a plain file.
    pub frames: usize,
    /// What is wrong with frames and batches.
    pub faults: Vec<String>,
    /// Its messages.
    pub messages: Vec<Inspected>,
}

/// One message of a file.
#[derive(Debug, Default, Serialize)]
struct Inspected {
    /// Why it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// MSH-9 as `ADT^A01`.
    pub trigger: String,
    /// MSH-10.
    pub control_id: String,
    /// MSH-12.
    pub version: String,
    /// Its length.
    pub bytes: usize,
    /// The encoding that was used.
    pub charset: String,
    /// How many characters could not be read.
    pub replaced: usize,
    /// What is not as the standard says.
    pub oddities: Vec<String>,
    /// Its segments.
    pub segments: Vec<Node>,
    #[serde(skip)]
    source: Option<(usize, Message)>,
}

/// A segment, field, repetition, component or subcomponent.
#[derive(Debug, Serialize)]
struct Node {
    /// Its path, as mappings write it.
    pub path: String,
    /// What the standard calls it; empty if it does not know it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its data type.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub data_type: String,
    /// Its text, if it has no parts; `null` when `""` was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Option<String>>,
    /// Its parts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Node>,
}

impl Report {
    /// Takes a file apart.
    pub fn of(raw: &Bytes, encoding: &'static encoding_rs::Encoding) -> Self {
        let mut report = Self { frames: 0, faults: Vec::new(), messages: Vec::new() };
        let mut at = 0;
        for piece in report.unframe(raw) {
            let batch = batch::split(&piece);
            let empty = batch.messages.is_empty() && !batch::is_batch(&piece);
            if !empty {
                report.faults.extend(batch.faults.iter().map(ToString::to_string));
            }
            for message in if empty { vec![piece] } else { batch.messages } {
                at += memchr::memmem::find(raw.get(at..).unwrap_or_default(), &message).unwrap_or_default();
                let start = at;
                at += message.len();
                report.messages.push(inspect(message, start, encoding));
            }
        }
        report
    }

    /// What stands at a line and column of the file.
    pub fn at(&self, raw: &[u8], line: usize, column: usize) -> Option<Node> {
        let (start, rest) = nth_line(raw, line)?;
        for (first, message) in self.messages.iter().filter_map(|one| one.source.as_ref()) {
            let Some(start) = start.checked_sub(*first).filter(|start| *start < message.raw().len()) else {
                continue;
            };
            let decode =
                |bytes: &[u8]| match encoding_rs::Encoding::for_label(message.charset().name.as_bytes()) {
                    Some(encoding) => encoding.decode_without_bom_handling(bytes).0.into_owned(),
                    None => String::from_utf8_lossy(bytes).into_owned(),
                };
            let before = decode(message.raw().get(..start)?).len();
            let within: usize = decode(rest).chars().take(column.checked_sub(1)?).map(char::len_utf8).sum();
            let path = message.locate(before + within)?;
            let value = message.get(&path);
            let (name, data_type) = names(&message.version(), &path);
            let value = Some(value.part().map(|part| part.whole().into_owned()));
            return Some(Node { path: path.to_string(), name, data_type, value, parts: Vec::new() });
        }
        None
    }

    fn good(&self) -> bool {
        !self.messages.is_empty() && self.messages.iter().all(|message| message.error.is_none())
    }

    /// The contents of frames, if there are any; else the whole file.
    fn unframe(&mut self, raw: &Bytes) -> Vec<Bytes> {
        if memchr::memchr(framing::FS, raw).is_none() || memchr::memchr(framing::VT, raw).is_none() {
            return vec![raw.clone()];
        }
        let (mut scanner, mut buffer) = (framing::Scanner::new(usize::MAX), BytesMut::from(raw.as_ref()));
        let mut pieces = Vec::new();
        while let Some(found) = scanner.scan(&mut buffer) {
            match found {
                framing::Found::Message(message) => pieces.push(message),
                framing::Found::Junk { bytes, .. } => {
                    self.faults.push(format!("{bytes} bytes outside frames"))
                }
                framing::Found::Cut { .. } | framing::Found::TooLarge { .. } => {
                    self.faults.push("a frame is cut off".to_owned())
                }
            }
        }
        if scanner.in_frame() {
            self.faults.push("the last frame has no end".to_owned());
        }
        self.frames = pieces.len();
        pieces
    }

    fn tree(&self) -> String {
        let mut out = String::new();
        let count = self.messages.len();
        if self.frames > 0 {
            let _ = writeln!(out, "{} MLLP frames", self.frames);
        }
        for fault in &self.faults {
            let _ = writeln!(out, "odd: {fault}");
        }
        for (index, message) in self.messages.iter().enumerate() {
            let _ = write!(out, "message {} of {count}", index + 1);
            message.write(&mut out);
        }
        if count == 0 {
            out.push_str("there is no message\n");
        }
        out
    }
}

impl Inspected {
    fn write(&self, out: &mut String) {
        if let Some(error) = &self.error {
            let _ = writeln!(out, ": {error}");
            return;
        }
        let Self { trigger, control_id, version, bytes, charset, replaced, .. } = self;
        let _ = writeln!(
            out,
            ": {trigger}, control id {control_id}, version {version}, {bytes} bytes, {charset}"
        );
        if *replaced > 0 {
            let _ = writeln!(out, "odd: {replaced} characters could not be read");
        }
        for oddity in &self.oddities {
            let _ = writeln!(out, "odd: {oddity}");
        }
        for segment in &self.segments {
            segment.write(out, 0);
        }
    }
}

impl Node {
    fn write(&self, out: &mut String, depth: usize) {
        let _ = write!(out, "{:indent$}{}", "", self.path, indent = depth * 2);
        for text in [&self.name, &self.data_type].into_iter().filter(|text| !text.is_empty()) {
            let _ = write!(out, "  {text}");
        }
        if let Some(value) = &self.value {
            let text = value.as_ref().map_or_else(|| "\"\" (remove)".to_owned(), |text| format!("{text:?}"));
            let _ = write!(out, "  = {text}");
        }
        out.push('\n');
        self.parts.iter().for_each(|part| part.write(out, depth + 1));
    }

    fn line(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, 0);
        out
    }
}

fn inspect(raw: Bytes, start: usize, encoding: &'static encoding_rs::Encoding) -> Inspected {
    let bytes = raw.len();
    let message = match Message::parse(raw, encoding) {
        Ok(message) => message,
        Err(error) => return Inspected { error: Some(error.to_string()), bytes, ..Inspected::default() },
    };
    let oddity = |odd: &crate::hl7::Oddity| {
        let before = message.text().get(..odd.start).unwrap_or_default();
        let line = before.replace("\r\n", "\n").matches(['\r', '\n']).count() + 1;
        format!("line {line} of the message: {}", odd.fault)
    };
    let doubt = message.charset().doubt.map(|doubt| doubt.to_string());
    let oddities = message.oddities().iter().map(oddity).chain(doubt).collect();
    Inspected {
        error: None,
        trigger: message.trigger().to_string(),
        control_id: message.control_id().into_owned(),
        version: message.version().into_owned(),
        bytes,
        charset: message.charset().name.to_owned(),
        replaced: message.charset().replaced,
        oddities,
        segments: message.segments().map(|segment| segment_node(&message.version(), segment)).collect(),
        source: Some((start, message)),
    }
}

fn segment_node(version: &str, segment: Segment<'_>) -> Node {
    let (name, number) = (segment.name(), segment.number());
    let path = if number == 1 { name.to_owned() } else { format!("{name}({number})") };
    let mut parts = Vec::new();
    for n in 1..=segment.len() {
        let known = dictionary::field(Some(version), name, n).or_else(|| dictionary::field(None, name, n));
        let told = (name == "OBX" && n == 5).then(|| segment.field(2).text()).flatten();
        let data_type = told.map_or_else(
            || known.map_or("", |field| field.data_type).to_owned(),
            std::borrow::Cow::into_owned,
        );
        let title = known.map_or("", |field| field.name);
        let several = segment.repetitions(n).nth(1).is_some();
        for (index, value) in segment.repetitions(n).enumerate() {
            let path = if several && index > 0 {
                format!("{path}-{n}[{}]", index + 1)
            } else {
                format!("{path}-{n}")
            };
            parts.extend(value_node(version, path, title, &data_type, value, 0));
        }
    }
    let title = dictionary::segment_name(name).unwrap_or_default();
    Node { path, name: title.to_owned(), data_type: String::new(), value: None, parts }
}

/// The node of a field (`depth` 0), component (1) or subcomponent (2); none when it is absent.
fn value_node(
    version: &str,
    path: String,
    name: &str,
    data_type: &str,
    value: Value<'_>,
    depth: usize,
) -> Option<Node> {
    let node = |value, parts| Node {
        path: path.clone(),
        name: name.to_owned(),
        data_type: data_type.to_owned(),
        value,
        parts,
    };
    let part = match value {
        Value::Absent => return None,
        Value::Null => return Some(node(Some(None), Vec::new())),
        Value::Present(part) => part,
    };
    let inner: Vec<Value<'_>> = match depth {
        0 => part.components().collect(),
        1 => part.subcomponents().collect(),
        _ => Vec::new(),
    };
    // `SMITH` alone is a leaf; so is `A&B` seen as a field of one component with two subcomponents a tree.
    let single = inner.len() < 2 && (depth > 0 || part.subcomponents().nth(1).is_none());
    if single {
        return Some(node(Some(Some(part.whole().into_owned())), Vec::new()));
    }
    let parts = inner.into_iter().enumerate().filter_map(|(index, value)| {
        let number = index + 1;
        let known = dictionary::component(Some(version), data_type, number)
            .or_else(|| dictionary::component(None, data_type, number));
        let (name, data_type) = known.map_or(("", ""), |member| (member.name, member.data_type));
        value_node(version, format!("{path}.{number}"), name, data_type, value, depth + 1)
    });
    Some(node(None, parts.collect()))
}

/// What the standard calls a place, and its data type.
fn names(version: &str, path: &Path) -> (String, String) {
    if path.field == 0 {
        return (dictionary::segment_name(path.segment_name()).unwrap_or_default().to_owned(), String::new());
    }
    let newest = |version| dictionary::field(version, path.segment_name(), path.field);
    let Some(mut member) = newest(Some(version)).or_else(|| newest(None)) else { return Default::default() };
    let mut name = member.name.to_owned();
    for number in [path.component, path.subcomponent].into_iter().flatten() {
        let inner = |version| dictionary::component(version, member.data_type, number);
        match inner(Some(version)).or_else(|| inner(None)) {
            Some(found) => {
                member = found;
                let _ = write!(name, ", {}", member.name);
            }
            // The first part of what has no parts is the thing itself.
            None if number == 1 => {}
            None => return (name, String::new()),
        }
    }
    (name, member.data_type.to_owned())
}

/// Where the n-th line begins, from 1, and the bytes from there.
fn nth_line(raw: &[u8], line: usize) -> Option<(usize, &[u8])> {
    let mut at = 0;
    for _ in 1..line {
        let rest = raw.get(at..)?;
        let end = memchr::memchr2(b'\r', b'\n', rest)?;
        let long = rest.get(end..)?.starts_with(b"\r\n");
        at += end + 1 + usize::from(long);
    }
    Some((at, raw.get(at..)?))
}

fn place(text: &str) -> Result<(usize, usize), String> {
    let numbers =
        text.split_once(':').and_then(|(line, column)| Some((line.parse().ok()?, column.parse().ok()?)));
    numbers
        .filter(|(line, column)| *line > 0 && *column > 0)
        .ok_or_else(|| "write it as `3:14`, both from 1".to_owned())
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).map(|text| text + "\n").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(raw: &str) -> Report {
        Report::of(&Bytes::copy_from_slice(raw.as_bytes()), encoding_rs::WINDOWS_1252)
    }

    const ADT: &str = "MSH|^~\\&|PAS||||||ADT^A01|7|P|2.4\rPID|1||9990000018^^^NHS&2.16~A1||SPECIMEN\\T\\CO|\"\"\rhello\rOBX|1|NM|||5\rZZ1|x";

    #[test]
    fn a_message_is_shown_with_names() {
        let tree = report(ADT).tree();
        for expected in [
            "message 1 of 1: ADT^A01, control id 7, version 2.4, ",
            "odd: line 3 of the message: a line that is no segment\n",
            "MSH  Message Header\n",
            "  MSH-2  Encoding Characters  ST  = \"^~\\\\&\"\n",
            "  PID-3  Patient Identifier List  CX\n    PID-3.1  ID  ST  = \"9990000018\"\n",
            "    PID-3.4  Assigning Authority  HD\n",
            "      PID-3.4.2  Universal ID  ST  = \"2.16\"\n",
            "  PID-3[2]  Patient Identifier List  CX  = \"A1\"\n",
            "  PID-5  Patient Name  XPN  = \"SPECIMEN&CO\"\n",
            "  PID-6  Mother's Maiden Name  XPN  = \"\" (remove)\n",
            "  OBX-5  Observation Value  NM  = \"5\"\n",
            "ZZ1\n  ZZ1-1  = \"x\"\n",
        ] {
            assert!(tree.contains(expected), "{expected}\nin\n{tree}");
        }
    }

    #[test]
    fn frames_batches_and_broken_messages_are_shown() {
        let framed =
            report("\u{b}MSH|^~\\&|A\r\u{1c}\r\u{b}BHS|^~\\&\rMSH|^~\\&|B\rMSH|^~\\&|C\rBTS|3\r\u{1c}\rxx");
        assert_eq!((framed.frames, framed.messages.len(), framed.good()), (2, 3, true));
        assert_eq!(
            framed.faults,
            ["2 bytes outside frames", "the batch trailer states 3 messages, and there are 2"]
        );
        let broken = report("hello");
        assert!(!broken.good());
        assert_eq!(broken.tree(), "message 1 of 1: the message does not begin with an MSH segment\n");
        assert!(!report("MSH|").good());
    }

    #[test]
    fn a_place_in_the_file_is_found() {
        let raw = "BHS|^~\\&\nMSH|^~\\&|A|||||||1|P|2.5\nPID|1||é^B~C^D&E\nBTS|1\n";
        let report = report(raw);
        let at = |line, column| report.at(raw.as_bytes(), line, column).map(|node| node.line());
        assert_eq!(at(3, 14).unwrap(), "PID-3[2].2.1  Patient Identifier List, Check Digit  ST  = \"D\"\n");
        assert_eq!(at(3, 1).unwrap(), "PID  Patient Identification  = \"PID|1||é^B~C^D&E\"\n");
        assert_eq!(at(9, 1), None);
        assert_eq!((place("3:14"), place("3").is_err(), place("0:1").is_err()), (Ok((3, 14)), true, true));
    }

    #[test]
    fn json_is_the_same_tree() {
        let value = serde_json::to_value(report("MSH|^~\\&|A\rPID|||1^2|\"\"")).unwrap();
        let pid = &value["messages"][0]["segments"][1];
        assert_eq!(pid["parts"][0]["path"], "PID-3");
        assert_eq!(pid["parts"][0]["parts"][1]["value"], "2");
        assert!(
            pid["parts"][1]["value"].is_null() && pid["parts"][1].as_object().unwrap().contains_key("value")
        );
    }
}
