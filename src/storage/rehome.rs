//! What was kept by another number of shards, told as those of now would have.
//!
//! Sessions and topics belong to shards by their names and how many shards there are. Where that number has
//! changed within a log, what each shard had is put together at that point and divided anew; what comes after
//! in the log was told by the shards of then. Sessions get new numbers thereby, and always the same ones: the
//! process that wrote on has counted alike.
//!
//! Not here: which frames there are ([`super::directory`]).

use super::decided::decide_all;
use super::epoch::{Epoch, Frames};
use super::image::Image;
use super::record::decoder::Decoder;
use super::record::encoder::Encoder;
use crate::engine::keys::{SessionNumber, ShardId};
use crate::engine::record::Persist;
use crate::engine::route::home_shard;
use std::num::NonZeroU64;

/// What each of so many shards has, by all epochs of a log.
///
/// # Errors
/// What was kept makes no sense, in words.
pub fn rehome(epochs: Vec<Epoch>, shards: ShardId) -> Result<Vec<Frames>, String> {
    let images = among(images(epochs)?, shards).into_iter();
    Ok((0..).zip(images).map(|(id, it)| tell(id, it)).collect())
}

/// What each shard of the last epoch has.
///
/// # Errors
/// What was kept makes no sense, in words.
pub fn images(epochs: Vec<Epoch>) -> Result<Vec<Image>, String> {
    let mut images: Vec<Image> = Vec::new();
    for epoch in epochs {
        images = among(images, epoch.frames.len() as ShardId);
        for (image, frames) in images.iter_mut().zip(epoch.frames) {
            play(image, frames)?;
        }
    }
    Ok(images)
}

/// Plays a shard's frames, behind what there is. Each gives its memory back for what it told.
///
/// # Errors
/// They make no sense, in words.
pub fn play(image: &mut Image, frames: Frames) -> Result<(), String> {
    let before = match frames.from_checkpoint {
        true => Image::from_checkpoint(),
        false => std::mem::take(image),
    };
    let mut player = Player::onto(before);
    for frame in frames.records {
        player.play(&frame)?;
    }
    *image = player.finish()?;
    Ok(())
}

/// Plays a shard's frames as they come.
pub struct Player {
    image: Image,
    decoder: Decoder,
}

impl Player {
    /// Behind what there is.
    #[must_use]
    pub const fn onto(image: Image) -> Self {
        // The cores' times are those of the wall clock.
        let decoder = Decoder::new(0);
        Player { image, decoder }
    }

    /// The next frame's records.
    ///
    /// # Errors
    /// They make no sense, in words.
    pub fn play(&mut self, records: &[u8]) -> Result<(), String> {
        let (image, mut fault) = (&mut self.image, None);
        let read = self.decoder.read(records, |record| {
            if fault.is_none() {
                fault = image.apply(record).err();
            }
        });
        read.map_err(|refusal| refusal.to_string())?;
        fault.map_or(Ok(()), |fault| Err(fault.to_string()))
    }

    /// What they make.
    ///
    /// # Errors
    /// Their end is missing, in words.
    pub fn finish(self) -> Result<Image, String> {
        if self.image.is_partial() {
            return Err(
                "the first segments are gone, and what was told anew has no end".to_owned(),
            );
        }
        Ok(self.image)
    }
}

/// What all shards have, of so many shards: as it is if there were as many.
fn among(images: Vec<Image>, shards: ShardId) -> Vec<Image> {
    if images.len() == usize::from(shards) {
        images
    } else {
        divide(images, shards)
    }
}

/// Divides what all shards have among so many others. What of it counts is decided first, while the shards
/// that it came in by are known.
#[must_use]
pub fn divide(mut images: Vec<Image>, shards: ShardId) -> Vec<Image> {
    decide_all(&mut images);
    let mut divided: Vec<Image> = (0..shards).map(|_| Image::default()).collect();
    let mut counters = vec![0; usize::from(shards)];
    for image in images {
        for (_, mut session) in image.sessions {
            let home = home_shard(&session.opened.client_id, shards);
            let (Some(image), Some(counter)) = (
                divided.get_mut(usize::from(home)),
                counters.get_mut(usize::from(home)),
            ) else {
                continue;
            };
            *counter += 1;
            let number = number(*counter, home);
            session.renumber(number);
            image.sessions.insert(number, session);
        }
        for (topic, message) in image.retained {
            let home = home_shard(&topic, shards);
            if let Some(image) = divided.get_mut(usize::from(home)) {
                image.retained.insert(topic, message);
            }
        }
    }
    divided
}

/// A session's number, by which one it is of its shard.
#[must_use]
pub fn number(counter: u64, shard: ShardId) -> SessionNumber {
    let number = counter << ShardId::BITS | u64::from(shard);
    SessionNumber(NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN))
}

/// The frames that tell it.
fn tell(shard: ShardId, image: Image) -> Frames {
    let mut encoder = Encoder::new(shard, 0);
    let mut frames = Frames::default();
    for (ticket, record) in (1..).zip(image.into_records()) {
        encoder.put(&Persist { ticket, record });
        take(&mut encoder, &mut frames);
    }
    encoder.flush();
    take(&mut encoder, &mut frames);
    frames
}

fn take(encoder: &mut Encoder, frames: &mut Frames) {
    let full = encoder.frames();
    let records = full.map(|frame| frame.sealed_records().to_vec());
    frames.records.extend(records);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::message::Qos;
    use crate::engine::record::Record;
    use crate::storage::samples::{self, opened};

    fn queued(session: SessionNumber, entry: u64) -> Record {
        let message = samples::message("t", "x", Qos::AtLeastOnce);
        samples::queued(session, entry, &message, None)
    }

    /// The frames of so many shards, told by `tell` with the sessions' numbers as these shards count.
    fn epoch(shards: ShardId, tell: impl Fn(ShardId) -> Vec<Record>) -> Epoch {
        let frames = (0..shards).map(|shard| {
            let mut encoder = Encoder::new(shard, 0);
            let mut frames = Frames::default();
            for (ticket, record) in (1..).zip(tell(shard)) {
                encoder.put(&Persist { ticket, record });
            }
            encoder.flush();
            take(&mut encoder, &mut frames);
            frames
        });
        Epoch {
            frames: frames.collect(),
        }
    }

    /// Client identifiers at home on this shard of so many.
    fn clients(shard: ShardId, shards: ShardId) -> Vec<String> {
        let all = (0..40).map(|number| format!("client-{number}"));
        all.filter(|id| home_shard(id, shards) == shard).collect()
    }

    fn sessions(frames: &[Frames]) -> Vec<(ShardId, SessionNumber, String, usize)> {
        let mut all = Vec::new();
        for (shard, frames) in (0..).zip(frames) {
            let mut image = Image::default();
            play(&mut image, frames.clone()).expect("a history");
            for (number, session) in image.sessions {
                let name = session.opened.client_id.to_string();
                all.push((shard, number, name, session.entries.len()));
            }
        }
        all
    }

    #[test]
    fn sessions_are_at_home_wherever_the_number_of_shards_has_changed() {
        let first = epoch(4, |shard| {
            let sessions = (1..).map(|counter| number(counter, shard));
            let named = sessions.zip(clients(shard, 4));
            named
                .flat_map(|(number, id)| [opened(number, &id), queued(number, 1)])
                .collect()
        });
        // The process with three shards has counted as it is counted here.
        let of_three = rehome(
            vec![Epoch {
                frames: first.frames.clone(),
            }],
            3,
        )
        .expect("divided");
        let numbers = sessions(&of_three);
        assert_eq!(numbers.len(), 40);
        let second = epoch(3, |shard| {
            let own = numbers.iter().filter(|(home, ..)| *home == shard);
            own.map(|(_, number, ..)| queued(*number, 2)).collect()
        });
        for shards in [1, 3, 4, 7] {
            let epochs = vec![
                Epoch {
                    frames: first.frames.clone(),
                },
                Epoch {
                    frames: second.frames.clone(),
                },
            ];
            let told = sessions(&rehome(epochs, shards).expect("divided"));
            assert_eq!(told.len(), 40);
            for (shard, number, name, entries) in told {
                assert_eq!(home_shard(&name, shards), shard);
                assert_eq!(number.0.get() as ShardId, shard);
                assert_eq!(entries, 2, "{name}");
            }
        }
    }
}
