//! What was read before: the same staff, places, organisations and codes stand in message after message, and become the
//! same each time.
//!
//! Promise:  what is remembered is what the converter would make: it is kept under all that the converter looks at (the
//!           part, the table, the separators, and of the sender MSH-3, 4, 17 and 21), and is not kept where it looked at
//!           more, or reported something. It belongs to one revision, and all threads share it.
//! Bounded:  parts up to [`LONGEST`] bytes that came twice of late, two generations of [`MOST`] each; what nobody asked
//!           for during a whole generation is forgotten. Of more than [`SENDERS`] senders the later ones' are not kept.
//! Not here: who a patient is. Codes, and what fields name, are all that is asked for in other messages; the identifiers
//!           of a message are kept while it is mapped, [`IDENTIFIERS`] at most, and go with it.

use std::{
    array,
    cell::RefCell,
    collections::HashMap,
    hash::BuildHasher,
    mem::take,
    ops::Range,
    sync::{Arc, OnceLock},
};

use foldhash::fast::RandomState;
use parking_lot::{Mutex, RwLock};
use smol_str::SmolStr;

use crate::{
    fhir::{
        Node, Resource,
        name::name,
        types::{
            Convert, Converter, Cx,
            resources::{self, Named},
        },
    },
    hl7::{Message, Part, Separators},
};

/// Parts that a generation of a shelf remembers.
const MOST: usize = 512;

/// Shelves, each with a lock of its own.
const SHELVES: usize = 16;

/// Parts of late of which a shelf knows that they came once.
const ONCE: usize = 512;

/// A longer part is not remembered.
const LONGEST: usize = 256;

/// Senders that are told apart.
const SENDERS: usize = 1024;

/// Identifiers of one message that are kept for who asks next.
const IDENTIFIERS: usize = 16;

/// What a revision remembers.
#[derive(Default)]
pub(super) struct Memory {
    senders: RwLock<HashMap<Box<[u8]>, u32, RandomState>>,
    values: Shelves<Option<Node>>,
    named: Shelves<Arc<Known>>,
    /// See [`Recall::engine`].
    engine: OnceLock<(SmolStr, Node)>,
}

/// What is remembered of one kind.
struct Shelves<V> {
    shelves: [Mutex<Shelf<V>>; SHELVES],
    hasher: RandomState,
}

/// A part of the memory: what was asked for of late, and before that.
struct Shelf<V> {
    recent: HashMap<Box<[u8]>, V, RandomState>,
    older: HashMap<Box<[u8]>, V, RandomState>,
    /// What came once, by its hash.
    once: Box<[u64]>,
}

/// The memory while one message is mapped.
#[derive(Default)]
pub(super) struct Recall {
    memory: Option<Arc<Memory>>,
    /// Who sends the message, by number.
    sender: u32,
    /// What is looked for: a buffer, so that looking costs nothing.
    key: Vec<u8>,
    /// What a script asked for to find what a resource is kept under, by converter and place in the message: the segment
    /// map puts the same into the resource.
    identifiers: Vec<(Convert, Range<*const u8>, Node)>,
}

/// What a field names: resources, and the references to them.
#[derive(Default)]
pub(super) struct Known {
    pub resources: Vec<Resource>,
    pub references: Vec<Node>,
}

/// A converter, by way of the memory where what it gives comes again in other messages: codes do, numbers and times do not.
#[derive(Clone, Copy)]
pub(super) struct Reader {
    convert: Convert,
    comes_again: bool,
    is_identifier: bool,
}

impl Reader {
    pub fn of(converter: &Converter) -> Self {
        let comes_again = matches!(converter.to, "CodeableConcept" | "Coding")
            || (converter.name, converter.to) == ("HD", "uri");
        Self { convert: converter.convert, comes_again, is_identifier: converter.to == "Identifier" }
    }

    /// The same for a converter that gives identifiers.
    pub fn of_identifier(convert: Convert) -> Self {
        Self { convert, comes_again: false, is_identifier: true }
    }

    /// What the converter makes of a part.
    #[inline(never)]
    pub fn read(self, part: Part<'_>, cx: &Cx<'_>, recall: &RefCell<Recall>) -> Option<Node> {
        if self.comes_again {
            return recall.borrow_mut().value(self.convert, part, cx);
        }
        let known = self.is_identifier.then(|| recall.borrow_mut().take_identifier(self.convert, part));
        let Some(known) = known.flatten() else { return (self.convert)(part, cx) };
        debug_assert!(self.makes(&known, part, cx), "another identifier was kept for this place");
        Some(known)
    }

    /// Whether it makes this, without reporting anything anew.
    fn makes(self, known: &Node, part: Part<'_>, cx: &Cx<'_>) -> bool {
        let findings = RefCell::default();
        let is_of_one_message = cx.is_of_one_message.clone();
        (self.convert)(part, &Cx { findings: &findings, is_of_one_message, ..*cx }).as_ref() == Some(known)
    }

    /// The same, for a script: the segment map that asks next need not make it again.
    pub fn read_first(self, part: Part<'_>, cx: &Cx<'_>, recall: &RefCell<Recall>) -> Option<Node> {
        let made = self.read(part, cx, recall)?;
        if self.is_identifier {
            recall.borrow_mut().keep_identifier(self.convert, part, &made);
        }
        Some(made)
    }
}

impl Memory {
    /// The number of a sender; none when there are too many.
    fn sender(&self, said: &[u8]) -> Option<u32> {
        if let Some(known) = self.senders.read().get(said) {
            return Some(*known);
        }
        let mut senders = self.senders.write();
        if senders.len() >= SENDERS {
            return None;
        }
        let number = u32::try_from(senders.len()).ok()?;
        Some(*senders.entry(said.into()).or_insert(number))
    }
}

impl Recall {
    /// Begins with a message: what one sender means is not what another means. Without a memory nothing is remembered.
    pub fn of(message: &Message, memory: Option<&Arc<Memory>>) -> Self {
        let Some(memory) = memory else { return Self::default() };
        let Separators { field, component, repetition, escape, subcomponent, truncation } =
            message.separators();
        let optional = [escape, subcomponent, truncation].map(Option::unwrap_or_default);
        let mut key = Vec::with_capacity(LONGEST);
        key.extend([field, component, repetition].into_iter().chain(optional));
        for field in [3, 4, 17, 21] {
            key.extend_from_slice(message.header(field).part().map_or("", Part::raw).as_bytes());
            key.push(b'\r');
        }
        match memory.sender(&key) {
            Some(sender) => Self { memory: Some(memory.clone()), sender, key, identifiers: Vec::new() },
            None => Self::default(),
        }
    }

    /// Keeps an identifier for [`Reader::read`].
    pub fn keep_identifier(&mut self, convert: Convert, part: Part<'_>, made: &Node) {
        if self.identifiers.len() < IDENTIFIERS {
            self.identifiers.push((convert, place(part), made.clone()));
        }
    }

    fn take_identifier(&mut self, convert: Convert, part: Part<'_>) -> Option<Node> {
        let place = place(part);
        let mut known = self.identifiers.iter();
        let found = known.position(|(by, at, _)| *at == place && std::ptr::fn_addr_eq(*by, convert))?;
        Some(self.identifiers.swap_remove(found).2)
    }

    #[inline(never)]
    fn value(&mut self, convert: Convert, part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
        let table = cx.table.map_or(0, |table| std::ptr::from_ref(table).addr());
        self.look_for([&(convert as usize).to_ne_bytes(), &table.to_ne_bytes()], &[part]);
        let make = || convert(part, cx);
        match &self.memory {
            Some(memory) => memory.values.recall(&self.key, cx, make, |made| made.map(Node::in_common)),
            None => make(),
        }
    }

    /// This engine with the revision that maps, as what a Reference says.
    pub fn engine(&self, revision: &SmolStr) -> Node {
        let make = || {
            let identifier = Node::identifier(Some("urn:tie:revision".into()), revision.clone());
            Node::object([(name!("identifier"), Some(identifier)), (name!("display"), Some("TIE".into()))])
        };
        let known = self
            .memory
            .as_ref()
            .map(|memory| memory.engine.get_or_init(|| (revision.clone(), make().in_common())));
        match known {
            Some((known, engine)) if known == revision => engine.clone(),
            _ => make(),
        }
    }

    /// What the parts of one field name.
    pub fn named(&mut self, data_type: &'static str, parts: &[Part<'_>], cx: &Cx<'_>) -> Arc<Known> {
        self.look_for([data_type.as_bytes(), &[]], parts);
        let make = || Arc::new(Known::of(resources::named(data_type, parts, cx).unwrap_or_default()));
        match &self.memory {
            Some(memory) => memory.named.recall(&self.key, cx, make, |made| Arc::new(made.in_common())),
            None => make(),
        }
    }

    #[inline(never)]
    fn look_for(&mut self, what: [&[u8]; 2], parts: &[Part<'_>]) {
        self.key.clear();
        self.key.extend_from_slice(&self.sender.to_ne_bytes());
        what.into_iter().for_each(|what| self.key.extend_from_slice(what));
        for part in parts {
            self.key.push(b'\r');
            self.key.extend_from_slice(part.raw().as_bytes());
        }
    }
}

/// Where a part stands in the message.
fn place(part: Part<'_>) -> Range<*const u8> {
    part.raw().as_bytes().as_ptr_range()
}

impl<V: Clone> Shelves<V> {
    /// What is kept under the key; else it is made, and kept if it comes again.
    fn recall(&self, key: &[u8], cx: &Cx<'_>, make: impl FnOnce() -> V, keep: impl FnOnce(V) -> V) -> V {
        let hash = self.hasher.hash_one(key);
        let Some(shelf) = self.shelves.get(hash as usize % SHELVES).filter(|_| key.len() <= LONGEST) else {
            return make();
        };
        if let Some(known) = shelf.lock().get(key) {
            return known;
        }
        cx.is_of_one_message.set(false);
        let made = make();
        if cx.is_of_one_message.get() || !shelf.lock().comes_again(hash) {
            return made;
        }
        let made = keep(made);
        shelf.lock().put(key, made.clone());
        made
    }
}

impl<V: Clone> Shelf<V> {
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

    /// Whether a part came before, of late: what comes once is not worth the room.
    fn comes_again(&mut self, hash: u64) -> bool {
        let Some(slot) = self.once.get_mut((hash >> 32) as usize % ONCE) else { return false };
        std::mem::replace(slot, hash) == hash
    }
}

impl Known {
    fn of(named: Vec<Named>) -> Self {
        let mut known = Self::default();
        for Named { resources, display } in named {
            let target = resources.last().map(Resource::target);
            // The same doctor stands in many places of a message.
            known.references.push(Node::reference(target, display.map(Node::Text)).in_common());
            known.resources.extend(resources);
        }
        known
    }

    fn in_common(&self) -> Self {
        let resources = self.resources.iter().cloned().map(Resource::in_common).collect();
        Self { resources, references: self.references.clone() }
    }
}

impl<V> Default for Shelves<V> {
    fn default() -> Self {
        Self { shelves: array::from_fn(|_| Mutex::default()), hasher: RandomState::default() }
    }
}

impl<V> Default for Shelf<V> {
    fn default() -> Self {
        Self { recent: HashMap::default(), older: HashMap::default(), once: [0; ONCE].into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::types::{CONVERTERS, converter_tests::on};

    const SEGMENT: &str =
        "ZZZ|C9999993^SEACOLE^MARY|C9999993^SEACOLE^MARY^^^^^^^^^^^^^^^^20260101090000|A^B^L|^\r";

    /// What of the fields of messages is remembered after this one: staff of the first two, codes of the third.
    fn remembered(memory: &Arc<Memory>, header: &str) -> (usize, usize) {
        let concept = CONVERTERS.iter().find(|one| one.to == "CodeableConcept").expect("there is one");
        on(header, SEGMENT, |message, cx| {
            let recall = RefCell::new(Recall::of(message, Some(memory)));
            let field = |number| message.segment("ZZZ").and_then(|segment| segment.field(number).part());
            for part in [1, 2].into_iter().filter_map(field) {
                assert_eq!(recall.borrow_mut().named("XCN", &[part], cx).resources.len(), 1);
            }
            let code = field(3).expect("there is a code");
            assert_eq!(Reader::of(concept).read(code, cx, &recall), (concept.convert)(code, cx));
            String::new()
        });
        fn kept<V>(shelves: &Shelves<V>) -> usize {
            shelves.shelves.iter().map(|shelf| shelf.lock().recent.len()).sum()
        }
        (kept(&memory.named), kept(&memory.values))
    }

    #[test]
    fn what_comes_again_from_the_same_sender_is_kept_and_what_goes_by_the_message_is_not() {
        let memory = Arc::default();
        assert_eq!(remembered(&memory, "RXX|||20260115093000|"), (0, 0));
        assert_eq!(remembered(&memory, "RXX|||20260116093000|"), (1, 1));
        assert_eq!(remembered(&memory, "RXX|||20260117093000|"), (1, 1));
        assert_eq!(remembered(&memory, "RYY|||20260117093000|"), (1, 1));
        assert_eq!(remembered(&memory, "RYY|||20260118093000|"), (2, 2));
    }

    #[test]
    fn what_nobody_asks_for_is_forgotten_and_what_is_asked_for_is_kept() {
        let mut all = Shelf::default();
        let key = |number: usize| number.to_ne_bytes();
        for number in 0..10 * MOST {
            all.put(&key(number), number);
            assert_eq!(all.get(&key(3)), (number >= 3).then_some(3), "{number}");
            assert!(all.recent.len() + all.older.len() <= 2 * MOST);
        }
        assert_eq!((all.get(&key(5)), all.get(&key(10 * MOST - 1))), (None, Some(10 * MOST - 1)));
    }

    #[test]
    fn of_more_senders_than_are_told_apart_the_later_ones_are_not_kept() {
        let memory = Arc::default();
        for number in 0..2 * SENDERS {
            for _ in 0..2 {
                let (named, values) = remembered(&memory, &format!("R{number}|||20260115093000|"));
                assert!(named <= SENDERS && values <= SENDERS);
            }
        }
        assert_eq!(memory.senders.read().len(), SENDERS);
    }
}
