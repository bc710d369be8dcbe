//! What a record is: its first byte, and its name where it is refused.

macro_rules! tags {
    ($($(#[$doc:meta])* $name:ident = $bits:literal, $text:literal;)*) => {
        /// Kinds of records. A number that was used is never used for something else.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(super) enum Tag {
            $($(#[$doc])* $name = $bits,)*
        }

        impl Tag {
            pub(super) const fn from_bits(bits: u8) -> Option<Self> {
                match bits {
                    $($bits => Some(Tag::$name),)*
                    _ => None,
                }
            }

            pub(super) const fn name(self) -> &'static str {
                match self {
                    $(Tag::$name => $text,)*
                }
            }
        }
    };
}

tags! {
    /// A process has begun to write: numbers of bodies begin anew, parts that wait for others never get them.
    Began = 1, "a process began";
    /// The beginning of a record that is larger than a frame.
    Part = 2, "first part";
    /// What follows.
    NextPart = 3, "further part";
    /// A message, to be named by its number.
    Body = 4, "message";
    /// It is on its way to sessions.
    Queued = 5, "queued";
    Sent = 6, "sent";
    Unsent = 7, "unsent";
    Received = 8, "received";
    Settled = 9, "settled";
    Accepted = 10, "accepted";
    Released = 11, "released";
    Opened = 12, "session";
    Expires = 13, "session expiry";
    Left = 14, "session left";
    Ended = 15, "session ended";
    Subscribed = 16, "subscribed";
    Unsubscribed = 17, "unsubscribed";
    WillGone = 18, "will gone";
    Retained = 19, "retained";
    RetainedGone = 20, "retained gone";
    CheckpointBegins = 21, "checkpoint begins";
    Restates = 22, "told anew";
    Changes = 23, "changes";
    CheckpointEnds = 24, "checkpoint ends";
    /// A message is on its way to sessions if its publish, which is named, is complete.
    QueuedOnce = 25, "queued once";
    Complete = 26, "complete";
}
