//! Segment groups: which observation belongs to which order, which order to which patient.
//!
//! A message structure is a small tree of [`Spec`]s. The segments are placed one after the other, as near to the
//! one before as the tree allows; what the tree does not expect stays with the segment before it.
//!
//! Promise:  every segment is in exactly one group, in its order; an OBX is in the group of the order last opened
//!           before it; a note is in the group of the segment before it.
//! Decided:  - A PID behind orders begins another patient; a PV1 that comes late still joins its patient.
//!           - Orders, patients and specimens that were not announced are made up: an OBX without an OBR has an
//!             order without an OBR, and the OBR that follows is another order's.
//!           - In a result, OBX behind an SPM belong to the specimen only if the order had its own OBX before;
//!             some laboratories send the specimen first, and an order without results makes no sense.
//! Source:   HL7 v2.8.2 message structures (chapters 3, 4, 4A, 7, 9, 10, 11, 12, 13).

mod specs;

pub use specs::of;

use super::{Message, Segment};

/// One kind of group in a message structure.
#[derive(Debug, PartialEq, Eq)]
pub struct Spec {
    /// The standard's name: `ORDER_OBSERVATION`.
    pub name: &'static str,
    /// The segments that begin it, in their order. The first of them that comes again, or comes out of this order, begins the
    /// next group of the kind. Empty when its groups begin it.
    pub opens: &'static [&'static str],
    /// Other segments of the group itself.
    pub members: &'static [&'static str],
    /// The groups within it.
    pub groups: &'static [Spec],
    /// Whether its parent has at most one.
    pub once: bool,
    /// Members that only count when the parent already has a group of this name.
    pub after: Option<(&'static str, &'static str)>,
}

/// A group found in a message.
#[derive(Debug, Clone)]
pub struct Group<'m> {
    /// The standard's name: `ORDER_OBSERVATION`.
    pub name: &'static str,
    /// Its own segments, in order.
    pub segments: Vec<Segment<'m>>,
    /// The groups within it, in order.
    pub groups: Vec<Group<'m>>,
}

impl Message {
    /// Its segments as groups, by the structure that its trigger event has; flat when that is not known.
    pub fn groups(&self) -> Group<'_> {
        let trigger = self.trigger();
        self.groups_by(of(&trigger.code, &trigger.event, &trigger.structure))
    }

    /// Its segments as groups of the given structure.
    pub fn groups_by(&self, spec: &'static Spec) -> Group<'_> {
        let mut placer = Placer { nodes: vec![Node::new(spec, None)], current: 0 };
        for segment in self.segments() {
            placer.place(segment);
        }
        placer.take(0)
    }
}

impl<'m> Group<'m> {
    /// Its own first segment of a name; not those of the groups within it.
    pub fn segment(&self, name: &str) -> Option<Segment<'m>> {
        self.segments_named(name).next()
    }

    /// Its own segments of a name.
    pub fn segments_named(&self, name: &str) -> impl Iterator<Item = Segment<'m>> {
        self.segments.iter().copied().filter(move |segment| segment.name() == name)
    }

    /// The groups of a name directly within it.
    pub fn groups_named(&self, name: &str) -> impl Iterator<Item = &Group<'m>> {
        self.groups.iter().filter(move |group| group.name == name)
    }

    /// All groups of a name, however deep, in order.
    pub fn all_named<'g>(&'g self, name: &str) -> Vec<&'g Group<'m>> {
        let mut found = Vec::new();
        self.gather(name, &mut found);
        found
    }

    /// The notes (NTE) that follow one of its own segments.
    pub fn notes(&self, segment: Segment<'_>) -> impl Iterator<Item = Segment<'m>> {
        let behind =
            self.segments.iter().copied().skip_while(move |one| one.index() != segment.index()).skip(1);
        behind.take_while(|one| one.name() == "NTE")
    }

    fn gather<'g>(&'g self, name: &str, found: &mut Vec<&'g Group<'m>>) {
        for group in &self.groups {
            if group.name == name {
                found.push(group);
            }
            group.gather(name, found);
        }
    }
}

/// A group while segments are placed; nodes are never removed, so their places stay good.
struct Node<'m> {
    spec: &'static Spec,
    parent: Option<usize>,
    segments: Vec<Segment<'m>>,
    children: Vec<usize>,
    /// How far its opening segments have come: one more than the place of the last.
    opened: usize,
}

impl Node<'_> {
    fn new(spec: &'static Spec, parent: Option<usize>) -> Self {
        Self { spec, parent, segments: Vec::new(), children: Vec::new(), opened: 0 }
    }
}

struct Placer<'m> {
    nodes: Vec<Node<'m>>,
    /// The group of the segment before.
    current: usize,
}

impl<'m> Placer<'m> {
    fn place(&mut self, segment: Segment<'m>) {
        let name = segment.name();
        let target = if name == "NTE" { None } else { self.upwards(name) };
        let target = target.unwrap_or(self.current);
        self.current = target;
        if let Some(node) = self.nodes.get_mut(target) {
            if let Some(at) = node.spec.opens.iter().position(|open| *open == name) {
                node.opened = at + 1;
            }
            node.segments.push(segment);
        }
    }

    /// The group for a segment: the nearest that can take it, from the current one up.
    fn upwards(&mut self, name: &str) -> Option<usize> {
        let mut level = Some(self.current);
        while let Some(at) = level {
            if let Some(target) = self.within(at, name) {
                return Some(target);
            }
            level = self.nodes.get(at)?.parent;
        }
        None
    }

    /// The group for a segment in a group or below it.
    fn within(&mut self, at: usize, name: &str) -> Option<usize> {
        let node = self.nodes.get(at)?;
        let spec = node.spec;
        match spec.opens.iter().position(|open| *open == name) {
            Some(place) if node.opened <= place => return Some(at),
            None if spec.members.contains(&name) && self.counts(node, name) => return Some(at),
            _ => {}
        }
        let has = |child: &Spec| {
            node.children
                .iter()
                .any(|one| self.nodes.get(*one).is_some_and(|one| std::ptr::eq(one.spec, child)))
        };
        let opens = |child: &&'static Spec| child.opens.contains(&name) && !(child.once && has(child));
        if let Some(child) = spec.groups.iter().find(opens) {
            return self.waiting(at, child, name).or_else(|| self.open_for(at, child, name));
        }
        let latest = node.children.clone();
        for child in latest.into_iter().rev() {
            if let Some(target) =
                self.is_last_of_its_kind(at, child).then(|| self.within(child, name)).flatten()
            {
                return Some(target);
            }
        }
        let implied = spec.groups.iter().find(|child| can_begin(child, name))?;
        let present = self
            .nodes
            .get(at)?
            .children
            .iter()
            .any(|one| self.nodes.get(*one).is_some_and(|one| std::ptr::eq(one.spec, implied)));
        if implied.once && present { None } else { self.open_for(at, implied, name) }
    }

    /// The last group of a kind, when it has begun and this segment goes on with it: the OBR of an ORC, whatever of
    /// the patient stands between.
    fn waiting(&self, parent: usize, spec: &'static Spec, name: &str) -> Option<usize> {
        let place = spec.opens.iter().position(|open| *open == name)?;
        let children = self.nodes.get(parent)?.children.iter().rev();
        let mut same = children.filter_map(|at| Some((*at, self.nodes.get(*at)?)));
        let (last, node) = same.find(|(_, node)| std::ptr::eq(node.spec, spec))?;
        (node.opened > 0 && node.opened <= place).then_some(last)
    }

    /// Opens a group in which a segment will stand, and the groups between. Those that it makes up are closed to what
    /// would have begun them: an OBR does not become the order of the OBX before it.
    fn open_for(&mut self, parent: usize, spec: &'static Spec, name: &str) -> Option<usize> {
        let mut at = self.open(parent, spec)?;
        let mut spec = spec;
        while !spec.opens.contains(&name) {
            self.nodes.get_mut(at)?.opened = spec.opens.len();
            let next = spec.groups.iter().find(|child| child.opens.contains(&name));
            spec = next.or_else(|| spec.groups.iter().find(|child| can_begin(child, name)))?;
            at = self.open(at, spec)?;
        }
        Some(at)
    }

    fn open(&mut self, parent: usize, spec: &'static Spec) -> Option<usize> {
        let at = self.nodes.len();
        self.nodes.push(Node::new(spec, Some(parent)));
        self.nodes.get_mut(parent)?.children.push(at);
        Some(at)
    }

    fn is_last_of_its_kind(&self, parent: usize, child: usize) -> bool {
        let spec = |at: usize| self.nodes.get(at).map(|node| std::ptr::from_ref(node.spec));
        let children = self.nodes.get(parent).map(|node| node.children.as_slice()).unwrap_or_default();
        children.iter().rev().find(|other| spec(**other) == spec(child)) == Some(&child)
    }

    /// Whether a member counts here: see [`Spec::after`].
    fn counts(&self, node: &Node<'_>, name: &str) -> bool {
        let Some((_, group)) = node.spec.after.filter(|(member, _)| *member == name) else { return true };
        let siblings =
            node.parent.and_then(|parent| self.nodes.get(parent)).map(|parent| parent.children.as_slice());
        let named = |at: &usize| self.nodes.get(*at).is_some_and(|node| node.spec.name == group);
        siblings.unwrap_or_default().iter().any(named)
    }

    fn take(&mut self, at: usize) -> Group<'m> {
        let Some(node) = self.nodes.get_mut(at) else {
            return Group { name: "", segments: Vec::new(), groups: Vec::new() };
        };
        let (name, segments) = (node.spec.name, std::mem::take(&mut node.segments));
        let children = std::mem::take(&mut node.children);
        Group { name, segments, groups: children.into_iter().map(|child| self.take(child)).collect() }
    }
}

/// Whether the segment can begin a group of the kind. A group that is there once is not made up for what it holds:
/// a second visit does not make another patient.
fn can_begin(spec: &Spec, name: &str) -> bool {
    spec.opens.contains(&name) || !spec.once && spec.groups.iter().any(|child| can_begin(child, name))
}

#[cfg(test)]
mod tests;
