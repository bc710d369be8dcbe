//! What clients may do: asked when they publish, when they subscribe, and where messages reach them.
//!
//! A subscription that may read all that its filter matches is marked so once, and costs nothing per
//! delivery; only others are checked each time (`checked`).
//!
//! Not here: the rules ([`crate::engine::access::acl`]), marks when they change (`super::marking`).

use super::ShardCore;
use super::clients::Clients;
use crate::engine::access::acl::{Access, Acl, Grant, Rights};
use crate::engine::access::bans::BannedNames;
use crate::engine::codec::topic::Subscribed;
use crate::engine::keys::{ConnectionKey, SessionKey};
use crate::engine::session::Session;
use crate::engine::session::holder::Holder;
use std::borrow::Cow;
use std::sync::Arc;

/// Steps of a walk through rules in the time of a delivery.
const STEPS_PER_DELIVERY: usize = 8;

impl Clients {
    /// What a session may do; everything without rights. Those that it was given may be by former rules: then
    /// they are found anew.
    pub(super) fn rights<'a>(&'a self, session: &'a Session) -> Option<Cow<'a, Rights>> {
        let holder = session.holder.as_deref();
        let known = holder.and_then(|holder| holder.rights.as_ref());
        let is_own = holder.is_some_and(|holder| holder.own_acl.is_some());
        match &self.rules.acl {
            Some(acl) if !is_own && !known.is_some_and(|known| known.are_by(acl)) => {
                let user_name = holder.and_then(|holder| holder.user_name.as_deref());
                Some(Cow::Owned(Rights::new(acl, user_name, &session.client_id)))
            }
            // There is no file any more.
            None if !is_own => None,
            _ => known.map(Cow::Borrowed),
        }
    }

    #[inline]
    fn allows(&self, key: SessionKey, access: Access, topic: &str) -> bool {
        // Rules come with the access file or with an identity, which may have come by a method of before.
        let has_methods = self.settings.authentication.has_methods || self.rules.had_methods;
        let is_free = self.rules.acl.is_none() && !has_methods;
        is_free || self.allows_by_rules(key, access, topic)
    }

    fn allows_by_rules(&self, key: SessionKey, access: Access, topic: &str) -> bool {
        let session = self.sessions.get(key);
        let rights = session.and_then(|session| self.rights(session));
        rights.is_none_or(|rights| rights.allows(access, topic))
    }

    /// Whether a session may receive messages of `topic`.
    #[inline(never)]
    pub(super) fn may_read(&self, key: SessionKey, topic: &str) -> bool {
        self.allows(key, Access::Read, topic) && self.has_part(key, topic)
    }

    /// Whether a session may receive messages of `topic` by a subscription that is marked so.
    #[inline]
    pub(super) fn may_get(&self, key: SessionKey, checked: bool, topic: &str) -> bool {
        !checked && !self.rules.marking.concerns(key) || self.may_read(key, topic)
    }

    /// Whether a topic is of the part that a session has of all; all of them, where nobody shares them.
    #[inline]
    fn has_part(&self, key: SessionKey, topic: &str) -> bool {
        !self.rules.has_parts || self.has_its_part(key, topic)
    }

    #[inline(never)]
    fn has_its_part(&self, key: SessionKey, topic: &str) -> bool {
        let session = self.sessions.get(key);
        let part = session.and_then(|session| session.part);
        part.is_none_or(|part| part.has(topic))
    }

    /// A message does not go to a session that [`Clients::may_get`] refused: that counts, unless another has
    /// its part of the topics.
    #[cold]
    #[inline(never)]
    pub(super) fn count_denied(&mut self, key: SessionKey, topic: &str) {
        self.counters.dropped_not_authorized += u64::from(self.has_part(key, topic));
    }
}

impl ShardCore {
    /// The rules before anybody has connected.
    pub fn begin_with(&mut self, acl: Option<Arc<Acl>>, banned: Arc<BannedNames>) {
        self.clients.rules.acl = acl;
        self.banned = banned;
    }

    /// Access rules from now on, for those who are there as well; without any everything is allowed.
    pub fn set_acl(&mut self, acl: Option<Arc<Acl>>) {
        self.clients.rules.acl = acl;
        self.clients.rules.marking.begin();
        self.fan_outs.check_all();
    }

    /// A session is given its rights by the rules in force.
    pub(super) fn renew_rights(&mut self, key: SessionKey) {
        let Some(session) = self.clients.sessions.get(key) else {
            return;
        };
        let Some(Cow::Owned(rights)) = self.clients.rights(session) else {
            return;
        };
        if let Some(session) = self.clients.sessions.get_mut(key) {
            session.holder.get_or_insert_default().rights = Some(rights);
        }
    }

    /// Who a connection belongs to, under a client identifier.
    pub(super) fn holder(&self, key: ConnectionKey, client_id: &str) -> Option<Box<Holder>> {
        let connection = self.clients.connections.get(key)?;
        let identity = connection
            .admitted
            .as_ref()
            .map(|admitted| &admitted.identity);
        if identity.is_none() && self.clients.rules.acl.is_none() && !self.settings.takes_notes {
            return None;
        }
        let mut holder = Holder {
            user_name: identity.and_then(|identity| identity.user_name.clone()),
            own_acl: identity.and_then(|identity| identity.acl.clone()),
            method: identity.map_or("", |identity| identity.method),
            rights: None,
            ..Holder::default()
        };
        holder.rights = rights(self.clients.rules.acl.as_ref(), &holder, client_id);
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
            self.clients.rules.marking.begin_one(key);
        }
    }

    /// Whether a session may publish to `topic`.
    pub(super) fn may_write(&self, key: SessionKey, topic: &str) -> bool {
        self.clients.allows(key, Access::Write, topic)
    }

    /// What becomes of a subscription.
    pub(super) fn grant(&mut self, key: SessionKey, subscribed: &Subscribed<'_>) -> Grant {
        let session = self.clients.sessions.get(key);
        let all = match session.and_then(|session| session.part) {
            Some(_) => Grant::Checked,
            None => Grant::Unchecked,
        };
        let Some(rights) = session.and_then(|session| self.clients.rights(session)) else {
            return all;
        };
        let (grant, steps) = rights.grant(subscribed.filter.as_str());
        self.backlog.spend(steps / STEPS_PER_DELIVERY);
        match grant {
            Grant::Unchecked => all,
            grant => grant,
        }
    }
}

/// What the holder of a session may do, by its own rules or those of the file.
pub(super) fn rights(acl: Option<&Arc<Acl>>, holder: &Holder, client_id: &str) -> Option<Rights> {
    let acl = holder.own_acl.as_ref().or(acl)?;
    Some(Rights::new(acl, holder.user_name.as_deref(), client_id))
}
