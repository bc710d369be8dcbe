//! When what stands at a log's beginning may go: all shards have told anew, since, what there is.
//!
//! A checkpoint of all shards is due when the log is more than twice as long as what there is takes, and two
//! segments; or, when nothing is written any more, longer than that once and two segments. What it copies is
//! then no more than what became free: in the long run each byte is copied once at most. On a full disk
//! one is due as well before it does not fit any more, since what makes room takes room.
//!
//! Invariant: nothing is removed behind the place where some shard's checkpoint begins, nor before all are
//! safe to their ends.
//!
//! Not here: what a checkpoint tells (`crate::engine::shard`), and who removes.

use super::frame::{Frame, Kind};
use super::needed_bytes;
use super::progress::Live;

/// What is known of the checkpoint that runs, and of what came since the last one.
#[derive(Debug)]
pub struct Cleaning {
    segment_bytes: u64,
    shards: Vec<Place>,
    is_running: bool,
    /// Checkpoints that may begin at rest before something is written again: what there is is known about,
    /// so it must not go on for ever.
    rests_left: u8,
    /// The bytes of the log after the last checkpoint: the next one waits until it has grown, however wrong
    /// the estimate of what there is may be. Not known before the first.
    bytes_after: Option<u64>,
    has_ended: bool,
}

/// One for what was written while the last one ran, and one more.
const RESTS_MAX: u8 = 2;

/// How far a shard is with its checkpoint.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// The segment where it begins.
    begins: Option<u64>,
    ends: bool,
}

/// Why one is.
enum Due {
    /// The log has become long.
    Length,
    /// Nothing else is to be done.
    Rest,
}

/// How things stand.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Bytes of all segments, and how many there are.
    pub log_bytes: u64,
    /// About what there is.
    pub live: Live,
    /// Bytes that can still be written, where there is no room for another segment.
    pub left_bytes: Option<u64>,
    /// Nothing was written for a while.
    pub is_quiet: bool,
}

impl Cleaning {
    /// For so many shards. A log that was found as it is has not been told anew.
    #[must_use]
    pub fn new(shards: u16, segment_bytes: u64) -> Self {
        Cleaning {
            segment_bytes,
            shards: vec![Place::default(); usize::from(shards)],
            is_running: false,
            rests_left: RESTS_MAX,
            bytes_after: None,
            has_ended: false,
        }
    }

    /// A frame was written, into this segment.
    pub fn note(&mut self, frame: &Frame, segment: u64) {
        let Some(place) = self.shards.get_mut(usize::from(frame.shard)) else {
            return;
        };
        match frame.kind() {
            Kind::CheckpointBegins => place.begins = Some(segment),
            Kind::CheckpointEnds => place.ends = place.begins.is_some(),
            Kind::Records if place.begins.is_none() || place.ends => {
                self.rests_left = RESTS_MAX;
            }
            Kind::Records | Kind::Oldest | Kind::Mark => {}
        }
    }

    /// Whether all shards have to tell anew what there is. If so, they are expected to.
    pub fn begin_if_due(&mut self, standing: Standing) -> bool {
        if self.is_running {
            return false;
        }
        if std::mem::take(&mut self.has_ended) {
            self.bytes_after = Some(standing.log_bytes);
        }
        match self.due(standing) {
            None => return false,
            Some(Due::Length) => {}
            Some(Due::Rest) => self.rests_left -= 1,
        }
        self.is_running = true;
        self.shards.fill(Place::default());
        true
    }

    fn due(&self, standing: Standing) -> Option<Due> {
        let Standing {
            log_bytes,
            live,
            left_bytes,
            is_quiet,
        } = standing;
        let live_bytes = live.bytes;
        let two_segments = 2 * self.segment_bytes;
        let needed_bytes = needed_bytes(live, self.segment_bytes);
        let fits = left_bytes.is_none_or(|left| needed_bytes <= left);
        let grown_bytes = log_bytes.saturating_sub(self.bytes_after.unwrap_or(0));
        let has_grown = grown_bytes >= self.segment_bytes;
        let is_long = has_grown && log_bytes > 2 * live_bytes + two_segments;
        let is_free = is_quiet || left_bytes.is_some();
        // Soon it would not fit.
        let presses =
            has_grown && left_bytes.is_some_and(|left| left < needed_bytes + self.segment_bytes);
        let is_longer = log_bytes > live_bytes + two_segments || presses;
        let rests = is_free && self.rests_left > 0 && is_longer;
        match (fits, is_long) {
            (false, _) => None,
            (true, true) => Some(Due::Length),
            (true, false) => rests.then_some(Due::Rest),
        }
    }

    /// Whether one is being told.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        self.is_running
    }

    /// The first segment that is still needed, if all checkpoints are through. All that was written is safe.
    pub fn take_oldest_needed(&mut self) -> Option<u64> {
        if !self.is_running || !self.shards.iter().all(|place| place.ends) {
            return None;
        }
        self.is_running = false;
        self.has_ended = true;
        self.shards.iter().filter_map(|place| place.begins).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 1_000;

    fn standing(log_bytes: u64, live_bytes: u64) -> Standing {
        Standing {
            log_bytes,
            live: Live {
                bytes: live_bytes,
                settling_bytes: live_bytes / 10,
            },
            left_bytes: None,
            is_quiet: false,
        }
    }

    fn frame(shard: u16, kind: Kind) -> Frame {
        let mut frame = Frame::new(Vec::new(), shard);
        frame.set_kind(kind);
        frame
    }

    #[test]
    fn what_is_needed_begins_where_the_first_checkpoint_does_once_all_are_through() {
        let mut cleaning = Cleaning::new(2, SEGMENT);
        assert!(cleaning.begin_if_due(standing(2_001, 0)));
        assert!(!cleaning.begin_if_due(standing(9_000, 0)), "it runs");
        cleaning.note(&frame(1, Kind::CheckpointBegins), 7);
        cleaning.note(&frame(0, Kind::CheckpointBegins), 8);
        cleaning.note(&frame(0, Kind::CheckpointEnds), 9);
        assert_eq!(cleaning.take_oldest_needed(), None);
        cleaning.note(&frame(1, Kind::CheckpointEnds), 9);
        assert_eq!(cleaning.take_oldest_needed(), Some(7));
        assert_eq!(cleaning.take_oldest_needed(), None);
    }

    #[test]
    fn an_end_without_its_beginning_is_of_an_earlier_one() {
        let mut cleaning = Cleaning::new(1, SEGMENT);
        assert!(cleaning.begin_if_due(standing(2_001, 0)));
        cleaning.note(&frame(0, Kind::CheckpointEnds), 3);
        assert_eq!(cleaning.take_oldest_needed(), None);
    }

    #[test]
    fn it_is_due_by_what_there_is_and_at_rest_only_after_something_was_written() {
        let mut cleaning = Cleaning::new(1, SEGMENT);
        assert!(!cleaning.begin_if_due(standing(4_000, 1_000)));
        let quiet = Standing {
            is_quiet: true,
            ..standing(4_000, 1_000)
        };
        let full = Standing {
            left_bytes: Some(2_349),
            ..quiet
        };
        assert!(!cleaning.begin_if_due(full), "it would not fit");
        // What was written while the first one ran may be over since.
        for _ in 0..RESTS_MAX {
            assert!(cleaning.begin_if_due(quiet));
            cleaning.note(&frame(0, Kind::CheckpointBegins), 5);
            cleaning.note(&frame(0, Kind::Records), 5);
            cleaning.note(&frame(0, Kind::CheckpointEnds), 5);
            assert_eq!(cleaning.take_oldest_needed(), Some(5));
        }
        assert!(!cleaning.begin_if_due(quiet), "nothing came since");
        cleaning.note(&frame(0, Kind::Records), 5);
        assert!(cleaning.begin_if_due(quiet));
    }

    #[test]
    fn on_a_full_disk_it_is_due_before_it_does_not_fit_any_more() {
        let mut cleaning = Cleaning::new(1, SEGMENT);
        let full = |log_bytes, left_bytes| Standing {
            left_bytes: Some(left_bytes),
            ..standing(log_bytes, 1_000)
        };
        assert!(!cleaning.begin_if_due(full(3_000, 3_350)));
        assert!(cleaning.begin_if_due(full(3_000, 3_349)));
        cleaning.note(&frame(0, Kind::CheckpointBegins), 5);
        cleaning.note(&frame(0, Kind::CheckpointEnds), 5);
        cleaning.note(&frame(0, Kind::Records), 5);
        assert_eq!(cleaning.take_oldest_needed(), Some(5));
        // One that brings nothing is not begun again.
        assert!(!cleaning.begin_if_due(full(1_500, 3_349)));
        assert!(cleaning.begin_if_due(full(2_500, 3_349)));
    }

    #[test]
    fn an_estimate_that_is_too_low_does_not_make_one_follow_the_other() {
        let mut cleaning = Cleaning::new(1, SEGMENT);
        assert!(cleaning.begin_if_due(standing(9_000, 10)));
        cleaning.note(&frame(0, Kind::CheckpointBegins), 5);
        cleaning.note(&frame(0, Kind::CheckpointEnds), 9);
        assert_eq!(cleaning.take_oldest_needed(), Some(5));
        assert!(!cleaning.begin_if_due(standing(8_000, 10)));
        assert!(!cleaning.begin_if_due(standing(8_999, 10)));
        assert!(cleaning.begin_if_due(standing(9_000, 10)));
    }
}
