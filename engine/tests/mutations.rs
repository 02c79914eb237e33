//! Messages that are wrong in ways nobody thought of: the shipped mappings give a valid output or a stated reason,
//! never an error of the script, twice the same, and the same as when Rhai's own evaluator runs the scripts and remembers
//! nothing of the messages before.
//!
//! Each message of `testdata/` (of `TIE_CORPUS` too, if that names a folder) is changed by chance, from a fixed seed:
//! segments lost, doubled or out of order, fields emptied, deleted (`""`), swapped or filled with what does not belong
//! there, and senders that others have the names of. `MUTATIONS=200` makes so many of each message; `SEED=7` begins elsewhere.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

#[path = "support/shipped.rs"]
mod shipped;

use std::{fs, path::PathBuf, sync::Arc};

use shipped::{context, mapping_of, messages, root, shipped};
use tie_engine::{
    hl7::{Message, batch},
    mapping::{Context, Mapped, Mappings},
};

/// What stands in fields where it does not belong.
const JUNK: [&str; 22] = [
    "",
    "\"\"",
    "^",
    "~",
    "&",
    "^^^^^^^^",
    "~~",
    "\\X41\\",
    "\\.br\\",
    "\\F\\",
    "X",
    "  ",
    "99999999999999999999",
    "-1",
    "<5",
    "1.50",
    "2026",
    "20261345",
    "20260329013000",
    "2026-03-01",
    "é^ß~µ",
    "A^B^C^D^E^F^G^H~I&J&K",
];

/// A generator of numbers: the same for the same seed on every machine.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound.max(1)
    }
}

#[test]
fn what_is_wrong_in_any_way_gives_a_valid_output_or_a_reason() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (times, seed) = (number("MUTATIONS", 3), number("SEED", 1));
    let (mappings, by_rhai) = (shipped(), shipped().by_rhai());
    assert_eq!(mappings.run_by_rhai().collect::<Vec<_>>(), Vec::<&str>::new(), "these have no program");
    let mut files = messages(&root().join("testdata"));
    files.extend(std::env::var_os("TIE_CORPUS").iter().flat_map(|folder| messages(&PathBuf::from(folder))));
    let (mut tried, mut mapped, mut wrong) = (0, 0, Vec::new());
    for (number, file) in files.iter().enumerate() {
        let raw = fs::read(file).unwrap();
        let first = batch::split(&raw.clone().into()).messages.first().cloned().unwrap_or(raw.into());
        for time in 0..times {
            let mut chance = Chance(seed ^ (number as u64) << 20 ^ time << 3);
            let text = changed(&String::from_utf8_lossy(&first), &mut chance);
            let Ok(message) = Message::parse(text.clone().into(), encoding_rs::UTF_8) else { continue };
            tried += 1;
            match result(&mappings, &by_rhai, &Arc::new(message)) {
                Ok(made) => mapped += usize::from(made),
                Err(what) => {
                    wrong.push(format!("{}: {what}\n{}\n", file.display(), text.replace('\r', "\n")))
                }
            }
        }
    }
    eprintln!("{tried} messages, {mapped} with an output");
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong[..wrong.len().min(5)].concat());
    assert!(tried > 300 && mapped * 4 > tried, "{tried} tried, {mapped} mapped");
}

/// Whether there is an output; or what went wrong.
fn result(mappings: &Mappings, by_rhai: &Mappings, message: &Arc<Message>) -> Result<bool, String> {
    let Some(name) = mapping_of(message) else { return Ok(false) };
    let context = Context { coverage: true, ..context() };
    let run = |mappings: &Mappings| mappings.run(&name, message, &context);
    let product = run(mappings);
    if run(mappings) != product {
        return Err(format!("{name}: a second run gives something else"));
    }
    let other = run(by_rhai);
    if other != product {
        return Err(format!(
            "{name}: Rhai's evaluator gives something else: {}",
            difference(&product, &other)
        ));
    }
    let product = product.map_err(|error| format!("{name}: {error}"))?;
    Ok(matches!(product.mapped, Mapped::Outputs(_)))
}

/// Where two products part.
fn difference(one: &impl std::fmt::Debug, other: &impl std::fmt::Debug) -> String {
    let (one, other) = (format!("{one:?}"), format!("{other:?}"));
    let same = one.chars().zip(other.chars()).take_while(|(one, other)| one == other).count();
    let part = |text: &str| text.chars().skip(same.saturating_sub(60)).take(200).collect::<String>();
    format!("…{}…\ninstead of …{}…", part(&one), part(&other))
}

/// The message with one to four changes.
fn changed(text: &str, chance: &mut Chance) -> String {
    let mut segments: Vec<String> =
        text.split(['\r', '\n']).filter(|segment| !segment.is_empty()).map(str::to_owned).collect();
    for _ in 0..=chance.below(4) {
        let last = segments.len() - 1;
        if last == 0 {
            break;
        }
        let at = 1 + chance.below(last);
        match chance.below(9) {
            8 => disguise(&mut segments[0], chance),
            0 => drop(segments.remove(at)),
            1 => {
                let twin = segments[at].clone();
                segments.insert(at, twin);
            }
            2 => segments.swap(at, 1 + chance.below(last)),
            3 => {
                let cut = segments[at].char_indices().nth(4 + chance.below(40)).map(|(byte, _)| byte);
                let end = cut.unwrap_or(segments[at].len());
                segments[at].truncate(end);
            }
            _ => fill(&mut segments[at], chance),
        }
    }
    segments.join("\r") + "\r"
}

/// Changes what a message says of its sender: what the same bytes mean goes by that.
fn disguise(header: &mut String, chance: &mut Chance) {
    const SENDERS: [&str; 6] = ["", "PAS", "RXX", "GBR", "USA", "iTKv1.0"];
    let mut fields: Vec<&str> = header.split('|').collect();
    let at = [3, 4, 17, 21][chance.below(4)] - 1;
    fields.resize(fields.len().max(at + 1), "");
    fields[at] = SENDERS[chance.below(SENDERS.len())];
    *header = fields.join("|");
}

/// Puts junk, or another field's content, into a field.
fn fill(segment: &mut String, chance: &mut Chance) {
    let mut fields: Vec<&str> = segment.split('|').collect();
    if fields.len() < 2 {
        return;
    }
    let at = 1 + chance.below(fields.len() - 1);
    fields[at] = match chance.below(3) {
        0 => fields[1 + chance.below(fields.len() - 1)],
        _ => JUNK[chance.below(JUNK.len())],
    };
    *segment = fields.join("|");
}
