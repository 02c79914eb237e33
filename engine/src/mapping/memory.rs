//! What was read before: the same staff, places, organisations and codes stand in message after message, and become the
//! same each time.
//!
//! Promise:  what is remembered is what the converter would make: it is kept under all that the converter looks at (the
//!           part, the table, the separators, and of the sender MSH-3, 4, 17 and 21), and is not kept where it looked at
//!           more, or reported something. It belongs to one revision.
//! Bounded:  parts up to [`LONGEST`] bytes, two generations of [`MOST`] each; what nobody asked for during a whole
//!           generation is forgotten.
//! Not here: who a patient is. Codes, and what fields name, are all that is asked for.

use std::{collections::HashMap, mem::take, sync::Arc};

use foldhash::fast::RandomState;

use crate::{
    fhir::{
        Node, Resource,
        types::{
            Convert, Converter, Cx,
            resources::{self, Named},
        },
    },
    hl7::{Message, Part, Separators},
};

/// Parts that a generation remembers of each kind.
const MOST: usize = 2048;

/// A longer part is not remembered.
const LONGEST: usize = 256;

/// Senders that are told apart at once; more make it begin anew.
const SENDERS: usize = 1024;

/// What one thread at a time remembers of one revision.
#[derive(Default)]
pub(super) struct Memory {
    senders: HashMap<Box<[u8]>, u32, RandomState>,
    /// Who sends the message at hand.
    sender: u32,
    values: Generations<Option<Node>>,
    named: Generations<Arc<Known>>,
    /// What is looked for: a buffer, so that looking costs nothing.
    key: Vec<u8>,
}

/// What a field names: resources, and the references to them.
#[derive(Default)]
pub(super) struct Known {
    pub resources: Vec<Resource>,
    pub references: Vec<Node>,
}

/// What was asked for of late, and before that.
struct Generations<V> {
    recent: HashMap<Box<[u8]>, V, RandomState>,
    older: HashMap<Box<[u8]>, V, RandomState>,
}

/// Whether what a converter gives comes again in other messages: codes do, numbers and times do not.
pub(super) fn is_worth_it(converter: &Converter) -> bool {
    matches!(converter.to, "CodeableConcept" | "Coding") || (converter.name, converter.to) == ("HD", "uri")
}

impl Memory {
    /// Begins with a message: what one sender means is not what another means.
    pub fn attend(&mut self, message: &Message) {
        let Separators { field, component, repetition, escape, subcomponent, truncation } =
            message.separators();
        let optional = [escape, subcomponent, truncation].map(Option::unwrap_or_default);
        self.key.clear();
        self.key.extend([field, component, repetition].into_iter().chain(optional));
        for field in [3, 4, 17, 21] {
            self.key.extend_from_slice(message.header(field).part().map_or("", Part::raw).as_bytes());
            self.key.push(b'\r');
        }
        if let Some(known) = self.senders.get(self.key.as_slice()) {
            self.sender = *known;
            return;
        }
        if self.senders.len() >= SENDERS {
            *self = Self { key: take(&mut self.key), ..Self::default() };
        }
        self.sender = u32::try_from(self.senders.len()).unwrap_or(u32::MAX);
        self.senders.insert(self.key.as_slice().into(), self.sender);
    }

    /// What the converter makes of a part.
    pub fn value(&mut self, convert: Convert, part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
        let table = cx.table.map_or(0, |table| std::ptr::from_ref(table).addr());
        self.look_for(convert as usize, table, &[part]);
        if let Some(known) = self.values.get(&self.key) {
            return known;
        }
        cx.is_passing.set(false);
        let made = convert(part, cx);
        if cx.is_passing.get() || self.key.len() > LONGEST {
            return made;
        }
        let made = made.map(Node::in_common);
        self.values.put(&self.key, made.clone());
        made
    }

    /// What the parts of one field name.
    pub fn named(&mut self, data_type: &'static str, parts: &[Part<'_>], cx: &Cx<'_>) -> Arc<Known> {
        self.look_for(data_type.as_ptr().addr(), 0, parts);
        if let Some(known) = self.named.get(&self.key) {
            return known;
        }
        cx.is_passing.set(false);
        let named = resources::named(data_type, parts, cx).unwrap_or_default();
        let known = Arc::new(Known::of(named));
        if !cx.is_passing.get() && self.key.len() <= LONGEST {
            self.named.put(&self.key, known.clone());
        }
        known
    }

    fn look_for(&mut self, what: usize, table: usize, parts: &[Part<'_>]) {
        self.key.clear();
        self.key.extend_from_slice(&self.sender.to_ne_bytes());
        self.key.extend_from_slice(&what.to_ne_bytes());
        self.key.extend_from_slice(&table.to_ne_bytes());
        for part in parts {
            self.key.extend_from_slice(part.raw().as_bytes());
            self.key.push(b'\r');
        }
    }
}

impl Known {
    fn of(named: Vec<Named>) -> Self {
        let mut known = Self::default();
        for Named { resources, display } in named {
            let target = resources.last().map(Resource::target);
            known.references.push(Node::reference(target, display.map(Node::Text)).in_common());
            known.resources.extend(resources.into_iter().map(Resource::in_common));
        }
        known
    }
}

impl<V> Default for Generations<V> {
    fn default() -> Self {
        Self { recent: HashMap::default(), older: HashMap::default() }
    }
}

impl<V: Clone> Generations<V> {
    fn get(&mut self, key: &[u8]) -> Option<V> {
        if let Some(known) = self.recent.get(key) {
            return Some(known.clone());
        }
        let known = self.older.remove(key)?;
        self.put(key, known.clone());
        Some(known)
    }

    fn put(&mut self, key: &[u8], value: V) {
        if self.recent.len() >= MOST {
            self.older = take(&mut self.recent);
        }
        self.recent.insert(key.into(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::types::{CONVERTERS, converter_tests::on};

    const SEGMENT: &str =
        "ZZZ|C9999993^SEACOLE^MARY|C9999993^SEACOLE^MARY^^^^^^^^^^^^^^^^20260101090000|A^B^L|^\r";

    /// What of the fields of a message is remembered after it: staff of the first two, codes of the third.
    fn remembered(memory: &mut Memory, header: &str) -> (usize, usize) {
        let concept = CONVERTERS.iter().find(|one| is_worth_it(one)).expect("codes are worth it").convert;
        on(header, SEGMENT, |message, cx| {
            memory.attend(message);
            let field = |number| message.segment("ZZZ").and_then(|segment| segment.field(number).part());
            for _ in 0..2 {
                for part in [1, 2].into_iter().filter_map(field) {
                    assert_eq!(memory.named("XCN", &[part], cx).resources.len(), 1);
                }
                assert_eq!(
                    field(3).and_then(|part| memory.value(concept, part, cx)),
                    field(3).and_then(|part| concept(part, cx))
                );
            }
            String::new()
        });
        (memory.named.recent.len(), memory.values.recent.len())
    }

    #[test]
    fn the_same_part_of_the_same_sender_is_read_once_and_what_goes_by_the_message_each_time() {
        let mut memory = Memory::default();
        assert_eq!(remembered(&mut memory, "RXX|||20260115093000|"), (1, 1));
        assert_eq!(remembered(&mut memory, "RXX|||20260116093000|"), (1, 1));
        assert_eq!(remembered(&mut memory, "RYY|||20260116093000|"), (2, 2));
    }

    #[test]
    fn what_nobody_asks_for_is_forgotten_and_what_is_asked_for_is_kept() {
        let mut all = Generations::default();
        let key = |number: usize| number.to_ne_bytes();
        for number in 0..10 * MOST {
            all.put(&key(number), number);
            assert_eq!(all.get(&key(3)), (number >= 3).then_some(3), "{number}");
            assert!(all.recent.len() + all.older.len() <= 2 * MOST);
        }
        assert_eq!((all.get(&key(5)), all.get(&key(10 * MOST - 1))), (None, Some(10 * MOST - 1)));
    }

    #[test]
    fn more_senders_than_are_told_apart_begin_anew() {
        let mut memory = Memory::default();
        for number in 0..3 * SENDERS {
            let (_, values) = remembered(&mut memory, &format!("R{number}|||20260115093000|"));
            assert!(memory.senders.len() <= SENDERS && values <= SENDERS);
        }
    }
}
