//! A vector in chunks: nothing is copied when it grows, however much it has.
//!
//! Not here: taking out.

/// Items of a chunk, a power of two.
const CHUNK: usize = 1_024;

/// The vector.
#[derive(Debug)]
pub struct Chunked<T> {
    /// The last one has defaults where no item is yet.
    chunks: Vec<Box<[T; CHUNK]>>,
    len: usize,
}

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Chunked {
            chunks: Vec::new(),
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

    /// The item at a place, perhaps a default if there is none yet.
    #[inline]
    #[must_use]
    pub fn get(&self, place: usize) -> Option<&T> {
        self.chunks.get(place / CHUNK)?.get(place % CHUNK)
    }

    /// The item at a place, to change it; perhaps a default if there is none yet.
    #[inline]
    pub fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.chunks.get_mut(place / CHUNK)?.get_mut(place % CHUNK)
    }

    /// Adds an item at the end.
    pub fn push(&mut self, item: T) {
        if self.len == self.chunks.len() * CHUNK {
            let chunk = (0..CHUNK).map(|_| T::default()).collect::<Box<[T]>>();
            // It has that length.
            self.chunks.extend(chunk.try_into());
        }
        let place = self.len;
        if let Some(slot) = self.get_mut(place) {
            *slot = item;
            self.len += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_found_and_none_moves_to_another_chunk() {
        let mut chunked = Chunked::<usize>::default();
        assert_eq!((chunked.len(), chunked.get(0)), (0, None));
        for count in 1..=CHUNK * 3 + 5 {
            chunked.push(count);
            assert_eq!(chunked.len(), count);
            for place in [0, count / 2, count - 1] {
                assert_eq!(chunked.get(place), Some(&(place + 1)));
                assert_eq!(chunked.get_mut(place), Some(&mut (place + 1)));
            }
        }
        let first = chunked.chunks[0].as_ptr();
        (0..CHUNK * 4).for_each(|count| chunked.push(count));
        assert_eq!(chunked.chunks[0].as_ptr(), first);
    }
}
