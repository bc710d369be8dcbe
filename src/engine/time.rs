//! Time as the core knows it: a number of milliseconds that the shell hands in.
//!
//! The origin is arbitrary but the same for every shard of a process, so a `Timestamp` may travel
//! in mail. The core never reads a clock; tests and the simulator hand in times of their own.

/// Milliseconds since an origin shared by all shards; never goes backwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// A time that is never reached.
    pub const NEVER: Timestamp = Timestamp(u64::MAX);

    /// The time `ms` milliseconds after the origin.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Self {
        Timestamp(ms)
    }

    /// Milliseconds since the origin.
    #[must_use]
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// This time plus `ms` milliseconds; saturates at [`Timestamp::NEVER`].
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Timestamp(self.0.saturating_add(ms))
    }

    /// This time less `ms`; no earlier than the origin.
    #[must_use]
    pub const fn minus_ms(self, ms: u64) -> Self {
        Timestamp(self.0.saturating_sub(ms))
    }

    /// This time plus `seconds`; saturates at [`Timestamp::NEVER`].
    #[must_use]
    pub const fn plus_seconds(self, seconds: u32) -> Self {
        self.plus_ms(seconds as u64 * 1000)
    }

    /// Tenths of a second since the origin, as far as 32 bits go, and never 0.
    #[must_use]
    pub const fn as_ds(self) -> u32 {
        let ds = (self.0 / 100) as u32;
        if ds == 0 { 1 } else { ds }
    }

    /// Milliseconds from what [`Timestamp::as_ds`] was to `self`, up to 13 years.
    #[must_use]
    pub const fn ms_since_ds(self, ds: u32) -> u64 {
        self.as_ds().wrapping_sub(ds) as u64 * 100
    }

    /// Milliseconds from `earlier` to `self`, 0 if `earlier` is later.
    #[must_use]
    pub const fn ms_since(self, earlier: Timestamp) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// How long the last turn took, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lasted {
    /// Itself.
    pub turn_us: u64,
    /// With what the kernel did for it before the next; as long as itself if the shard slept.
    pub round_us: u64,
}
