//! What an acknowledgement waits for.

/// What has to be safe before an acknowledgement leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Everything up to this ticket is stored; 0 for nothing.
    pub ticket: u64,
    /// Everything retained up to this letter is visible to the shard that keeps it; 0 for nothing. Who
    /// hears of the acknowledgement and subscribes then finds no older value.
    pub letter: u64,
}
