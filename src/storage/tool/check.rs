//! Whether a start would take what is there, what it is, and what is concerned if not.

use super::remains::Losses;
use super::rescue::{Fault, Rescue, Told};
use super::walk::{Gap, Walked, walk};
use super::{ToolError, open};
use crate::storage::decided::decide_all;
use crate::storage::epoch::Epochs;
use crate::storage::image::Image;
use crate::storage::log::LogError;
use crate::storage::log::disk::{Directory, Disk};
use crate::storage::log::scan::scan;
use crate::storage::rehome::images;
use std::collections::BTreeMap;
use std::path::Path;

/// What there is, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sessions.
    pub sessions: u64,
    /// Their subscriptions.
    pub subscriptions: u64,
    /// Messages on their way to them.
    pub queued: u64,
    /// Bytes of these; one message for many sessions counts for each.
    pub queued_bytes: u64,
    /// Sessions with a will.
    pub wills: u64,
    /// Retained messages.
    pub retained: u64,
    /// Bytes of them.
    pub retained_bytes: u64,
}

impl Counts {
    /// Of all shards.
    pub fn of<'a>(images: impl IntoIterator<Item = &'a Image>) -> Self {
        let mut counts = Counts::default();
        for image in images {
            for session in image.sessions.values() {
                counts.sessions += 1;
                counts.subscriptions += session.subscriptions.len() as u64;
                counts.wills += u64::from(session.opened.will.is_some());
                let whole = session.entries.values();
                for delivery in whole.filter_map(|entry| entry.delivery.as_ref()) {
                    counts.queued += 1;
                    counts.queued_bytes += content_bytes(&delivery.message);
                }
            }
            counts.retained += image.retained.len() as u64;
            let retained = image.retained.values();
            counts.retained_bytes += retained.map(|it| content_bytes(it)).sum::<u64>();
        }
        counts
    }
}

/// Bytes of a message's topic, properties and payload.
pub(super) fn content_bytes(message: &crate::engine::message::Message) -> u64 {
    (message.topic().len() + message.properties().len() + message.payload().len()) as u64
}

/// What was found.
#[derive(Debug)]
pub struct Checked {
    /// The log.
    pub walked: Walked,
    /// What cannot be what was written, in frames that are.
    pub faults: Vec<Fault>,
    /// Records that were read.
    pub records: u64,
    /// Shards that have written.
    pub shards: u64,
    /// What a start, or a salvage, would have.
    pub counts: Counts,
    /// What it would not.
    pub losses: Losses,
    /// Why a start refuses it.
    pub refused: Option<String>,
}

impl Checked {
    /// Whether a start would take it.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.refused.is_none() && self.walked.gaps.is_empty() && self.faults.is_empty()
    }

    /// What is not as it was written, one by one.
    pub fn gaps(&self) -> impl Iterator<Item = &Gap> {
        self.walked.gaps.iter()
    }
}

/// Checks a directory, and changes nothing in it.
///
/// # Errors
/// It cannot be read, or a broker has it.
pub fn check(path: &Path) -> Result<Checked, ToolError> {
    let mut directory = open(path)?;
    let (checked, _) = read(path, &mut directory)?;
    Ok(checked)
}

/// What is in a log that is there.
pub(super) type Images = BTreeMap<u16, Image>;

pub(super) fn read(path: &Path, directory: &mut Directory) -> Result<(Checked, Images), ToolError> {
    look_through(directory, &mut |_| {}).map_err(|error| ToolError::failed(path, error))
}

/// Checks what is on a disk, and tells what it reads.
///
/// # Errors
/// It cannot be read.
pub fn look_through<D: Disk>(
    disk: &mut D,
    told: &mut dyn FnMut(Told<'_>),
) -> Result<(Checked, Images), LogError> {
    let mut rescue = Rescue::default();
    let walked = walk(disk, &mut |step| rescue.step(&step, told))?;
    let mut rescued = rescue.finish();
    let mut refused = None;
    match started(disk)? {
        Ok(mut images) if walked.gaps.is_empty() => {
            decide_all(&mut images);
            rescued.images = (0..).zip(images).collect();
            rescued.faults.clear();
            rescued.losses = Losses::default();
        }
        Ok(_) => {}
        Err(why) => refused = Some(why),
    }
    let checked = Checked {
        walked,
        faults: rescued.faults,
        records: rescued.records,
        shards: rescued.images.len() as u64,
        counts: Counts::of(rescued.images.values()),
        losses: rescued.losses,
        refused,
    };
    Ok((checked, rescued.images))
}

/// What a start would have, or why it refuses what is there.
fn started<D: Disk>(disk: &mut D) -> Result<Result<Vec<Image>, String>, LogError> {
    let mut epochs = Epochs::default();
    let found = match scan(disk, |frame, heads| epochs.put(&frame, heads.this)) {
        Ok(found) => found,
        Err(LogError::Damaged(damage)) => return Ok(Err(damage.to_string())),
        Err(error) => return Err(error),
    };
    let epochs = epochs.finish(found.segments.first().copied());
    Ok(epochs.and_then(images))
}
