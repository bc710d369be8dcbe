//! A hash table in parts, each of which grows for itself: no turn hashes a million entries anew because one
//! more has come.

use hashbrown::HashTable;

const PARTS: usize = 256;
/// The part is chosen by bits of the hash that no table of such a size looks at: it takes its place from the
/// lowest, and what it compares first from the highest.
const PART_SHIFT: u32 = 40;

/// The table.
#[derive(Debug)]
pub struct Parted<T> {
    parts: Box<[HashTable<T>; PARTS]>,
}

impl<T> Default for Parted<T> {
    fn default() -> Self {
        Parted {
            parts: Box::new([const { HashTable::new() }; PARTS]),
        }
    }
}

impl<T> Parted<T> {
    const fn part_of(hash: u64) -> usize {
        (hash >> PART_SHIFT) as usize % PARTS
    }

    /// Whether it has no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(HashTable::is_empty)
    }

    /// The entry of a hash that is the wanted one.
    #[inline]
    pub fn find(&self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<&T> {
        self.parts.get(Self::part_of(hash))?.find(hash, is_it)
    }

    /// One more entry, which is not in it; `rehash` tells the hashes of others.
    pub fn insert_unique(&mut self, hash: u64, entry: T, rehash: impl Fn(&T) -> u64) {
        if let Some(part) = self.parts.get_mut(Self::part_of(hash)) {
            part.insert_unique(hash, entry, rehash);
        }
    }

    /// Takes an entry out. A part that has become small gives memory back.
    pub fn remove(
        &mut self,
        hash: u64,
        is_it: impl FnMut(&T) -> bool,
        rehash: impl Fn(&T) -> u64,
    ) -> Option<T> {
        let part = self.parts.get_mut(Self::part_of(hash))?;
        let found = part.find_entry(hash, is_it).ok()?;
        let (entry, _) = found.remove();
        if part.len() < part.capacity() / 8 {
            part.shrink_to(part.len() * 2, rehash);
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::hashing::Hashing;
    use std::cell::Cell;

    #[test]
    fn one_more_entry_hashes_few_others_anew() {
        let hashing = Hashing::new(1);
        let hash = |n: &u32| hashing.of(*n, "");
        let mut table = Parted::default();
        let mut most = 0;
        for n in 0..200_000 {
            let hashed = Cell::new(0);
            table.insert_unique(hash(&n), n, |other| {
                hashed.set(hashed.get() + 1);
                hash(other)
            });
            most = most.max(hashed.get());
        }
        assert!(most < 2_000, "{most} at once");
        assert!((0..200_000).all(|n| table.find(hash(&n), |&other| other == n) == Some(&n)));
        assert_eq!(table.find(hash(&200_000), |&other| other == 200_000), None);
    }

    #[test]
    fn what_is_taken_out_is_gone_and_so_is_its_memory() {
        let hashing = Hashing::new(2);
        let hash = |n: &u32| hashing.of(*n, "");
        let mut table = Parted::default();
        for n in 0..100_000 {
            table.insert_unique(hash(&n), n, hash);
        }
        for n in 0..100_000 {
            assert_eq!(table.remove(hash(&n), |&other| other == n, hash), Some(n));
            assert_eq!(table.remove(hash(&n), |&other| other == n, hash), None);
        }
        assert!(table.is_empty());
        let kept: usize = table.parts.iter().map(HashTable::capacity).sum();
        assert!(kept < 256 * 16, "room for {kept}");
    }
}
