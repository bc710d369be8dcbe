//! What the core noted about connections, with where they come from, for whoever keeps account.

use super::{Shell, tellings};
use crate::engine::access::Identity;
use crate::engine::codec::Reason;
use crate::engine::keys::ConnectionKey;
use crate::engine::shard::unheard::TurnedAway;
use crate::engine::telemetry::notes::{Event, Gone, Note};
use crate::shard::account::Entry;
use crate::shard::handover::Origin;
use crate::shard::questions::Asker;
use crate::shard::ring::SocketKey;
use crossbeam_channel::{Sender, TrySendError};

/// The way to whoever keeps account.
pub(super) struct Accounts {
    entries: Sender<Vec<Entry>>,
    /// Room for a list that is emptied each time.
    notes: Vec<(Option<ConnectionKey>, Note)>,
}

impl Accounts {
    pub fn new(entries: Sender<Vec<Entry>>) -> Self {
        Accounts {
            entries,
            notes: Vec::new(),
        }
    }

    /// Hands over entries; how many found no room.
    fn hand_over(&self, entries: Vec<Entry>) -> u64 {
        let count = entries.len() as u64;
        match self.entries.try_send(entries) {
            Ok(()) => 0,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => count,
        }
    }
}

fn entry(note: Note, origin: Option<Origin>) -> Entry {
    Entry {
        listener: origin.map_or(u16::MAX, |origin| origin.listener),
        peer: origin.map(|origin| origin.peer),
        by: None,
        note,
    }
}

impl Shell {
    /// Hands on what the core noted, before the connections are gone.
    pub(super) fn record_notes(&mut self) {
        if !self.core.has_notes() {
            return;
        }
        let mut notes = std::mem::take(&mut self.accounts.notes);
        self.core.take_notes(&mut notes);
        let entries = notes.drain(..).map(|(connection, note)| {
            let by = match note.event {
                Event::TakenOver(by) => self.origin(by).map(|origin| origin.peer),
                _ => None,
            };
            let origin = connection.and_then(|connection| self.origin(connection));
            Entry {
                by,
                ..entry(note, origin)
            }
        });
        let entries: Vec<_> = entries.collect();
        self.accounts.notes = notes;
        self.keep_account(entries);
    }

    fn origin(&mut self, connection: ConnectionKey) -> Option<Origin> {
        let socket = self.sockets.socket(connection)?;
        Some(self.sockets.entry(socket)?.origin)
    }

    /// Nothing more comes of a connection, and how; before its CONNECT that is all that is known of it.
    pub(super) fn note_gone(&mut self, socket: SocketKey, connection: ConnectionKey, how: Gone) {
        let link = self.sockets.link(socket);
        let during = link.and_then(|link| link.layers.handshake());
        self.core.note_gone_early(connection, how, during);
        self.core.note_gone(connection, how);
    }

    /// Somebody was not let in of whom no name is known.
    pub(super) fn record_failure(&mut self, origin: Origin, failure: &str) {
        self.record_refused(origin, ("".into(), None), 0, failure);
    }

    /// Somebody was not let in because of its address.
    pub(super) fn record_turned_away(&mut self, origin: Origin, why: TurnedAway) {
        self.core.note_turned_away(why);
        let text = self.core.why_unheard(why);
        self.record_refused(origin, ("".into(), None), why.reason().byte(), &text);
    }

    /// Somebody who has gone had failed to prove who it is, or is banned by what its proof has named.
    pub(super) fn record_failed_login(
        &mut self,
        asker: &Asker,
        identity: &Identity,
        (reason, why): (Reason, &str),
    ) {
        let (client_id, user_name) = identity.called(&asker.client_id, asker.user_name.as_deref());
        let names = (client_id.into(), user_name.map(Into::into));
        self.record_refused(asker.origin, names, reason.byte(), why);
    }

    fn record_refused(
        &mut self,
        origin: Origin,
        (client_id, user_name): (Box<str>, Option<Box<str>>),
        reason: u8,
        text: &str,
    ) {
        let note = Note {
            client_id,
            user_name,
            event: Event::Refused {
                reason,
                text: text.into(),
            },
        };
        self.keep_account(vec![entry(note, Some(origin))]);
    }

    /// Keeps for its client what went wrong.
    fn note_mishap(&mut self, entry: &Entry) {
        if !entry.note.client_id.is_empty()
            && let Some(line) = tellings::line(entry)
        {
            let at_ms = self.clock.now().as_ms();
            let (cause, count) = tellings::cause(entry);
            let client_id = &entry.note.client_id;
            self.mishaps.note(client_id, at_ms, &cause, &line, count);
        }
    }

    /// Says in the log what tells why, and hands all on where somebody reads it.
    fn keep_account(&mut self, mut entries: Vec<Entry>) {
        let now = self.clock.turn_at();
        for entry in &entries {
            self.tellings.tell(now, entry);
            self.note_mishap(entry);
        }
        entries.retain(|entry| !matches!(entry.note.event, Event::GoneEarly { .. }));
        if self.core.takes_all_notes() {
            let left_out = self.accounts.hand_over(entries);
            if left_out > 0 {
                self.core.note_left_out(left_out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_counted() {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let accounts = Accounts::new(sender);
        let two = || {
            let note = Note {
                client_id: "c".into(),
                user_name: None,
                event: Event::Gone(Gone::Reset),
            };
            vec![entry(note.clone(), None), entry(note, None)]
        };
        assert_eq!(accounts.hand_over(two()), 0);
        assert_eq!(accounts.hand_over(two()), 2);
        assert_eq!(receiver.recv().unwrap().len(), 2);
        drop(receiver);
        assert_eq!(accounts.hand_over(two()), 2);
    }
}
