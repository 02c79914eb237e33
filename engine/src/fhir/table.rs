//! Code tables: CSV files that say which FHIR code a code of the sender stands for.
//!
//! The first column is the sender's code, whatever its heading; the columns `code`, `system` and `display` say
//! what it becomes; further columns are free. A row whose first column is `*` answers for every code that has
//! no row. Lines that begin with `#` are remarks. A code without a row is never guessed: it is reported.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, OnceLock},
};

use foldhash::fast::RandomState;
use smol_str::SmolStr;

use super::{Node, name::name};
use crate::error::Problem;

/// All tables of a revision, by name.
#[derive(Debug, Default)]
pub struct Tables(HashMap<SmolStr, Arc<Table>, RandomState>);

/// One table.
#[derive(Debug)]
pub struct Table {
    name: SmolStr,
    columns: Vec<SmolStr>,
    rows: HashMap<SmolStr, Row, RandomState>,
    /// The codes in the order of the file.
    order: Vec<SmolStr>,
}

/// What a code becomes.
#[derive(Debug, Clone)]
pub struct Row {
    cells: Box<[SmolStr]>,
    code: Option<usize>,
    system: Option<usize>,
    display: Option<usize>,
    /// What it gives, made when it is first asked for and held in common from then on.
    coding: OnceLock<Node>,
    concept: OnceLock<Node>,
}

impl Tables {
    /// Adds a table.
    pub fn insert(&mut self, table: Table) {
        self.0.insert(table.name.clone(), table.into());
    }

    /// A table by name.
    pub fn get(&self, name: &str) -> Option<&Table> {
        self.0.get(name).map(|table| &**table)
    }

    /// Whether the trust's table `no-numbers` says that senders write this where they have no number.
    pub fn has_no_number(&self, written: &str) -> bool {
        self.get("no-numbers").is_some_and(|table| table.own(&written.trim().to_uppercase()).is_some())
    }

    /// A table by name, to be kept.
    pub fn shared(&self, name: &str) -> Option<Arc<Table>> {
        self.0.get(name).cloned()
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let mut names: Vec<&str> = self.0.keys().map(SmolStr::as_str).collect();
        names.sort_unstable();
        names.into_iter()
    }
}

impl Table {
    /// Reads a table.
    ///
    /// # Errors
    /// A missing heading, a row with more cells than the heading, a code twice, a quote that does not end.
    pub fn parse(name: &str, file: &Path, text: &str) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut table =
            Self { name: name.into(), columns: Vec::new(), rows: HashMap::default(), order: Vec::new() };
        let mut standard = (None, None, None);
        let fault = |what: &str, line| Problem::error(what).at(file, line, 1);
        for (number, line) in lines(text.strip_prefix('\u{feff}').unwrap_or(text)) {
            let Some(cells) = cells(line) else {
                problems.push(fault("a quoted cell does not end", number));
                continue;
            };
            if table.columns.is_empty() {
                table.columns = cells;
                let column = |name: &str| table.columns.iter().position(|column| column == name);
                standard = (column("code"), column("system"), column("display"));
                continue;
            }
            if cells.len() > table.columns.len() {
                let what = format!("{} cells, but the heading has {}", cells.len(), table.columns.len());
                problems.push(fault(&what, number).help("put quotes around a cell with a comma"));
                continue;
            }
            let Some(key) = cells.first().cloned() else { continue };
            let (code, system, display) = standard;
            let (coding, concept) = (OnceLock::new(), OnceLock::new());
            let row = Row { cells: cells.into(), code, system, display, coding, concept };
            table.order.push(key.clone());
            if table.rows.insert(key.clone(), row).is_some() {
                problems.push(fault(&format!("the code `{key}` stands here for the second time"), number));
            }
        }
        if table.columns.is_empty() {
            problems.push(fault("the table has no heading", 1).help("e.g. `from,code,system,display`"));
        }
        if problems.is_empty() { Ok(table) } else { Err(problems) }
    }

    /// Puts the rows of another table over these, by code; gives how many were here before.
    ///
    /// # Errors
    /// The columns differ.
    pub fn overlay(&mut self, other: Self) -> Result<usize, String> {
        if other.columns != self.columns {
            return Err(format!("the table below has the columns {}", self.columns.join(",")));
        }
        Ok(other.rows.into_iter().filter_map(|(key, row)| self.rows.insert(key, row)).count())
    }

    /// The name: the file's stem.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The headings.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(SmolStr::as_str)
    }

    /// What the code becomes: its own row, else the row `*`.
    pub fn get(&self, code: &str) -> Option<&Row> {
        self.rows.get(code).or_else(|| self.rows.get("*"))
    }

    /// The code's own row, whatever the row `*` says of all others.
    pub fn own(&self, code: &str) -> Option<&Row> {
        self.rows.get(code)
    }

    /// The cell of a row by the heading of its column.
    pub fn cell<'r>(&self, row: &'r Row, column: &str) -> Option<&'r SmolStr> {
        let place = self.columns.iter().position(|heading| heading == column)?;
        row.cell(Some(place))
    }

    /// The rows with the sender's codes, in the order of the file.
    pub fn rows(&self) -> impl Iterator<Item = (&str, &Row)> {
        self.order.iter().filter_map(|key| Some((key.as_str(), self.rows.get(key)?)))
    }

    /// The codes that the rows give, for checking against a value set; in no order.
    pub fn codes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.rows.iter().filter_map(|(key, row)| Some((key.as_str(), row.code()?.as_str())))
    }
}

impl Row {
    /// The column `code`, if not empty.
    pub fn code(&self) -> Option<&SmolStr> {
        self.cell(self.code)
    }

    /// The column `system`, if not empty.
    pub fn system(&self) -> Option<&SmolStr> {
        self.cell(self.system)
    }

    /// The column `display`, if not empty.
    pub fn display(&self) -> Option<&SmolStr> {
        self.cell(self.display)
    }

    /// The coding that it gives.
    pub fn coding(&self) -> Node {
        let coding = self.coding.get_or_init(|| {
            let cells = [self.system(), self.code(), self.display()];
            let [system, code, display] = cells.map(|cell| cell.cloned().map(Node::Text));
            let coding = [(name!("system"), system), (name!("code"), code), (name!("display"), display)];
            Node::object(coding).in_common()
        });
        coding.clone()
    }

    /// The concept of that coding alone.
    pub fn concept(&self) -> Node {
        self.concept.get_or_init(|| Node::concept(self.coding()).in_common()).clone()
    }

    fn cell(&self, place: Option<usize>) -> Option<&SmolStr> {
        self.cells.get(place?).filter(|cell| !cell.is_empty())
    }
}

/// The lines that hold cells, with their numbers from 1. A cell does not run over a line's end.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
}

/// The cells of a line (RFC 4180 within a line); `None` when a quote does not end.
fn cells(line: &str) -> Option<Vec<SmolStr>> {
    let mut found = Vec::new();
    let mut cell = String::new();
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if cell.trim().is_empty() => {
                cell.clear();
                quoted = true;
            }
            ',' if !quoted => found.push(std::mem::take(&mut cell).trim().into()),
            char => cell.push(char),
        }
    }
    found.push(cell.trim().into());
    (!quoted).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Table, String> {
        Table::parse("t", Path::new("mappings/tables/t.csv"), text)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn a_code_becomes_its_row() {
        let table = parse(
            "# remark\nfrom,code,system,display,note\nM,male,http://x,\"Male, \"\"m\"\"\",\nF,female,,,\n",
        )
        .unwrap();
        let row = table.get("M").unwrap();
        assert_eq!(row.code().unwrap(), "male");
        assert_eq!(row.display().unwrap(), "Male, \"m\"");
        assert_eq!(table.get("F").unwrap().system(), None);
        assert_eq!(table.cell(row, "system").unwrap(), "http://x");
        assert!(table.get("X").is_none());
    }

    #[test]
    fn a_star_answers_for_the_rest() {
        let table = parse("from,code\nA,a\n*,other").unwrap();
        assert_eq!(table.get("Z").unwrap().code().unwrap(), "other");
        assert!(table.own("Z").is_none(), "`a` is looked for as `A` before it is any other");
    }

    #[test]
    fn faults_have_places() {
        assert_eq!(
            parse("").unwrap_err(),
            "mappings/tables/t.csv:1:1: the table has no heading (e.g. `from,code,system,display`)"
        );
        assert_eq!(
            parse("from,code\nA,a,b\nB,\"x\nC,c\nC,d").unwrap_err(),
            "mappings/tables/t.csv:2:1: 3 cells, but the heading has 2 (put quotes around a cell with a comma)\n\
             mappings/tables/t.csv:3:1: a quoted cell does not end\n\
             mappings/tables/t.csv:5:1: the code `C` stands here for the second time"
        );
    }
}
