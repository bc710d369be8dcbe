//! From the thread that reads a log to those of the shards: what each has told, while it is read. So reading
//! waits for the disk, and playing for memory, at the same time; and of what was read no more is in memory
//! than what is on its way, in buffers that are used again.
//!
//! Not here: what a start makes of damage further on ([`super::directory`]).

use super::image::Image;
use super::log::frame::{Found, Kind};
use super::rehome::Player;
use crossbeam_channel::{Receiver, Sender, unbounded};

/// A shard gets so many bytes at once, or a frame.
const BATCH_BYTES: usize = 256 * 1024;
/// So many batches may be on their way to a shard; whoever reads waits for it then.
const BATCHES_MAX: usize = 8;

/// Frames, one behind the other.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Batch {
    fn put(&mut self, records: &[u8]) {
        self.bytes.extend_from_slice(records);
        self.ends.push(self.bytes.len());
    }

    fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let begins = [0].into_iter().chain(self.ends.iter().copied());
        let places = begins.zip(&self.ends);
        places.map(|(from, to)| self.bytes.get(from..*to).unwrap_or_default())
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

enum Part {
    /// What was before a checkpoint is gone.
    FromCheckpoint,
    Frames(Batch),
    /// That was all, and the whole log is right.
    All,
}

/// Where one shard's frames go.
pub struct Pipe {
    parts: Sender<Part>,
    spent: Receiver<Batch>,
    filling: Batch,
    made: usize,
    /// What comes before the first checkpoint hangs in the air.
    is_before: bool,
}

/// Where a shard gets them from.
pub struct Kept {
    parts: Receiver<Part>,
    spent: Sender<Batch>,
}

/// One for each of so many shards.
#[must_use]
pub fn pipes(shards: usize) -> (Vec<Pipe>, Vec<Kept>) {
    let one = |_| {
        let (parts, received) = unbounded();
        let (spent, again) = unbounded();
        let pipe = Pipe {
            parts,
            spent: again,
            filling: Batch::default(),
            made: 1,
            is_before: false,
        };
        let parts = received;
        (pipe, Kept { parts, spent })
    };
    (0..shards).map(one).unzip()
}

impl Pipe {
    /// The beginning of the log is gone: what was told begins with a checkpoint.
    pub fn begin_with_checkpoint(&mut self) {
        self.is_before = true;
        self.hand(Part::FromCheckpoint);
    }

    /// Whether that has not come.
    #[must_use]
    pub const fn is_before(&self) -> bool {
        self.is_before
    }

    /// The next frame of the shard.
    pub fn frame(&mut self, frame: &Found<'_>) {
        self.is_before &= frame.kind != Kind::CheckpointBegins;
        if !self.is_before {
            self.records(frame.records);
        }
    }

    /// The records of its next frame.
    pub fn records(&mut self, records: &[u8]) {
        if records.is_empty() {
            return;
        }
        self.filling.put(records);
        if self.filling.bytes.len() >= BATCH_BYTES {
            let next = self.next_batch();
            let full = std::mem::replace(&mut self.filling, next);
            self.hand(Part::Frames(full));
        }
    }

    /// That was all.
    pub fn end(mut self) {
        let last = std::mem::take(&mut self.filling);
        self.hand(Part::Frames(last));
        self.hand(Part::All);
    }

    fn next_batch(&mut self) -> Batch {
        if let Ok(again) = self.spent.try_recv() {
            return again;
        }
        if self.made < BATCHES_MAX {
            self.made += 1;
            return Batch::default();
        }
        // Who is gone sends none back.
        self.spent.recv().unwrap_or_default()
    }

    fn hand(&self, part: Part) {
        // Who is gone needs none.
        let _ = self.parts.send(part);
    }
}

impl Kept {
    /// What all of it makes, once the whole log was read.
    ///
    /// # Errors
    /// It makes no sense, or the log cannot be read, in words.
    pub fn play(self) -> Result<Image, String> {
        let mut player = Player::onto(Image::default());
        loop {
            match self.parts.recv() {
                Ok(Part::FromCheckpoint) => player = Player::onto(Image::from_checkpoint()),
                Ok(Part::Frames(mut batch)) => {
                    for records in batch.frames() {
                        player.play(records)?;
                    }
                    batch.clear();
                    // Who reads may be through.
                    let _ = self.spent.send(batch);
                }
                Ok(Part::All) => return player.finish(),
                Err(_) => return Err("the log could not be read to its end".to_owned()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::message::Qos;
    use crate::engine::record::Persist;
    use crate::storage::record::encoder::Encoder;
    use crate::storage::rehome::number;
    use crate::storage::samples::{message, opened, queued};

    /// Frames that together are larger than all that may be on its way.
    fn frames() -> Vec<Vec<u8>> {
        let mut encoder = Encoder::new(0, 0).with_frame_bytes_max(100_000);
        let session = number(1, 0);
        let payload = "x".repeat(10_000);
        let queued = (1..=400).map(|entry| {
            let message = message("t", &payload, Qos::AtLeastOnce);
            queued(session, entry, &message, None)
        });
        let records = [opened(session, "c")].into_iter().chain(queued);
        let mut frames = Vec::new();
        for (ticket, record) in (1..).zip(records) {
            encoder.put(&Persist { ticket, record });
        }
        encoder.flush();
        frames.extend(encoder.frames().map(|it| it.sealed_records().to_vec()));
        frames
    }

    #[test]
    fn a_shard_has_all_of_it_though_little_is_on_its_way_at_once() {
        let (pipes, kept) = pipes(1);
        let frames = frames();
        let all: usize = frames.iter().map(Vec::len).sum();
        assert!(all > 2 * BATCHES_MAX * BATCH_BYTES * 3 / 4, "{all}");
        let reads = std::thread::spawn(move || {
            for mut pipe in pipes {
                for frame in &frames {
                    pipe.records(frame);
                }
                assert!(pipe.made <= BATCHES_MAX);
                pipe.end();
            }
        });
        let images = kept.into_iter().map(|kept| kept.play().expect("a history"));
        let entries: Vec<usize> = images
            .flat_map(|image| image.sessions.into_values())
            .map(|session| session.entries.len())
            .collect();
        assert_eq!(entries, [400]);
        reads.join().expect("all was taken");
    }

    #[test]
    fn nothing_comes_of_a_log_that_was_not_read_to_its_end() {
        let (mut pipes, mut kept) = pipes(1);
        for frame in frames().iter().take(3) {
            pipes[0].records(frame);
        }
        drop(pipes);
        let kept = kept.pop().expect("one").play();
        assert!(kept.is_err_and(|why| why.contains("to its end")));
    }

    #[test]
    fn a_shard_that_is_gone_holds_up_nobody() {
        let (pipes, kept) = pipes(1);
        drop(kept);
        for mut pipe in pipes {
            for frame in &frames() {
                pipe.records(frame);
            }
            pipe.end();
        }
    }
}
