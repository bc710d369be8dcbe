//! A vector that grows without a copy of all it has at once: when it is nearly full, a larger table is made,
//! and with every further item some move there. So none of a million is pushed in a turn that moves a
//! million.
//!
//! Invariants: the first `next.len()` items have moved, and in their places stands what they left; the table
//! is never full before they all have.
//!
//! Not here: taking out.

/// Smaller ones are copied at once.
const COPIED_MAX: usize = 2_048;
/// So many items move with one that comes. The last eighth of a table is filled meanwhile, so that eight
/// would do.
const MOVED_AT_ONCE: usize = 16;

/// The vector. What is left in the place of an item that moved is the default.
#[derive(Debug)]
pub struct Growing<T> {
    list: Vec<T>,
    /// The first items, while they move; without room otherwise.
    next: Vec<T>,
    /// A table whose items have moved: it is given back bit by bit.
    left: Vec<T>,
}

impl<T> Default for Growing<T> {
    fn default() -> Self {
        Growing {
            list: Vec::new(),
            next: Vec::new(),
            left: Vec::new(),
        }
    }
}

impl<T: Default> Growing<T> {
    /// Items in it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The item at a place.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<&T> {
        self.next.get(place).or_else(|| self.list.get(place))
    }

    /// The item at a place, to change it.
    pub fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        if place < self.next.len() {
            return self.next.get_mut(place);
        }
        self.list.get_mut(place)
    }

    /// The item at a place, or the default if it has moved: in fewer steps, for who can tell them apart and
    /// asks again with [`Growing::get`] then.
    #[inline]
    #[must_use]
    pub fn get_unmoved(&self, place: usize) -> Option<&T> {
        self.list.get(place)
    }

    /// The same, to change it.
    #[inline]
    pub fn get_unmoved_mut(&mut self, place: usize) -> Option<&mut T> {
        self.list.get_mut(place)
    }

    /// Adds an item at the end.
    pub fn push(&mut self, item: T) {
        let room = self.list.capacity();
        if self.next.capacity() == 0 && room > COPIED_MAX && self.list.len() >= room - room / 8 {
            self.next = Vec::with_capacity(room * 2);
        }
        self.move_some();
        self.list.push(item);
    }

    /// Goes on with what moves, so that it does not stay half done if no more items come.
    #[inline]
    pub fn move_some(&mut self) {
        if self.next.capacity() > 0 {
            self.move_next();
        } else if self.left.capacity() > 0 {
            self.give_back();
        }
    }

    #[cold]
    fn give_back(&mut self) {
        let left = self.left.len().saturating_sub(MOVED_AT_ONCE);
        self.left.truncate(left);
        if left == 0 {
            self.left = Vec::new();
        }
    }

    #[cold]
    fn move_next(&mut self) {
        for _ in 0..MOVED_AT_ONCE {
            let Some(item) = self.list.get_mut(self.next.len()) else {
                self.left = std::mem::replace(&mut self.list, std::mem::take(&mut self.next));
                return;
            };
            self.next.push(std::mem::take(item));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_found_while_it_grows_and_no_push_copies_many() {
        let mut growing = Growing::<usize>::default();
        let mut tables = 0;
        for count in 1..=100_000 {
            let (list, next) = (growing.list.as_ptr(), growing.next.as_ptr());
            let moved = growing.next.len();
            growing.push(count);
            assert_eq!(growing.len(), count);
            if count > COPIED_MAX + 1 {
                let now = growing.list.as_ptr();
                assert!(now == list || now == next, "{count}: a table was copied");
                assert!(growing.next.len() <= moved + MOVED_AT_ONCE);
                tables += usize::from(now != list);
            }
            for place in [0, count / 3, moved, moved.saturating_sub(1), count - 1] {
                assert_eq!(growing.get(place), (place < count).then_some(&(place + 1)));
                let is_moved = place < growing.next.len();
                let unmoved = growing.get_unmoved(place).copied();
                assert_eq!(
                    unmoved,
                    (place < count).then_some(if is_moved { 0 } else { place + 1 })
                );
                assert_eq!(growing.get_mut(place).copied(), growing.get(place).copied());
            }
        }
        assert!(tables > 3);
        assert!((0..100_000).all(|place| growing.get(place) == Some(&(place + 1))));
    }

    #[test]
    fn what_moves_is_through_and_its_memory_given_back_without_further_items() {
        let mut growing = Growing::<usize>::default();
        while growing.next.is_empty() {
            growing.push(7);
        }
        for _ in 0..growing.len() / MOVED_AT_ONCE * 2 + 4 {
            growing.move_some();
        }
        assert_eq!((growing.next.capacity(), growing.left.capacity()), (0, 0));
        assert_eq!(growing.get(growing.len() - 1), Some(&7));
    }
}
