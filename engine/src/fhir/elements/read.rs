//! Reads `elements.txt`, whose first lines tell its format, once.

use std::{
    collections::{HashMap, HashSet},
    sync::OnceLock,
};

use foldhash::fast::RandomState;

use super::{Codes, Element, Takes, Type, rules};

/// All types by name.
pub(super) fn all() -> &'static HashMap<&'static str, Type, RandomState> {
    static TYPES: OnceLock<HashMap<&'static str, Type, RandomState>> = OnceLock::new();
    TYPES.get_or_init(|| read(include_str!("../elements.txt")))
}

/// One type as it stands in the file.
struct Block {
    base: &'static str,
    elements: Vec<Element>,
}

fn read(text: &'static str) -> HashMap<&'static str, Type, RandomState> {
    static SETS: OnceLock<HashMap<&'static str, Codes>> = OnceLock::new();
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

fn read_element(
    line: &'static str,
    owner: &str,
    sets: &'static HashMap<&'static str, Codes>,
) -> Option<Element> {
    let mut words = line.split(' ');
    let (name, cardinality, type_word) = (words.next()?, words.next()?, words.next()?);
    let (type_name, targets) = match type_word.trim_end_matches(')').split_once('(') {
        Some((type_name, targets)) if type_name == "Reference" => (type_name, targets.split('|').collect()),
        Some((type_name, _)) => (type_name, Vec::new()),
        None => (type_word, Vec::new()),
    };
    let mut element = Element {
        name,
        required: matches!(cardinality, "1" | "+"),
        many: matches!(cardinality, "*" | "+"),
        type_name,
        targets,
        codes: None,
        choice: None,
        // The id of a resource: its definition says string, and its text tells the form.
        takes: if owner.ends_with("Resource") && name == "id" {
            Takes::of("id")
        } else {
            Takes::of(type_name)
        },
        kind: OnceLock::new(),
    };
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
            if !elements.iter().any(|known| known.name == element.name) {
                elements.push(element.clone());
            }
        }
        next = block.base;
    }
    elements.sort_by_key(|element| element.name);
    let mut required: Vec<usize> = Vec::new();
    let mut choices = HashSet::new();
    for (place, element) in elements.iter().enumerate().filter(|(_, element)| element.required) {
        if element.choice.is_none_or(|choice| choices.insert(choice)) {
            required.push(place);
        }
    }
    let places = elements.iter().enumerate().map(|(place, element)| (element.name, place)).collect();
    Type { name, is_resource, elements, places, required, rules: own_rules }
}
