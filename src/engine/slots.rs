//! A table whose handles are (slot, generation): a handle to what is gone finds nothing, even when
//! the slot has been used again.
//!
//! Entries stand by themselves, so that the table costs little beside them while it is half empty, and who
//! has gone leaves nothing but a place.

use super::growing::Growing;
use std::fmt;
use std::marker::PhantomData;

/// Names one entry of a [`Slots`] table, for good; `K` tells the tables apart.
pub struct Key<K> {
    slot: u32,
    generation: u32,
    of: PhantomData<fn() -> K>,
}

impl<K> Key<K> {
    /// Position in the table; used again after the entry is gone.
    #[must_use]
    pub const fn slot(self) -> usize {
        self.slot as usize
    }
}

impl<K> Clone for Key<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Key<K> {}

impl<K> PartialEq for Key<K> {
    fn eq(&self, other: &Self) -> bool {
        self.slot == other.slot && self.generation == other.generation
    }
}

impl<K> Eq for Key<K> {}

impl<K> PartialOrd for Key<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<K> Ord for Key<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.slot, self.generation).cmp(&(other.slot, other.generation))
    }
}

impl<K> fmt::Debug for Key<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// No key has this generation: it stands where an entry has moved to a larger table.
const MOVED: u32 = u32::MAX;

struct Slot<T> {
    generation: u32,
    value: Option<Box<T>>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Slot {
            generation: MOVED,
            value: None,
        }
    }
}

/// The table.
pub struct Slots<K, T> {
    names: PhantomData<fn() -> K>,
    slots: Growing<Slot<T>>,
    free: Vec<u32>,
    /// Places that are neither free nor hold an entry.
    vacated: usize,
}

impl<K, T> Default for Slots<K, T> {
    fn default() -> Self {
        Slots {
            names: PhantomData,
            slots: Growing::default(),
            free: Vec::new(),
            vacated: 0,
        }
    }
}

impl<K, T> Slots<K, T> {
    /// Puts a value in and names it.
    pub fn insert(&mut self, value: T) -> Key<K> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                value: None,
            });
            self.slots.len() as u32 - 1
        });
        let mut generation = 0;
        if let Some(entry) = self.slots.get_mut(slot as usize) {
            debug_assert!(entry.value.is_none());
            entry.value = Some(Box::new(value));
            generation = entry.generation;
        }
        Key {
            slot,
            generation,
            of: PhantomData,
        }
    }

    /// The value of `key`, if it is still there.
    #[inline(always)]
    #[must_use]
    pub fn get(&self, key: Key<K>) -> Option<&T> {
        let entry = self.slots.get_unmoved(key.slot())?;
        if entry.generation == key.generation {
            entry.value.as_deref()
        } else {
            self.get_moved(key)
        }
    }

    /// The value of `key`, if it is still there.
    #[inline(always)]
    pub fn get_mut(&mut self, key: Key<K>) -> Option<&mut T> {
        let generation = self.slots.get_unmoved(key.slot())?.generation;
        if generation == key.generation {
            self.slots.get_unmoved_mut(key.slot())?.value.as_deref_mut()
        } else {
            self.get_moved_mut(key)
        }
    }

    #[cold]
    #[inline(never)]
    fn get_moved(&self, key: Key<K>) -> Option<&T> {
        let entry = self.slots.get(key.slot())?;
        let value = entry.value.as_deref();
        value.filter(|_| entry.generation == key.generation)
    }

    #[cold]
    #[inline(never)]
    fn get_moved_mut(&mut self, key: Key<K>) -> Option<&mut T> {
        let entry = self.slots.get_mut(key.slot())?;
        let is_it = entry.generation == key.generation;
        entry.value.as_deref_mut().filter(|_| is_it)
    }

    /// Goes on with the growth of the table, so that it does not stay half done.
    pub fn move_some(&mut self) {
        self.slots.move_some();
    }

    /// Takes the value out; `key` finds nothing from now on.
    pub fn remove(&mut self, key: Key<K>) -> Option<T> {
        let value = self.vacate(key)?;
        self.release(key);
        Some(value)
    }

    /// The same; but its place stays taken until it is [`Slots::release`]d, for others who know it by that.
    pub fn vacate(&mut self, key: Key<K>) -> Option<T> {
        let entry = self.slots.get_mut(key.slot())?;
        if entry.generation != key.generation {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = (entry.generation + 1) % MOVED;
        self.vacated += 1;
        Some(*value)
    }

    /// The place of what was vacated under this name may be taken, once.
    pub fn release(&mut self, key: Key<K>) {
        let next = (key.generation + 1) % MOVED;
        let entry = self.slots.get_mut(key.slot());
        let is_vacant =
            entry.is_some_and(|entry| entry.value.is_none() && entry.generation == next);
        debug_assert!(is_vacant, "a place is released once, after it was vacated");
        if is_vacant {
            self.vacated -= 1;
            self.free.push(key.slot);
        }
    }

    /// Places in the table, free ones included.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// What stands at a place, and its name.
    #[must_use]
    pub fn at_mut(&mut self, slot: usize) -> Option<(Key<K>, &mut T)> {
        let entry = self.slots.get_mut(slot)?;
        let key = Key {
            slot: slot as u32,
            generation: entry.generation,
            of: PhantomData,
        };
        Some((key, entry.value.as_deref_mut()?))
    }

    /// Entries in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len() - self.vacated
    }

    /// Whether it has no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All handles, in the order of their slots.
    pub fn keys(&self) -> impl Iterator<Item = Key<K>> + '_ {
        (0..self.slots.len()).filter_map(|slot| {
            let entry = self.slots.get(slot)?;
            entry.value.as_ref()?;
            Some(Key {
                slot: slot as u32,
                generation: entry.generation,
                of: PhantomData,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_hold_while_the_table_grows() {
        let mut slots = Slots::<(), _>::default();
        let mut keys = Vec::new();
        let mut gone = Vec::new();
        for n in 0..50_000_u32 {
            keys.push((slots.insert(n), n));
            if n % 3 == 0 {
                let (key, value) = keys.swap_remove(keys.len() * 2 / 3);
                assert_eq!(slots.get_mut(key), Some(&mut { value }));
                assert_eq!(slots.remove(key), Some(value));
                gone.push(key);
            }
            for (key, value) in [keys.first(), keys.get(keys.len() / 2), keys.last()]
                .into_iter()
                .flatten()
            {
                assert_eq!(slots.get(*key), Some(value));
            }
            let key = gone[gone.len() / 2];
            assert_eq!(slots.get(key), None);
            assert_eq!(slots.get_mut(key), None);
        }
        assert_eq!(slots.len(), keys.len());
        assert_eq!(slots.keys().count(), keys.len());
        assert!(
            keys.iter()
                .all(|(key, value)| slots.get(*key) == Some(value))
        );
        assert!(gone.iter().all(|key| slots.get(*key).is_none()));
    }

    #[test]
    fn a_vacated_place_is_taken_until_it_is_released() {
        let mut slots = Slots::<(), _>::default();
        let first = slots.insert("first");
        assert_eq!(slots.vacate(first), Some("first"));
        assert!(slots.is_empty());
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.vacate(first), None);
        let second = slots.insert("second");
        assert_ne!(second.slot(), first.slot());
        slots.release(first);
        let third = slots.insert("third");
        assert_eq!(third.slot(), first.slot());
        assert_eq!(slots.get(first), None);
    }

    #[test]
    fn a_key_to_a_reused_slot_finds_nothing() {
        let mut slots = Slots::<(), _>::default();
        let first = slots.insert("first");
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert("second");
        assert_eq!(second.slot(), first.slot());
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(second), Some(&"second"));
        assert_eq!(slots.keys().collect::<Vec<_>>(), [second]);
    }
}
