//! What would be kept under the same words in one message, told apart.
//!
//! `apart(kind, [[key, status, more, …], …])` gives `[place, key]` for each of the list, in its order: what it is kept under,
//! its own key (`#{ system, value }`), and where several have the same, what of `more` differs among them, the first that
//! does before the next. So a later message that sends one of them alone never takes the place of another. What is still the
//! same has the number of the time behind it, as `again` counts it for this kind.
//!
//! What is taken back (`entered-in-error`) beside its correction (`corrected`, of the same key) leaves it the key. If more
//! than that differs, it may have been told alone before: then it stands at the end of the list a second time, under its
//! own key. `alike(SERIES, groups)` says whether any two of a series would need it.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt::Write as _,
    hash::BuildHasher,
    sync::Arc,
};

use foldhash::fast::FixedState;
use rhai::{EvalAltResult, INT};
use smol_str::{SmolStr, format_smolstr};

use super::{
    current::{Current, with},
    datum::{Datum, List},
    fault::fault,
    handles::text,
    host::Host,
    pairs::Map,
    series::SeriesHandle,
};
use crate::fhir::types::Finding;

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

const KEPT_APART: &str = "several of the message have the same number and code, and are kept under what differs: what an \
                          earlier or later message tells of one of them alone stands beside it";

/// Before the number of the time: what ends a repetition is in hardly any value.
const TIME: char = '~';

/// Gives scripts all three.
pub(super) fn register(host: &mut Host) {
    host.register_fn("apart", |kind: SmolStr, all: List| -> Result<Datum> {
        let mut all = all.iter().enumerate().map(One::of).collect::<Result<Vec<_>>>()?;
        let levels = all.iter().map(|one| one.more.len()).max().unwrap_or_default();
        with(|current| {
            replace(&mut all);
            (0..levels).for_each(|level| split(&mut all, level, current));
            let alone = told_alone(&all);
            Ok(all.into_iter().chain(alone).map(|one| one.kept(&kind, current)).collect())
        })
    })
    .register_fn("again", |kind: SmolStr, system: SmolStr, value: SmolStr| {
        with(|current| {
            let mut words = value.to_string();
            number(&kind, &system, &mut words, current);
            Ok(SmolStr::from(words))
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

#[derive(Clone)]
struct One {
    place: usize,
    key: Arc<Map>,
    system: SmolStr,
    /// The value of its key, before it is told apart.
    own: SmolStr,
    words: String,
    /// What may differ, last whether it is taken back for another.
    more: Vec<SmolStr>,
    status: SmolStr,
    is_replaced: bool,
}

impl One {
    fn of((place, item): (usize, &Datum)) -> Result<Self> {
        let Datum::List(parts) = item else { return Err(fault("`apart` takes a list of lists")) };
        let [Datum::Map(key), status, more @ ..] = &parts[..] else {
            return Err(fault("`apart` takes a key and a status before what may differ"));
        };
        let of_key = |name| key.get(name).cloned().map_or(Ok(SmolStr::default()), text);
        let mut more = more.iter().cloned().map(text).collect::<Result<Vec<_>>>()?;
        more.push(SmolStr::default());
        let (system, own) = (of_key("system")?, of_key("value")?);
        let (words, status) = (own.to_string(), text(status.clone())?);
        Ok(Self { place, key: key.clone(), system, own, words, more, status, is_replaced: false })
    }

    fn kept(mut self, kind: &str, current: &mut Current) -> Datum {
        number(kind, &self.system, &mut self.words, current);
        *Arc::make_mut(&mut self.key).entry("value") = SmolStr::from(self.words).into();
        vec![Datum::Integer(self.place as INT), Datum::Map(self.key)].into()
    }

    fn at(&self, level: usize) -> &str {
        self.more.get(level).map_or("", SmolStr::as_str)
    }
}

/// Those of the same words get this part of what may differ behind them, if it does. One that lacks it stays where it is.
fn split(all: &mut [One], level: usize, current: &Current) {
    let mut found = BTreeMap::<(&str, &str), BTreeSet<&str>>::new();
    for one in &*all {
        found.entry((&one.system, &one.words)).or_default().insert(one.at(level));
    }
    if found.values().any(|parts| parts.len() > 1 && !parts.contains("")) {
        current.cx(None).report(Finding::Doubtful(KEPT_APART));
    }
    let differs = |one: &One| found.get(&(&*one.system, &*one.words)).is_some_and(|parts| parts.len() > 1);
    let differs: Vec<bool> = all.iter().map(differs).collect();
    for (one, _) in all.iter_mut().zip(differs).filter(|(_, differs)| *differs) {
        if let Some(part) = one.more.get(level).filter(|part| !part.is_empty()) {
            one.words.push('/');
            one.words.push_str(part);
        }
    }
}

/// Marks what is taken back while its correction stands beside it.
fn replace(all: &mut [One]) {
    let corrected = all.iter().filter(|one| one.status == "corrected");
    let corrected: BTreeSet<_> = corrected.map(|one| (one.system.clone(), one.own.clone())).collect();
    for one in all.iter_mut().filter(|one| one.status == "entered-in-error") {
        one.is_replaced = corrected.contains(&(one.system.clone(), one.own.clone()));
        if let (true, Some(last)) = (one.is_replaced, one.more.last_mut()) {
            *last = "withdrawn".into();
        }
    }
}

/// What is taken back for another, as it was kept if it had come alone; where several had, the first.
fn told_alone(all: &[One]) -> Vec<One> {
    let mut taken: BTreeSet<(&str, &str)> = all.iter().map(|one| (&*one.system, &*one.words)).collect();
    let alone = all.iter().filter(|one| one.is_replaced && taken.insert((&one.system, &one.own)));
    alone.map(|one| One { words: one.own.to_string(), ..one.clone() }).collect()
}

/// Puts the number of the time behind words that come again in a message, of this kind and system.
pub(super) fn number(kind: &str, system: &str, words: &mut String, current: &mut Current) {
    let counts = &mut current.counts;
    let count = counts.entry(format_smolstr!("{kind}{system}{TIME}{words}")).or_default();
    *count += 1;
    if *count == 1 {
        return;
    }
    // Somebody may say what looks like one that is numbered.
    let (bare, mut number) = (words.len(), *count);
    loop {
        words.truncate(bare);
        let _ = write!(words, "{TIME}{number}");
        let given = counts.entry(format_smolstr!("{kind}{system}{TIME}{words}")).or_default();
        *given += 1;
        if *given == 1 {
            return;
        }
        number += 1;
    }
}
