//! Files that may change: where they are, and whether they have to be read again.
//!
//! Invariant: one that is being written is not read half by itself: it has to have rested from one look to
//! the next.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What tells a file from what stood there before: its time alone may be the same, as copies keep it.
pub(super) type Stamp = Option<(SystemTime, u64, u64)>;

/// When files were changed last: as they were read, and as they were seen at the last look.
pub(super) struct Watched<T> {
    /// As they were read.
    pub read: T,
    seen: T,
}

impl<T: PartialEq + Clone> Watched<T> {
    pub fn new(now: T) -> Self {
        Watched {
            read: now.clone(),
            seen: now,
        }
    }

    /// Whether to read again: somebody asks, or they changed and have rested since the last look, so that
    /// one that is being written is not read half.
    pub fn is_due(&mut self, now: T, is_asked: bool) -> bool {
        let has_settled = now != self.read && now == self.seen;
        self.seen = now.clone();
        if is_asked || has_settled {
            // Said once if it is wrong; the next change is the next attempt.
            self.read = now;
            return true;
        }
        false
    }
}

/// Where a file is, and when it was changed last.
pub(super) struct Place {
    pub path: PathBuf,
    stamp: Watched<Stamp>,
}

impl Place {
    /// The file as it is now, before it is read.
    pub fn new(path: &Path) -> Self {
        Place {
            path: path.to_owned(),
            stamp: Watched::new(stamp(path)),
        }
    }
}

/// What is to be done about a file.
pub(super) enum Due {
    Nothing,
    /// It is to be read.
    Read(Place),
    /// It is not named any more.
    Gone,
}

/// What is to be done about the file of a kind; `wanted` is what another configuration names, if there is
/// one.
pub(super) fn due(
    known: Option<&mut Place>,
    wanted: Option<Option<&PathBuf>>,
    is_asked: bool,
) -> Due {
    match (known, wanted) {
        (Some(_), Some(None)) => Due::Gone,
        (Some(known), None) => {
            let is_due = known.stamp.is_due(stamp(&known.path), is_asked);
            match is_due {
                true => Due::Read(Place::new(&known.path)),
                false => Due::Nothing,
            }
        }
        (_, Some(Some(path))) => Due::Read(Place::new(path)),
        (None, _) => Due::Nothing,
    }
}

/// How a file is now.
pub(super) fn stamp(path: &Path) -> Stamp {
    let file = std::fs::metadata(path).ok()?;
    Some((file.modified().ok()?, file.ino(), file.len()))
}

/// Has a file read again when it is looked at next.
pub(super) fn unread(place: Option<&mut Place>) {
    if let Some(place) = place {
        place.stamp.read = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    /// One that is moved into place may have the time of that before it, as copies keep it.
    #[test]
    fn a_file_in_anothers_place_is_another() {
        let place = std::env::temp_dir().join(format!("ringmq-stamp-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let [old, new] = ["old", "new"].map(|name| place.join(name));
        for path in [&old, &new] {
            let file = std::fs::File::create(path).unwrap();
            file.set_modified(UNIX_EPOCH).unwrap();
        }
        let before = stamp(&old);
        assert_eq!(before, stamp(&old));
        std::fs::rename(&new, &old).unwrap();
        assert_ne!(before, stamp(&old));
        std::fs::remove_dir_all(&place).unwrap();
    }
}
