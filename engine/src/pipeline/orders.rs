//! By what the messages of each route were put in order before the configuration changed, for as long as one of them
//! waits.
//!
//! Promise:  P4. Whoever changes a route's `order`, or what patients are told apart by, lets nobody overtake: while
//!           something of the route waits in the earlier order, its new messages stand in the lanes of both. A note in the
//!           journal says so, so that a restart changes nothing in it.
//! Not here: the lanes themselves (delivery).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use crate::{
    config::Patients,
    incoming::Incoming,
    intake::PatientKeys,
    journal::{Journal, JournalError, Sequence},
    revision::{Aliases, Revision},
    routing::{Order, Route},
};

/// The note in the journal: for each route its rules, the live one first.
const NOTE: &str = "orders";

type Rules = BTreeMap<String, Vec<Rule>>;

/// By what messages are put in order.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Rule {
    order: Order,
    /// What patients are told apart by, if that matters.
    identifiers: Vec<String>,
}

/// The rules of each route, with those that somebody still waits by.
#[derive(Default)]
pub(super) struct Orders {
    /// As the note says; none if it was not read yet.
    noted: Mutex<Option<Rules>>,
    /// As they were when `forget` last looked, and how far the journal was once they had been so for a while.
    looked_at: Mutex<(Rules, Option<Sequence>)>,
    /// By the route, without the live rule.
    former: ArcSwap<HashMap<String, Vec<(Order, Patients)>>>,
}

impl Orders {
    /// Gets ready for a revision: its messages will stand in the lanes of what waits by other rules too.
    ///
    /// # Errors
    /// The note could not be read or written: the revision must not go live.
    pub async fn expect(&self, revision: &Revision, journal: &Journal) -> Result<(), JournalError> {
        let mut noted = self.noted.lock().await;
        let before = match noted.take() {
            Some(rules) => rules,
            None => read(journal).await?,
        };
        let mut rules = before.clone();
        for route in revision.routes.iter() {
            let rule = Rule::of(&route.order, &revision.config.patients);
            let of_route = rules.entry(route.name.clone()).or_default();
            of_route.retain(|one| *one != rule);
            of_route.insert(0, rule);
        }
        self.keep(&before, &rules, journal).await?;
        *noted = Some(rules);
        Ok(())
    }

    /// Forgets the rules that nobody waits by any more, and routes that are gone. Rules that have changed since the last
    /// time are left alone: what was received by the earlier ones may still be on its way into the journal.
    ///
    /// # Errors
    /// The journal could not be read or written; nothing is forgotten then.
    pub async fn forget(&self, revision: &Revision, journal: &Journal) -> Result<(), JournalError> {
        let mut noted = self.noted.lock().await;
        let Some(before) = noted.clone() else { return Ok(()) };
        let mut looked_at = self.looked_at.lock().await;
        if looked_at.0 != before {
            *looked_at = (before, None);
            return Ok(());
        }
        let up_to = *looked_at.1.get_or_insert_with(|| journal.watch().borrow().last);
        let mut rules = before.clone();
        for (route, of_route) in &before {
            let is_live = revision.routes.get(route).is_some();
            if (is_live && of_route.len() == 1) || journal.has_waiting(route, up_to).await? {
                continue;
            }
            match rules.get_mut(route).filter(|_| is_live) {
                Some(of_route) => of_route.truncate(1),
                None => drop(rules.remove(route)),
            }
        }
        self.keep(&before, &rules, journal).await?;
        *noted = Some(rules);
        Ok(())
    }

    /// Adds the lanes of rules that somebody waits by.
    pub fn add_former(&self, lanes: &mut Vec<String>, route: &Route, message: &Incoming, aliases: &Aliases) {
        let former = self.former.load();
        for (order, patients) in former.get(&route.name).into_iter().flatten() {
            let keys = PatientKeys::of_incoming(message, patients);
            for lane in super::lanes(&route.name, order, message, &keys, aliases) {
                if !lanes.contains(&lane) {
                    lanes.push(lane);
                }
            }
        }
    }

    async fn keep(&self, before: &Rules, rules: &Rules, journal: &Journal) -> Result<(), JournalError> {
        if rules != before {
            journal.note(NOTE, &serde_json::json!(rules).to_string()).await?;
        }
        let former = rules.iter().filter_map(|(route, rules)| {
            // Where nothing was in order, nobody can be overtaken.
            let former = rules.iter().skip(1).filter(|rule| rule.order != Order::None);
            let former: Vec<_> = former.map(|rule| (rule.order.clone(), rule.patients())).collect();
            (!former.is_empty()).then(|| (route.clone(), former))
        });
        self.former.store(Arc::new(former.collect()));
        Ok(())
    }
}

async fn read(journal: &Journal) -> Result<Rules, JournalError> {
    let Some(note) = journal.noted(NOTE).await? else { return Ok(Rules::new()) };
    serde_json::from_str(&note).map_err(|error| JournalError::Read(format!("its note `{NOTE}`: {error}")))
}

impl Rule {
    fn of(order: &Order, patients: &Patients) -> Self {
        let identifiers = match order {
            Order::Patient => patients.identifiers.clone(),
            Order::Route | Order::None | Order::Value(_) => Vec::new(),
        };
        Self { order: order.clone(), identifiers }
    }

    fn patients(&self) -> Patients {
        Patients { identifiers: self.identifiers.clone(), ..Patients::default() }
    }
}
