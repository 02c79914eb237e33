//! Lists of control ids as senders and receivers give them: one a line, or a column of a CSV file.

use std::{fs::File, io, io::BufRead, path::Path};

use smol_str::SmolStr;

/// Control ids in one list; 24 bytes each are held. A longer list is refused: reconcile day by day.
const MOST: usize = 5_000_000;
/// The longest line that is read.
const LINE_BYTES: u64 = 64 * 1024;
/// The longest control id: MSH-10 has at most 199 characters since HL7 2.7, and 20 before.
const CONTROL_ID_BYTES: usize = 200;

/// A list, sorted, each control id once with how often it was named.
#[derive(Debug, Default)]
pub(super) struct List(Vec<(SmolStr, u32)>);

impl List {
    /// Reads a file; `-` is stdin. The control id stands in this column (from 1) of a CSV file.
    pub(super) fn read(file: &Path, column: usize) -> Result<Self, String> {
        let told = |error: io::Error| format!("{}: {error}", file.display());
        if file == Path::new("-") {
            return Self::parse(io::stdin().lock(), column).map_err(told);
        }
        let opened = File::open(file).map_err(told)?;
        Self::parse(io::BufReader::new(opened), column).map_err(told)
    }

    fn parse(mut lines: impl BufRead, column: usize) -> io::Result<Self> {
        let mut ids = Vec::new();
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            if io::Read::take(&mut lines, LINE_BYTES).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let wrong = |what: &str| Err(io::Error::other(format!("line {number}: {what}")));
            let Ok(text) = std::str::from_utf8(&line) else { return wrong("the text is not UTF-8") };
            let text = text.trim_start_matches('\u{feff}').trim();
            let id = cell(text, column);
            if id.is_empty() || (number == 1 && is_heading(id)) {
                continue;
            }
            if id.len() > CONTROL_ID_BYTES {
                return wrong("this is no control id, it is too long");
            }
            if ids.len() == MOST {
                return wrong("the list is too long: give it day by day");
            }
            ids.push(SmolStr::new(id));
        }
        ids.sort_unstable();
        let mut list: Vec<(SmolStr, u32)> = Vec::new();
        for id in ids {
            match list.last_mut() {
                Some((last, times)) if *last == id => *times += 1,
                _ => list.push((id, 1)),
            }
        }
        Ok(Self(list))
    }

    /// A list that stands in a test.
    #[cfg(test)]
    pub(super) fn of(text: &str) -> Self {
        Self::parse(text.as_bytes(), 1).unwrap()
    }

    /// Different control ids.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// How often it names this control id.
    pub(super) fn times(&self, id: &str) -> u32 {
        let found = self.0.binary_search_by(|(known, _)| known.as_str().cmp(id));
        found.ok().and_then(|at| self.0.get(at)).map_or(0, |(_, times)| *times)
    }

    /// Each control id with how often it was named, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        self.0.iter().map(|(id, times)| (id.as_str(), *times))
    }
}

/// One cell of a line; of a line without separators, the whole line.
fn cell(line: &str, column: usize) -> &str {
    let separator = [',', ';', '\t'].into_iter().find(|separator| line.contains(*separator));
    let cell = match separator {
        Some(separator) => line.split(separator).nth(column.saturating_sub(1)).unwrap_or_default(),
        None if column > 1 => "",
        None => line,
    };
    cell.trim().trim_matches('"')
}

fn is_heading(text: &str) -> bool {
    let letters: String = text.chars().filter(|c| c.is_alphanumeric()).collect();
    ["controlid", "messagecontrolid", "msh10"].contains(&letters.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str, column: usize) -> Vec<(String, u32)> {
        let list = List::parse(text.as_bytes(), column).unwrap();
        list.iter().map(|(id, times)| (id.to_owned(), times)).collect()
    }

    #[test]
    fn lines_and_columns_are_read_and_repeats_counted() {
        let expected = [("A1".to_owned(), 2), ("B2".to_owned(), 1)];
        assert_eq!(list("B2\nA1\r\n\n  A1  ", 1), expected);
        assert_eq!(list("\u{feff}Control ID;time\n\"B2\";1\nA1;2\nA1;3\n", 1), expected);
        assert_eq!(list("time,MSH-10\n1,B2\n2,A1\n3,A1\n", 2), expected);
    }

    #[test]
    fn what_is_no_list_is_told_with_its_line() {
        let told = |text: &[u8]| List::parse(text, 1).unwrap_err().to_string();
        assert!(told(b"A\n\xff\n").starts_with("line 2: "), "{}", told(b"A\n\xff\n"));
        assert!(told("x".repeat(300).as_bytes()).contains("too long"));
    }
}
