//! Where a name stands in a list: a small table to look elements up in, many times for each message.
//!
//! Names of elements are short and differ in their ends and their lengths, so four bytes of a name tell where to
//! look; whoever asks compares the name itself, once as a rule. Searching by comparing names in order costs five
//! comparisons.

/// The places of names, by what [`Names::mix`] makes of them.
#[derive(Debug)]
pub(super) struct Names {
    /// At least half of them empty; a power of two.
    slots: Box<[Option<u16>]>,
}

impl Names {
    /// The table of a list.
    pub fn of(names: impl ExactSizeIterator<Item = &'static str>) -> Self {
        let mut slots = vec![None; (2 * names.len()).next_power_of_two().max(2)].into_boxed_slice();
        for (place, name) in (0..).zip(names) {
            let first = Self::mix(name);
            let free = (0..slots.len()).map(|step| (first + step) & (slots.len() - 1));
            if let Some(free) = free.into_iter().find(|at| slots.get(*at) == Some(&None))
                && let Some(slot) = slots.get_mut(free)
            {
                *slot = Some(place);
            }
        }
        Self { slots }
    }

    /// The places where this name may stand.
    pub fn places(&self, name: &str) -> impl Iterator<Item = usize> {
        let (first, last) = (Self::mix(name), self.slots.len() - 1);
        (0..).map_while(move |step| self.slots.get((first + step) & last).copied().flatten().map(usize::from))
    }

    fn mix(name: &str) -> usize {
        let bytes = name.as_bytes();
        let at = |place: usize| bytes.get(place).map_or(0, |byte| usize::from(*byte));
        let ends = at(0) | at(bytes.len() / 2) << 8 | at(bytes.len().wrapping_sub(1)) << 16;
        // The high bits of a product depend on all bits of its factors.
        (ends ^ bytes.len() << 24).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_name_is_found_where_it_stands(names in proptest::collection::hash_set("[a-z]{0,9}", 0..80)) {
            let names: Vec<&'static str> = names.into_iter().map(|name| &*name.leak()).collect();
            let table = Names::of(names.iter().copied());
            for (place, name) in names.iter().enumerate() {
                proptest::prop_assert!(table.places(name).any(|found| found == place));
            }
            proptest::prop_assert!(table.places("another name").count() <= names.len());
        }
    }
}
