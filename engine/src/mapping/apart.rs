//! What would be kept under the same words in one message, told apart.
//!
//! `apart(kind, [[value, more, …], …])` gives the words that each of the list is kept under: its value, and where several
//! have the same, what of `more` differs among them, the first that does before the next. So a later message that sends
//! one of them alone never takes the place of another. What is still the same has the number of the time behind it, as
//! `nth` counts it for this kind. `alike(SERIES, groups)` says whether any two of a series would need it.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    hash::BuildHasher,
};

use foldhash::fast::FixedState;
use rhai::EvalAltResult;
use smol_str::{SmolStr, format_smolstr};

use super::{
    current::{Current, with},
    datum::{Datum, List},
    fault::fault,
    handles::text,
    host::Host,
    series::SeriesHandle,
};
use crate::fhir::types::Finding;

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

const KEPT_APART: &str = "several of the message have the same number and code, and are kept under what differs: a later \
                          message that names one of them alone is kept apart";

/// Gives scripts both.
pub(super) fn register(host: &mut Host) {
    host.register_fn("apart", |kind: SmolStr, all: List| -> Result<Vec<Datum>> {
        let mut all = all.iter().map(One::of).collect::<Result<Vec<_>>>()?;
        let levels = all.iter().map(|one| one.more.len()).max().unwrap_or_default();
        with(|current| {
            (0..levels).for_each(|level| split(&mut all, level, current));
            Ok(all.into_iter().map(|one| numbered(&kind, one.words, current).into()).collect())
        })
    })
    .register_fn("alike", |series: SeriesHandle, groups: List| {
        with(|current| {
            // By their hashes: two that only seem alike are found to differ by `apart`.
            let (hasher, mut words) = (FixedState::default(), String::new());
            let mut known: HashSet<u64, FixedState> = HashSet::default();
            Ok(groups.iter().any(|group| {
                let Datum::Group(group) = group else { return false };
                words.clear();
                series.words(group, current, &mut words);
                !known.insert(hasher.hash_one(&words))
            }))
        })
    });
}

struct One {
    words: String,
    more: Vec<SmolStr>,
}

impl One {
    fn of(item: &Datum) -> Result<Self> {
        let Datum::List(parts) = item else { return Err(fault("`apart` takes a list of lists")) };
        let mut parts = parts.iter().cloned().map(text).collect::<Result<Vec<_>>>()?.into_iter();
        let Some(words) = parts.next() else {
            return Err(fault("`apart` takes a value before what may differ"));
        };
        Ok(Self { words: words.into(), more: parts.collect() })
    }

    fn at(&self, level: usize) -> &str {
        self.more.get(level).map_or("", SmolStr::as_str)
    }
}

/// Those of the same words get this part of what may differ behind them, if it does. One that lacks it stays where it is.
fn split(all: &mut [One], level: usize, current: &Current) {
    let mut found = BTreeMap::<&str, BTreeSet<&str>>::new();
    for one in &*all {
        found.entry(&one.words).or_default().insert(one.at(level));
    }
    if found.values().any(|parts| parts.len() > 1 && !parts.contains("")) {
        current.cx(None).report(Finding::Doubtful(KEPT_APART));
    }
    let differs: Vec<bool> =
        all.iter().map(|one| found.get(one.words.as_str()).is_some_and(|parts| parts.len() > 1)).collect();
    for (one, _) in all.iter_mut().zip(differs).filter(|(_, differs)| *differs) {
        if let Some(part) = one.more.get(level).filter(|part| !part.is_empty()) {
            one.words.push('/');
            one.words.push_str(part);
        }
    }
}

fn numbered(kind: &str, words: String, current: &mut Current) -> SmolStr {
    let count = current.counts.entry(format_smolstr!("{kind}{words}")).or_default();
    *count += 1;
    if *count > 1 { format_smolstr!("{words}/{count}") } else { words.into() }
}
