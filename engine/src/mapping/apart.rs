//! What would be kept under the same words in one message, told apart.
//!
//! `apart(kind, [[key, status, more, …], …])` gives `[place, key]` for each of the list, in its order: what it is kept under,
//! its own key (`#{ system, value }`), and where several have the same, what of `more` differs among them, the first that
//! does before the next. So a later message that sends one of them alone never takes the place of another. What is still the
//! same has the number of the time behind it, as `again` counts it for this kind.
//!
//! What is taken back (`entered-in-error`) leaves its key to what is not, and stands a second time at the end of the list
//! where it may have been told before: under the number of its place among those that are the same but for that; and, beside
//! its correction (`corrected`, of the same key), from which it differs in more, under its own key alone.
//! `alike(SERIES, groups)` says whether any two of a series would need it.

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
            (0..levels).for_each(|level| split(&mut all, level, current));
            let before = told_before(&mut all);
            let all: Vec<One> = all.into_iter().chain(before).collect();
            for one in &all {
                current.counts.entry(counted(&kind, &one.system, &one.words)).or_default();
            }
            Ok(all.into_iter().map(|one| one.kept(&kind, current)).collect())
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
    /// What may differ.
    more: Vec<SmolStr>,
    status: SmolStr,
}

impl One {
    fn of((place, item): (usize, &Datum)) -> Result<Self> {
        let Datum::List(parts) = item else { return Err(fault("`apart` takes a list of lists")) };
        let [Datum::Map(key), status, more @ ..] = &parts[..] else {
            return Err(fault("`apart` takes a key and a status before what may differ"));
        };
        let of_key = |name| key.get(name).cloned().map_or(Ok(SmolStr::default()), text);
        let more = more.iter().cloned().map(text).collect::<Result<Vec<_>>>()?;
        let (system, own) = (of_key("system")?, of_key("value")?);
        let (words, status) = (own.to_string(), text(status.clone())?);
        Ok(Self { place, key: key.clone(), system, own, words, more, status })
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

/// What is taken back leaves its words to what is not. Gives it as it may have been told before, where nothing else of the
/// message stands.
fn told_before(all: &mut [One]) -> Vec<One> {
    let is_back = |one: &One| one.status == "entered-in-error";
    let key = |one: &One| (one.system.clone(), one.own.clone());
    let words = |one: &One| (one.system.clone(), one.words.clone());
    let corrected: BTreeSet<_> = all.iter().filter(|one| one.status == "corrected").map(key).collect();
    let mut standing = BTreeMap::<_, usize>::new();
    for one in all.iter().filter(|one| !is_back(one)) {
        *standing.entry(words(one)).or_default() += 1;
    }
    let mut taken: BTreeSet<_> = all.iter().map(words).collect();
    let mut places = BTreeMap::<_, usize>::new();
    let mut before = Vec::new();
    for one in all {
        let place = places.entry(words(one)).or_default();
        *place += 1;
        if !is_back(one) {
            continue;
        }
        let earlier = match standing.get(&words(one)) {
            Some(standing) => (*place > *standing).then(|| format!("{}{TIME}{place}", one.words)),
            None => corrected.contains(&key(one)).then(|| one.own.to_string()),
        };
        if standing.contains_key(&words(one)) {
            one.words.push_str("/withdrawn");
        }
        let again = earlier.map(|words| One { words, ..one.clone() });
        before.extend(again.filter(|again| taken.insert(words(again))));
    }
    before
}

/// Puts the number of the time behind words that come again in a message, of this kind and system.
pub(super) fn number(kind: &str, system: &str, words: &mut String, current: &mut Current) {
    let counts = &mut current.counts;
    let (own, bare) = (counted(kind, system, words), words.len());
    let mut number = counts.get(&own).map_or(1, |count| count + 1);
    if number == 1 {
        counts.insert(own, number);
        return;
    }
    // Others may say what looks like one that is numbered.
    loop {
        words.truncate(bare);
        let _ = write!(words, "{TIME}{number}");
        let numbered = counted(kind, system, words);
        if !counts.contains_key(&numbered) {
            counts.insert(numbered, 1);
            counts.insert(own, number);
            return;
        }
        number += 1;
    }
}

/// Under what it is counted how often words were given.
fn counted(kind: &str, system: &str, words: &str) -> SmolStr {
    format_smolstr!("{kind}{system}{TIME}{words}")
}
