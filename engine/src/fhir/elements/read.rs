//! Reads `elements.txt`, whose first lines tell its format, once.

use std::{
    collections::{HashMap, HashSet},
    sync::OnceLock,
};

use foldhash::fast::RandomState;

use super::{Codes, Element, Known, Takes, Type, rules};

/// The one text that all is read from.
const TEXT: &str = include_str!("../elements.txt");

/// All types by name.
pub(super) fn all() -> &'static HashMap<&'static str, Type, RandomState> {
    static TYPES: OnceLock<HashMap<&'static str, Type, RandomState>> = OnceLock::new();
    TYPES.get_or_init(|| read(TEXT))
}

/// A name of an element of any type, or of the twin of a primitive.
pub(in super::super) fn known(name: &str) -> Option<&'static Known> {
    static NAMES: OnceLock<HashMap<&'static str, Known, RandomState>> = OnceLock::new();
    let names = NAMES.get_or_init(|| {
        let lines = TEXT.lines().filter(|line| !line.starts_with(['#', '@']) && !line.contains(':'));
        let names: HashSet<&str> = lines.filter_map(|line| line.split(' ').next()).collect();
        // Kept for ever, as the text itself is.
        let twins = names.iter().map(|name| &*String::leak(format!("_{name}")));
        twins.chain(names.iter().copied()).map(|name| (name, Known::new(name))).collect()
    });
    names.get(name)
}

/// Where elements stand, found by the numbers of their names.
pub(super) struct Places {
    /// A number and a place; a place out of all bounds where nothing is. There is room, so that nothing is far from where it
    /// is looked for first.
    slots: Box<[(u32, usize)]>,
}

impl Places {
    fn of(elements: &[Element]) -> Self {
        let mut slots = vec![(0, usize::MAX); (elements.len() * 2).next_power_of_two()];
        for (place, element) in elements.iter().enumerate() {
            let mut at = element.key.number as usize;
            loop {
                at &= slots.len() - 1;
                match slots.get_mut(at) {
                    Some(slot @ (_, usize::MAX)) => break *slot = (element.key.number, place),
                    _ => at += 1,
                }
            }
        }
        Self { slots: slots.into() }
    }

    pub fn get(&self, number: u32) -> Option<usize> {
        let mut at = number as usize;
        loop {
            match self.slots.get(at & (self.slots.len() - 1))? {
                (_, usize::MAX) => return None,
                (known, place) if *known == number => return Some(*place),
                _ => at += 1,
            }
        }
    }
}

/// The codes of required bindings by the names that the file gives them.
type Sets = HashMap<&'static str, Codes>;

/// One type as it stands in the file.
struct Block {
    base: &'static str,
    elements: Vec<Element>,
}

fn read(text: &'static str) -> HashMap<&'static str, Type, RandomState> {
    static SETS: OnceLock<Sets> = OnceLock::new();
    let sets = SETS.get_or_init(|| {
        let lines = text.lines().filter_map(|line| line.strip_prefix('@')?.split_once(' '));
        lines.map(|(name, codes)| (name, codes.split('|').collect())).collect()
    });
    let mut blocks: HashMap<&'static str, Block> = HashMap::new();
    let mut current = "";
    for line in text.lines().filter(|line| !line.starts_with(['#', '@'])) {
        if let Some((name, base)) = line.split_once(':') {
            current = name;
            blocks.insert(name, Block { base, elements: Vec::new() });
        } else if let (Some(block), Some(element)) =
            (blocks.get_mut(current), read_element(line, current, sets))
        {
            block.elements.push(element);
        }
    }
    blocks.keys().map(|name| (*name, whole(name, &blocks))).collect()
}

fn read_element(line: &'static str, owner: &str, sets: &'static Sets) -> Option<Element> {
    let mut words = line.split(' ');
    let (name, cardinality, type_word) = (words.next()?, words.next()?, words.next()?);
    let (type_name, targets) = match type_word.trim_end_matches(')').split_once('(') {
        Some((type_name, targets)) if type_name == "Reference" => (type_name, targets.split('|').collect()),
        Some((type_name, _)) => (type_name, Vec::new()),
        None => (type_word, Vec::new()),
    };
    let mut element = Element::of(known(name)?, matches!(cardinality, "*" | "+"), type_name);
    element.required = matches!(cardinality, "1" | "+");
    element.targets = targets;
    // The id of a resource: its definition says string, and its text tells the form.
    if owner.ends_with("Resource") && name == "id" {
        element.takes = Takes::of("id");
    }
    for word in words {
        match word.strip_prefix('@') {
            Some(set) => element.codes = sets.get(set),
            None => element.choice = Some(word),
        }
    }
    Some(element)
}

/// A type with the elements of its bases.
fn whole(name: &'static str, blocks: &HashMap<&'static str, Block>) -> Type {
    let mut elements: Vec<Element> = Vec::new();
    let (mut next, mut is_resource, mut own_rules) = (name, false, Vec::new());
    while let Some(block) = blocks.get(next) {
        is_resource |= next == "Resource";
        own_rules.extend(rules::of(next));
        for element in &block.elements {
            if !elements.iter().any(|other| other.name == element.name) {
                elements.push(element.clone());
            }
        }
        next = block.base;
    }
    elements.sort_by_key(|element| element.name);
    let mut bits = Bits::default();
    let own_rules = own_rules.into_iter().map(|rule| rules::Rule::of(rule, |asked| bits.of(asked))).collect();
    let mut required: Vec<usize> = Vec::new();
    let mut choices = HashSet::new();
    for (place, element) in elements.iter_mut().enumerate() {
        if element.required && element.choice.is_none_or(|choice| choices.insert(choice)) {
            required.push(place);
        }
        let asked = element.choice.unwrap_or(element.name);
        let is_asked = element.required || element.choice.is_some() || bits.0.contains(&asked);
        element.bit = if is_asked { bits.of(asked) } else { 0 };
    }
    let needs = required.iter().filter_map(|place| elements.get(*place)).fold(0, |all, one| all | one.bit);
    let places = Places::of(&elements);
    Type { name, is_resource, elements, places, required, needs, rules: own_rules }
}

/// The bits of one type: those elements and choices that must be there, or that a rule asks for.
#[derive(Default)]
struct Bits(Vec<&'static str>);

impl Bits {
    fn of(&mut self, asked: &'static str) -> u64 {
        let place = self.0.iter().position(|known| *known == asked).unwrap_or_else(|| {
            self.0.push(asked);
            self.0.len() - 1
        });
        // No type has so many (a test holds it).
        u32::try_from(place).ok().and_then(|place| 1u64.checked_shl(place)).unwrap_or(0)
    }
}
