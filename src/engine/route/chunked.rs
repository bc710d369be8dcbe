//! A table in chunks, with places that stay: nothing is copied when it grows, however much it has, and a chunk
//! that has become empty gives its memory back.
//!
//! Invariants: `with_room` has the chunks in which a place is free, and no other; the lowest is filled first, so
//! that the others become empty. One empty chunk at most has memory.

use std::collections::BTreeSet;

/// Items of a chunk, a power of two.
const CHUNK: usize = 1_024;

#[derive(Debug)]
struct Chunk<T> {
    /// Defaults where no item is; nothing if there is none at all.
    items: Option<Box<[T; CHUNK]>>,
    /// Places that were taken and are free; those from `fresh` on never were.
    free: Vec<u16>,
    fresh: u16,
}

impl<T> Chunk<T> {
    const fn empty() -> Self {
        Chunk {
            items: None,
            free: Vec::new(),
            fresh: 0,
        }
    }

    fn has_room(&self) -> bool {
        !self.free.is_empty() || usize::from(self.fresh) < CHUNK
    }

    fn is_empty(&self) -> bool {
        self.free.len() == usize::from(self.fresh)
    }
}

/// The table.
#[derive(Debug)]
pub struct Chunked<T> {
    chunks: Vec<Chunk<T>>,
    with_room: BTreeSet<usize>,
    /// An empty chunk that keeps its memory: a table at a chunk's end would allocate again and again.
    spare: Option<usize>,
    len: usize,
}

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Chunked {
            chunks: Vec::new(),
            with_room: BTreeSet::new(),
            spare: None,
            len: 0,
        }
    }
}

impl<T: Default> Chunked<T> {
    /// Items in it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The item at a place, perhaps a default if there is none.
    #[inline]
    #[must_use]
    pub fn get(&self, place: usize) -> Option<&T> {
        let chunk = self.chunks.get(place / CHUNK)?;
        chunk.items.as_ref()?.get(place % CHUNK)
    }

    /// The item at a place, to change it; perhaps a default if there is none.
    #[inline]
    pub fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        let chunk = self.chunks.get_mut(place / CHUNK)?;
        chunk.items.as_mut()?.get_mut(place % CHUNK)
    }

    /// Adds an item; its place.
    pub fn insert(&mut self, item: T) -> usize {
        let at = self.with_room.first().copied().unwrap_or_else(|| {
            self.chunks.push(Chunk::empty());
            self.with_room.insert(self.chunks.len() - 1);
            self.chunks.len() - 1
        });
        self.spare = self.spare.filter(|spare| *spare != at);
        let Some(chunk) = self.chunks.get_mut(at) else {
            return 0;
        };
        let within = chunk.free.pop().unwrap_or_else(|| {
            chunk.fresh += 1;
            chunk.fresh - 1
        });
        if !chunk.has_room() {
            self.with_room.remove(&at);
        }
        let items = chunk.items.get_or_insert_with(defaults);
        if let Some(slot) = items.get_mut(usize::from(within)) {
            *slot = item;
        }
        self.len += 1;
        at * CHUNK + usize::from(within)
    }

    /// Takes out the item at a place, where there is one.
    pub fn remove(&mut self, place: usize) {
        let (at, within) = (place / CHUNK, place % CHUNK);
        let Some(chunk) = self.chunks.get_mut(at) else {
            return;
        };
        if let Some(slot) = chunk.items.as_mut().and_then(|items| items.get_mut(within)) {
            *slot = T::default();
        }
        chunk.free.push(within as u16);
        self.len -= 1;
        self.with_room.insert(at);
        if chunk.is_empty() {
            if self.spare.is_some() {
                *chunk = Chunk::empty();
            } else {
                self.spare = Some(at);
            }
        }
    }
}

fn defaults<T: Default>() -> Box<[T; CHUNK]> {
    let items: Box<[T]> = (0..CHUNK).map(|_| T::default()).collect();
    match items.try_into() {
        Ok(items) => items,
        Err(_) => unreachable!("so many were made"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_memory(chunked: &Chunked<usize>) -> usize {
        let chunks = chunked.chunks.iter();
        chunks.filter(|chunk| chunk.items.is_some()).count()
    }

    #[test]
    fn every_item_is_found_and_none_moves_to_another_chunk() {
        let mut chunked = Chunked::<usize>::default();
        assert_eq!((chunked.len(), chunked.get(0)), (0, None));
        for count in 1..=CHUNK * 3 + 5 {
            assert_eq!(chunked.insert(count), count - 1);
            assert_eq!(chunked.len(), count);
            for place in [0, count / 2, count - 1] {
                assert_eq!(chunked.get(place), Some(&(place + 1)));
                assert_eq!(chunked.get_mut(place), Some(&mut (place + 1)));
            }
        }
        let first = |chunked: &Chunked<usize>| chunked.get(0).map(std::ptr::from_ref);
        let before = first(&chunked);
        for count in 0..CHUNK * 4 {
            chunked.insert(count);
        }
        assert_eq!(first(&chunked), before);
    }

    #[test]
    fn what_is_taken_out_gives_its_memory_back_and_its_place() {
        let mut chunked = Chunked::<usize>::default();
        let places: Vec<_> = (0..CHUNK * 8).map(|count| chunked.insert(count)).collect();
        let (first, others) = places.split_first().expect("many");
        for place in others {
            chunked.remove(*place);
        }
        assert_eq!((chunked.len(), chunked.get(*first)), (1, Some(&0)));
        assert_eq!(with_memory(&chunked), 2, "its own, and a spare one");
        assert!(places.contains(&chunked.insert(7)));
        for count in 0..CHUNK * 8 {
            let place = chunked.insert(count);
            assert_eq!(chunked.get(place), Some(&count));
        }
        assert_eq!(chunked.chunks.len(), 9, "places are used again");
        assert_eq!(with_memory(&chunked), 9);
    }
}
