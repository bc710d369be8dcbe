//! A vector in chunks: nothing is copied when it grows, however much it has.
//!
//! Not here: taking out.

/// Items of a chunk, a power of two.
const CHUNK: usize = 1_024;

/// The vector.
#[derive(Debug)]
pub struct Chunked<T> {
    /// All but the last are full.
    chunks: Vec<Vec<T>>,
}

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Chunked { chunks: Vec::new() }
    }
}

impl<T> Chunked<T> {
    /// Items in it.
    #[must_use]
    pub fn len(&self) -> usize {
        let last = self.chunks.last().map_or(0, Vec::len);
        self.chunks.len().saturating_sub(1) * CHUNK + last
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The item at a place.
    #[inline]
    #[must_use]
    pub fn get(&self, place: usize) -> Option<&T> {
        self.chunks.get(place / CHUNK)?.get(place % CHUNK)
    }

    /// The item at a place, to change it.
    #[inline]
    pub fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.chunks.get_mut(place / CHUNK)?.get_mut(place % CHUNK)
    }

    /// Adds an item at the end.
    pub fn push(&mut self, item: T) {
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK => {
                if last.len() == last.capacity() {
                    // Doubling would hold as much again as there is.
                    last.reserve_exact(last.len() / 8 + 64);
                }
                last.push(item);
            }
            _ => {
                // Who has one full chunk is likely to fill another.
                let room = if self.chunks.is_empty() { 1 } else { CHUNK };
                let mut chunk = Vec::with_capacity(room);
                chunk.push(item);
                self.chunks.push(chunk);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_found_and_none_moves_to_another_chunk() {
        let mut chunked = Chunked::default();
        assert_eq!((chunked.len(), chunked.get(0)), (0, None));
        for count in 1..=CHUNK * 3 + 5 {
            chunked.push(count);
            assert_eq!(chunked.len(), count);
            for place in [0, count / 2, count - 1] {
                assert_eq!(chunked.get(place), Some(&(place + 1)));
                assert_eq!(chunked.get_mut(place), Some(&mut (place + 1)));
            }
            assert_eq!(chunked.get(count), None);
        }
        let rooms = chunked.chunks.iter().map(Vec::capacity);
        assert!(rooms.into_iter().all(|room| room < CHUNK * 5 / 4));
    }
}
