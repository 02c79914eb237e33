//! Random lives of a journal, compared with a model that fits on a page.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Home, id, journal, message, outcome, replay};
use crate::journal::{Decision, DeliveryId, Journal, Sequence, State};

pub(super) async fn states(journal: &Journal, destination: &str) -> BTreeMap<DeliveryId, State> {
    let pending = journal.pending(destination, Sequence(0), usize::MAX >> 1).await.unwrap();
    pending.into_iter().map(|one| (one.id, one.state)).collect()
}

/// One step of a random life of a journal.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Messages handed in together; whether each goes to one or two destinations.
    Append(Vec<bool>),
    /// Outcomes handed in together: which of the deliveries ever owed, and where it stands.
    Record(Vec<(prop::sample::Index, State)>),
    Decide(Decision, Vec<State>),
    Reopen,
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let state = prop::sample::select(State::ALL.into_iter().skip(1).collect::<Vec<_>>());
    let decision = prop::sample::select(vec![Decision::Replay, Decision::Release, Decision::Skip]);
    let decided = decision.prop_flat_map(|decision| {
        let states: Vec<_> = State::ALL.into_iter().filter(|state| decision.takes(*state)).collect();
        let all = states.len();
        prop::sample::subsequence(states, 1..=all).prop_map(move |states| Step::Decide(decision, states))
    });
    let step = prop_oneof![
        4 => proptest::collection::vec(any::<bool>(), 1..20).prop_map(Step::Append),
        6 => proptest::collection::vec((any::<prop::sample::Index>(), state), 1..20).prop_map(Step::Record),
        2 => decided,
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..25)
}

/// What the journal should say: where every delivery ever owed stands.
pub(crate) async fn a_random_life_agrees_with_a_model(home: &dyn Home, steps: Vec<Step>) {
    let mut journal = journal(home).await;
    let mut model: BTreeMap<DeliveryId, State> = BTreeMap::new();
    for step in steps {
        match step {
            Step::Append(messages) => append_all(&journal, &mut model, messages).await,
            Step::Record(outcomes) => record_all(&journal, &mut model, outcomes).await,
            Step::Decide(decision, states) => {
                let done = journal.decide(decision, &replay(&states)).await.unwrap();
                let becomes = match decision {
                    Decision::Replay => State::Ready,
                    Decision::Release => State::Retrying,
                    Decision::Skip => State::Dead,
                };
                let mut put_back = 0;
                for state in model.values_mut().filter(|state| states.contains(state)) {
                    *state = becomes;
                    put_back += 1;
                }
                assert_eq!(done.deliveries, put_back);
            }
            Step::Reopen => {
                journal.close().await;
                journal = self::journal(home).await;
            }
        }
        agree(&journal, &model).await;
    }
}

async fn append_all(journal: &Journal, model: &mut BTreeMap<DeliveryId, State>, messages: Vec<bool>) {
    let appends = messages.into_iter().enumerate().map(|(number, twice)| async move {
        let both = [("adt", "record"), ("adt", "archive")];
        let to = if twice { &both[..] } else { &both[..1] };
        let sequence = journal.append(message(number as i64, to)).await.unwrap();
        to.iter().map(|(route, destination)| id(sequence, route, destination)).collect::<Vec<_>>()
    });
    for ids in futures::future::join_all(appends).await {
        model.extend(ids.into_iter().map(|id| (id, State::Ready)));
    }
}

async fn record_all(
    journal: &Journal,
    model: &mut BTreeMap<DeliveryId, State>,
    outcomes: Vec<(prop::sample::Index, State)>,
) {
    let known: Vec<_> = model.keys().cloned().collect();
    if known.is_empty() {
        return;
    }
    let mut records = Vec::new();
    for (which, state) in outcomes {
        let id = which.get(&known);
        let stands = model.get_mut(id).unwrap();
        // The model's own rule: an end is an end until a replay.
        if !stands.is_end() {
            *stands = state;
        }
        records.push(journal.record(outcome(id, state, 1)));
    }
    // Polled in this order, so that the journal gets them in this order.
    for recorded in futures::future::join_all(records).await {
        recorded.unwrap();
    }
}

async fn agree(journal: &Journal, model: &BTreeMap<DeliveryId, State>) {
    let mut counts: BTreeMap<(String, State), u64> = BTreeMap::new();
    for (id, state) in model {
        if !state.is_end() || *state == State::Dead {
            *counts.entry((id.destination.clone(), *state)).or_default() += 1;
        }
    }
    for destination in ["record", "archive"] {
        let expected: BTreeMap<_, _> = model
            .iter()
            .filter(|(id, state)| id.destination == destination && !state.is_end())
            .map(|(id, state)| (id.clone(), *state))
            .collect();
        assert_eq!(states(journal, destination).await, expected);
    }
    let counted: BTreeMap<_, _> = journal
        .counts()
        .await
        .unwrap()
        .into_iter()
        .filter(|count| count.deliveries > 0)
        .map(|count| ((count.destination, count.state), count.deliveries))
        .collect();
    assert_eq!(counted, counts);
    let dead: Vec<_> =
        journal.dead(usize::MAX >> 1, Sequence(0)).await.unwrap().into_iter().map(|one| one.id).collect();
    let expected: Vec<_> =
        model.iter().filter(|(_, state)| **state == State::Dead).map(|(id, _)| id.clone()).collect();
    assert_eq!(dead, expected);
}
