//! The counters of one shard: traffic, and every drop with its reason.
//!
//! A name here is the name an operator sees. Gauges (connections, sessions, ...) are read from the
//! tables when asked for, not counted here.

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Counts since the shard began.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Counters {
            /// Names and values, in a fixed order.
            #[must_use]
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)+]
            }

            /// Names, and what each counts in a sentence.
            pub const DESCRIBED: &[(&str, &str)] = &[$((stringify!($name), concat!($($doc),+)),)+];
        }
    };
}

counters! {
    /// PUBLISH packets from clients.
    messages_received,
    /// PUBLISH packets to clients, repeats included.
    messages_sent,
    /// Bytes of the payloads of these.
    payload_bytes_received,
    /// Connections accepted.
    connections_accepted,
    /// Steps of authentications that methods were asked about.
    authentications,
    /// Of these, refused because too many waited.
    authentications_busy,
    /// Of these, not judged: their turn came when their clients could not wait any more.
    authentications_late,
    /// Connections refused because nobody vouches for them.
    connects_unauthenticated,
    /// Publishes to topics that their clients may not publish to.
    publishes_not_authorized,
    /// Subscriptions refused because their clients may read nothing of them.
    subscribes_not_authorized,
    /// Deliveries left out because the session may not read the topic.
    dropped_not_authorized,
    /// Times that clients published or subscribed faster than they may.
    rates_exceeded,
    /// QoS 0 messages beyond what their clients may get per second.
    dropped_rate_limited,
    /// Connections refused because their listener takes fewer per second.
    connections_refused_rate,
    /// Connections refused or closed because they are banned.
    connections_banned,
    /// Notes for the audit log beyond what it takes.
    notes_left_out,
    /// Lines of traces that found no room.
    trace_lines_left_out,
    /// Connections closed because what vouched for them has expired.
    identities_ended,
    /// Connections that broke the rules of PROXY header, TLS or WebSocket.
    transport_errors,
    /// Connections handed to their home shard.
    connections_handed_over,
    /// Connections refused because `connections_max` is reached.
    connections_refused_full,
    /// Connections closed at once because so many from their address were not let in yet.
    connections_refused_connecting,
    /// Connections refused because memory is almost gone.
    connections_refused_memory,
    /// Connections closed because memory was almost gone and they held most of it.
    connections_cut_memory,
    /// Sessions ended because memory was almost gone and they held much that came while it was short.
    sessions_ended_memory,
    /// Sessions ended because nobody came back for them in time.
    sessions_expired,
    /// CONNECTs refused for another reason.
    connects_refused,
    /// Connections closed because CONNECT did not come in time.
    connect_timeouts,
    /// Connections closed for silence beyond their keep alive.
    keep_alive_timeouts,
    /// Connections closed for breaking the protocol or a limit.
    protocol_errors,
    /// Connections closed because the broker, or their listener, is drained.
    connections_drained,
    /// Connections closed at once that were closing in order, because there were too many sockets.
    closes_hastened,
    /// Sessions taken over by a newer connection.
    takeovers,
    /// Of these, without having handled all that the client had sent by its older connection.
    takeovers_unheard,
    /// Mail sent to other shards.
    mail_sent,
    /// Turns in which nobody was accepted because the shard was late.
    accepts_paused_lag,
    /// Turns in which nobody was accepted because of `connect_rate_max`.
    accepts_paused_rate,
    /// Turns in which nobody was accepted because of `connecting_max`.
    accepts_paused_connecting,
    /// Times a connection was no longer read because its outbox was full.
    receives_paused,
    /// Times that the rest of a client's packets waited because the turn had done enough.
    packets_deferred,
    /// Turns that left full outboxes for the next.
    sends_deferred,
    /// Times that turns took too long, whereupon the next did less.
    turns_shortened,
    /// Times a client was no longer read because a shard that it publishes to had no room.
    publishers_paused_room,
    /// Times a client that published was not read because the store was behind, or the disk full.
    publishers_paused_storage,
    /// Publishes refused (0x97) because the disk was full.
    publishes_refused_storage,
    /// Times a client that publishes or subscribes was no longer read because memory was very short.
    publishers_paused_memory,
    /// QoS 0 messages dropped because the subscriber's outbox was full.
    dropped_outbox_full,
    /// Messages dropped because the subscriber was behind or away and memory was short.
    dropped_memory,
    /// Messages dropped because the session's queue was full.
    dropped_queue_full,
    /// Messages dropped because they waited too long for a bridge.
    dropped_queue_age,
    /// Messages dropped because too many waited behind retained ones.
    dropped_replay_full,
    /// Messages dropped because they were larger than the client takes.
    dropped_packet_too_large,
    /// Messages dropped because they expired.
    dropped_expired,
    /// QoS 0 messages not kept for absent clients.
    dropped_client_absent,
    /// Retained messages dropped because the store was full.
    dropped_retained_full,
    /// Retained messages not kept because memory was short.
    dropped_retained_memory,
    /// Shared messages dropped because no member was left.
    dropped_no_member,
    /// Wills left out because their clients may not publish to their topics.
    dropped_will_not_allowed,
    /// Messages dropped because their topic is the broker's own: `$SYS`, `$share`, `$queue`.
    dropped_dollar_topic,
}
