//! A list whose items are found by a key of theirs: scanned while it is short, by an index beside it when it
//! is long. So a short one costs no more than its items, and a long one is changed in logarithmic time.
//!
//! Invariants: no two items have one key; the index, where there is one, has the place of every item.
//!
//! Not here: order. Who leaves makes the last item take its place.

use std::collections::BTreeMap;
use std::ops::{Bound, Deref};

/// Longer ones have an index.
const SCANNED_MAX: usize = 32;
/// One that becomes so short loses it again.
const INDEXED_MIN: usize = SCANNED_MAX / 2;

/// What is found by a key of its own.
pub trait Keyed {
    /// The key.
    type Key: Ord + Clone + std::fmt::Debug;

    /// The key of this one; it never changes.
    fn key(&self) -> &Self::Key;
}

/// The list.
#[derive(Debug)]
pub enum Listed<T: Keyed> {
    /// Scanned.
    Short(Vec<T>),
    /// Indexed.
    Long(Box<Indexed<T>>),
}

/// A long list.
#[derive(Debug)]
pub struct Indexed<T: Keyed> {
    list: Vec<T>,
    places: BTreeMap<T::Key, u32>,
}

impl<T: Keyed> Default for Listed<T> {
    fn default() -> Self {
        Listed::Short(Vec::new())
    }
}

impl<T: Keyed> Deref for Listed<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Listed::Short(list) => list,
            Listed::Long(indexed) => &indexed.list,
        }
    }
}

impl<T: Keyed> Listed<T> {
    const fn list_mut(&mut self) -> &mut Vec<T> {
        match self {
            Listed::Short(list) => list,
            Listed::Long(indexed) => &mut indexed.list,
        }
    }

    /// Where the item of a key stands.
    #[must_use]
    pub fn place(&self, key: &T::Key) -> Option<usize> {
        match self {
            Listed::Short(list) => list.iter().position(|item| item.key() == key),
            Listed::Long(indexed) => indexed.places.get(key).map(|&place| place as usize),
        }
    }

    /// Appends the places of the next items after a key, in the order of keys: at most `most` of a long list,
    /// all of a short one. Whether more follow. So a walk that goes on later comes to each item that
    /// stays exactly once, whoever comes and leaves meanwhile.
    pub fn places_after(&self, after: Option<&T::Key>, most: usize, into: &mut Vec<u32>) -> bool {
        match self {
            Listed::Short(list) => {
                let places = (0..).zip(list);
                let next = places.filter(|(_, item)| after.is_none_or(|after| item.key() > after));
                into.extend(next.map(|(place, _)| place));
                false
            }
            Listed::Long(indexed) => {
                let from = after.map_or(Bound::Unbounded, Bound::Excluded);
                let mut next = indexed.places.range((from, Bound::Unbounded));
                into.extend(next.by_ref().take(most).map(|(_, &place)| place));
                next.next().is_some()
            }
        }
    }

    /// The item of a key.
    #[must_use]
    pub fn find(&self, key: &T::Key) -> Option<&T> {
        self.get(self.place(key)?)
    }

    /// The item of a key, to change anything but the key.
    pub fn find_mut(&mut self, key: &T::Key) -> Option<&mut T> {
        let place = self.place(key)?;
        self.at_mut(place)
    }

    /// The item at a place, to change anything but the key.
    pub fn at_mut(&mut self, place: usize) -> Option<&mut T> {
        self.list_mut().get_mut(place)
    }

    /// All items in their order, to change anything but their keys.
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, T> {
        self.list_mut().iter_mut()
    }

    /// Puts an item in the place of the one with its key, or at the end.
    pub fn put(&mut self, item: T) {
        if let Some(known) = self.find_mut(item.key()) {
            *known = item;
            return;
        }
        match self {
            Listed::Short(list) => {
                list.push(item);
                if list.len() > SCANNED_MAX {
                    let list = std::mem::take(list);
                    let places = (0..).zip(&list);
                    let places = places.map(|(place, item)| (item.key().clone(), place));
                    let places = places.collect();
                    *self = Listed::Long(Box::new(Indexed { list, places }));
                }
            }
            Listed::Long(indexed) => {
                let place = indexed.list.len() as u32;
                indexed.places.insert(item.key().clone(), place);
                indexed.list.push(item);
            }
        }
    }

    /// Takes the item of a key out; the last one takes its place.
    pub fn remove(&mut self, key: &T::Key) -> Option<T> {
        let place = self.place(key)?;
        let removed = self.list_mut().swap_remove(place);
        match self {
            Listed::Short(list) => {
                if list.is_empty() {
                    *list = Vec::new();
                }
            }
            Listed::Long(indexed) => {
                indexed.places.remove(key);
                indexed.note_place(place);
                if indexed.list.len() <= INDEXED_MIN {
                    let mut list = std::mem::take(&mut indexed.list);
                    list.shrink_to_fit();
                    *self = Listed::Short(list);
                }
            }
        }
        Some(removed)
    }

    /// Lets two items change places.
    pub fn swap(&mut self, one: usize, other: usize) {
        if one == other || one.max(other) >= self.len() {
            return;
        }
        self.list_mut().swap(one, other);
        if let Listed::Long(indexed) = self {
            indexed.note_place(one);
            indexed.note_place(other);
        }
    }
}

impl<T: Keyed> Indexed<T> {
    /// Another item stands there now, if any.
    fn note_place(&mut self, place: usize) {
        if let Some(item) = self.list.get(place)
            && let Some(known) = self.places.get_mut(item.key())
        {
            *known = place as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    struct Item(u32, &'static str);

    impl Keyed for Item {
        type Key = u32;

        fn key(&self) -> &u32 {
            &self.0
        }
    }

    fn check(listed: &Listed<Item>, keys: &[u32]) {
        assert_eq!(listed.len(), keys.len());
        for key in keys {
            assert_eq!(listed.find(key).map(|item| item.0), Some(*key));
        }
        if let Listed::Long(indexed) = listed {
            assert_eq!(indexed.places.len(), keys.len());
        }
    }

    #[test]
    fn a_walk_that_goes_on_later_comes_to_each_item_that_stays_once() {
        for before in [100, 33, 20] {
            let mut listed = Listed::default();
            for key in 0..before {
                listed.put(Item(key * 2, "stays"));
            }
            let (mut seen, mut places, mut after) = (Vec::new(), Vec::new(), None);
            loop {
                let more = listed.places_after(after.as_ref(), 7, &mut places);
                seen.extend(places.drain(..).map(|place| listed[place as usize].0));
                after = seen.last().copied();
                if !more {
                    break;
                }
                // Those it has seen leave, the last ones take their places; one comes.
                for gone in seen.iter().take(seen.len() - 1) {
                    listed.remove(gone);
                }
                listed.put(Item(1_001, "new"));
            }
            seen.retain(|key| *key != 1_001);
            seen.sort_unstable();
            assert!(seen.into_iter().eq((0..before).map(|key| key * 2)));
        }
    }

    #[test]
    fn every_item_is_found_while_the_list_grows_and_shrinks() {
        let mut listed = Listed::default();
        let mut keys = Vec::new();
        for key in 0..100 {
            listed.put(Item(key * 7 % 101, "old"));
            keys.push(key * 7 % 101);
            check(&listed, &keys);
            assert_eq!(matches!(listed, Listed::Long(_)), keys.len() > SCANNED_MAX);
        }
        listed.put(Item(14, "new"));
        assert_eq!(listed.find(&14), Some(&Item(14, "new")));
        listed.swap(3, 77);
        listed.swap(5, 500);
        check(&listed, &keys);
        while !keys.is_empty() {
            let key = keys.swap_remove(keys.len() / 3);
            assert_eq!(listed.remove(&key).map(|item| item.0), Some(key));
            assert_eq!(listed.remove(&key), None);
            check(&listed, &keys);
            assert!(matches!(listed, Listed::Short(_)) || keys.len() > INDEXED_MIN);
        }
        assert!(matches!(listed, Listed::Short(list) if list.capacity() == 0));
    }
}
