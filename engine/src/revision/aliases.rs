//! Which names of authorities are one authority: those that the mappings' table gives one system.
//!
//! Promise:  P4. What the table `assigning-authorities` makes one record of stands in one lane, whatever name a sender has
//!           for the authority. Types (`RXX/MR`) are not looked at: one lane too many is harmless.
//! Not here: what the systems are (mappings), the lanes (pipeline).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    fhir::Table,
    hl7::identifier::{NHS, names_nhs, spelled},
};

/// The authorities of a table, by their names as keys of patients have them.
#[derive(Debug, Default)]
pub struct Aliases {
    others: HashMap<String, BTreeSet<String>>,
    /// Names that whatever the table does not list shares its system with.
    unlisted: BTreeSet<String>,
}

impl Aliases {
    /// Reads a table with the columns `from` (the first) and `system`.
    pub(super) fn of_table(table: &Table) -> Self {
        let mut names_of: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for (from, row) in table.rows() {
            if let Some(system) = row.system() {
                names_of.entry(system).or_default().insert(name(from));
            }
        }
        let mut aliases = Self::default();
        for (system, names) in &names_of {
            // Whoever names the system itself, as FHIR does, stands in the lanes of all its names; they need none of his.
            aliases.others.entry(spelled(system)).or_default().extend(names.iter().cloned());
            for name in names {
                let others = aliases.others.entry(name.clone()).or_default();
                others.extend(names.iter().filter(|other| *other != name).cloned());
                if name == "*" {
                    aliases.unlisted.clone_from(names);
                }
            }
        }
        aliases
    }

    /// The other names of an authority.
    pub fn of(&self, authority: &str) -> impl Iterator<Item = &str> {
        self.others.get(authority).unwrap_or(&self.unlisted).iter().map(String::as_str)
    }
}

/// The authority that a row is about: without the type, and of numbers without an authority the facility.
fn name(from: &str) -> String {
    let authority =
        from.split_once('/').filter(|_| !names_nhs(from)).map_or(from, |(authority, _)| authority);
    let authority = authority.strip_prefix('@').unwrap_or(authority);
    if names_nhs(authority) { NHS.to_owned() } else { spelled(authority) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn check(rows: &str, authority: &str, others: &[&str]) {
        let table = Table::parse("t", Path::new("t"), &format!("from,system\n{rows}")).unwrap();
        assert_eq!(Aliases::of_table(&table).of(authority).collect::<Vec<_>>(), others, "{rows} {authority}");
    }

    #[test]
    fn p4_authorities_with_one_system_are_one() {
        let rows = "RXX/MR,a\nRXX/PI,a\nPAS,a\n@OLDPAS,a\n1.2.3,a\nRYY,b\nLAB,\n";
        check(rows, "rxx", &["1.2.3", "oldpas", "pas"]);
        check(rows, "oldpas", &["1.2.3", "pas", "rxx"]);
        check("RXX/MR,https://RXX/Id\nPAS,https://RXX/Id\n", "https://rxx/id", &["pas", "rxx"]);
        for alone in ["ryy", "lab", "unheard of"] {
            check(rows, alone, &[]);
        }
    }

    #[test]
    fn p4_the_words_for_nhs_numbers_are_one_and_a_trust_may_add_its_own() {
        let rows = "NHS,n\nNHSNBR,n\nhttps://fhir.nhs.uk/Id/nhs-number,n\n";
        check(rows, "nhs", &[]);
        check(&format!("{rows}EPICNHS,n\n"), "epicnhs", &["nhs"]);
    }

    #[test]
    fn p4_a_row_for_all_others_makes_one_of_them() {
        check("*,a\nPAS,a\nRYY,b\n", "pas", &["*"]);
        check("*,a\nPAS,a\nRYY,b\n", "unheard of", &["*", "pas"]);
        check("*,a\nPAS,a\nRYY,b\n", "ryy", &[]);
    }
}
