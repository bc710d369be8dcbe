//! What clients may do: asked when they publish, when they subscribe, and where messages reach them.
//!
//! A subscription that may read all that its filter matches is marked so once, and costs nothing per
//! delivery; only others are checked each time (`checked`).
//!
//! Not here: the rules ([`crate::engine::access::acl`]).

use super::ShardCore;
use super::clients::Clients;
use crate::engine::access::acl::{Access, Acl, Grant, Rights};
use crate::engine::access::bans::BannedNames;
use crate::engine::codec::topic::Subscribed;
use crate::engine::keys::{ConnectionKey, SessionKey};
use crate::engine::session::holder::Holder;
use std::sync::Arc;

impl Clients {
    /// Whether a session may receive messages of `topic`.
    pub(super) fn may_read(&self, key: SessionKey, topic: &str) -> bool {
        let session = self.sessions.get(key);
        let rights = session.and_then(|session| session.holder.as_ref()?.rights.as_ref());
        rights.is_none_or(|rights| rights.allows(Access::Read, topic))
    }
}

impl ShardCore {
    /// The rules before anybody has connected.
    pub fn begin_with(&mut self, acl: Option<Arc<Acl>>, banned: Arc<BannedNames>) {
        self.acl = acl;
        self.banned = banned;
    }

    /// Access rules from now on, for those who are there as well.
    pub fn set_acl(&mut self, acl: Arc<Acl>) {
        self.acl = Some(acl);
        self.fan_outs.check_all();
        let sessions: Vec<_> = self.clients.sessions.keys().collect();
        for key in sessions {
            let Some(session) = self.clients.sessions.get_mut(key) else {
                continue;
            };
            let client_id = std::rc::Rc::clone(&session.client_id);
            let mut holder = session.holder.take().map_or_else(Holder::default, |h| *h);
            holder.rights = rights(self.acl.as_ref(), &holder, &client_id);
            session.holder = Some(Box::new(holder));
            self.mark_subscriptions(key);
        }
    }

    /// Who a connection belongs to, under a client identifier.
    pub(super) fn holder(&self, key: ConnectionKey, client_id: &str) -> Option<Box<Holder>> {
        let connection = self.clients.connections.get(key)?;
        let identity = connection
            .admitted
            .as_ref()
            .map(|admitted| &admitted.identity);
        if identity.is_none() && self.acl.is_none() && !self.settings.takes_notes {
            return None;
        }
        let mut holder = Holder {
            user_name: identity.and_then(|identity| identity.user_name.clone()),
            own_acl: identity.and_then(|identity| identity.acl.clone()),
            rights: None,
            ..Holder::default()
        };
        holder.rights = rights(self.acl.as_ref(), &holder, client_id);
        Some(Box::new(holder))
    }

    /// Whether a session belongs to the same user as this one.
    pub(super) fn is_holder(&self, key: SessionKey, holder: Option<&Holder>) -> bool {
        let session = self.clients.sessions.get(key);
        let known = session.and_then(|session| session.holder.as_ref()?.user_name.as_deref());
        known == holder.and_then(|holder| holder.user_name.as_deref())
    }

    /// A session belongs to whoever has connected now.
    pub(super) fn hand_session_to(&mut self, key: SessionKey, holder: Option<Box<Holder>>) {
        let Some(session) = self.clients.sessions.get_mut(key) else {
            return;
        };
        let of = |holder: &Option<Box<Holder>>| holder.as_ref().and_then(|h| h.rights.clone());
        let (before, now) = (of(&session.holder), of(&holder));
        session.holder = holder;
        let is_same = match (&before, &now) {
            (None, None) => true,
            (Some(before), Some(now)) => before.same_rules(now),
            _ => false,
        };
        if !is_same && !session.subscriptions.is_empty() {
            self.fan_outs.note_change(key);
            self.mark_subscriptions(key);
        }
    }

    /// Whether a session may publish to `topic`.
    pub(super) fn may_write(&self, key: SessionKey, topic: &str) -> bool {
        let session = self.clients.sessions.get(key);
        let rights = session.and_then(|session| session.holder.as_ref()?.rights.as_ref());
        rights.is_none_or(|rights| rights.allows(Access::Write, topic))
    }

    /// What becomes of a subscription.
    pub(super) fn grant(&self, key: SessionKey, subscribed: &Subscribed<'_>) -> Grant {
        let session = self.clients.sessions.get(key);
        let rights = session.and_then(|session| session.holder.as_ref()?.rights.as_ref());
        rights.map_or(Grant::Unchecked, |rights| {
            rights.subscribe(subscribed.filter.as_str())
        })
    }

    /// Marks a session's subscriptions by what it may read now. Those that it may read nothing of stay:
    /// they get nothing.
    fn mark_subscriptions(&mut self, key: SessionKey) {
        let Some(session) = self.clients.sessions.get(key) else {
            return;
        };
        let rights = session
            .holder
            .as_ref()
            .and_then(|holder| holder.rights.as_ref());
        for subscription in &session.subscriptions {
            let checked = rights.is_some_and(|rights| {
                let filter = self.trie.filter_text(subscription.node);
                rights.subscribe(&filter) != Grant::Unchecked
            });
            let entry = self.trie.entry_mut(subscription.node);
            let share = subscription.share.as_ref();
            if let Some(subscriber) = entry.and_then(|entry| entry.find_mut(key, share)) {
                subscriber.checked = checked;
            }
        }
    }
}

fn rights(acl: Option<&Arc<Acl>>, holder: &Holder, client_id: &str) -> Option<Rights> {
    let acl = holder.own_acl.as_ref().or(acl)?;
    Some(Rights::new(acl, holder.user_name.as_deref(), client_id))
}
