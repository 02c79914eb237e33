//! Maps of scripts: a few pairs in the order of their names, which are held as those of elements, for that is what most of
//! them become.

use super::datum::Datum;
use crate::fhir::Name;

/// `#{ … }`
#[derive(Clone, Default)]
pub(super) struct Map(Vec<(Name, Datum)>);

impl Map {
    /// A map whose names are in order already; all its values are `()`.
    pub fn of(names: &[Name]) -> Self {
        Self(names.iter().map(|name| (name.clone(), Datum::Unit)).collect())
    }

    /// Sets the value at a place of [`Map::of`].
    pub fn set(&mut self, place: usize, value: Datum) {
        if let Some((_, own)) = self.0.get_mut(place) {
            *own = value;
        }
    }

    pub fn get(&self, name: &str) -> Option<&Datum> {
        self.0.get(self.place(name).ok()?).map(|(_, value)| value)
    }

    /// The same, by a name that was looked up before.
    pub fn at(&self, name: &Name) -> Option<&Datum> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value)
    }

    /// The value of a name, which is put in if it is not there yet.
    pub fn entry(&mut self, name: &str) -> &mut Datum {
        let place = self.place(name).unwrap_or_else(|place| {
            self.0.insert(place, (name.into(), Datum::Unit));
            place
        });
        match self.0.get_mut(place) {
            Some((_, value)) => value,
            None => unreachable!("the name was found or just put"),
        }
    }

    /// Puts in what another map has, in place of what stands under its names.
    pub fn take_in(&mut self, other: &Self) {
        for (name, value) in &other.0 {
            *self.entry(name.as_str()) = value.clone();
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Datum)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(own, _)| own.as_str().cmp(name))
    }
}

/// Rhai has them in the order of their names, too.
impl From<rhai::Map> for Map {
    fn from(pairs: rhai::Map) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.as_str().into(), value.into())).collect())
    }
}

impl IntoIterator for Map {
    type Item = (Name, Datum);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
