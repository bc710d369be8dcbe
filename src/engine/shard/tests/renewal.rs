//! Settings that become others while clients are there.

use super::Shard;
use crate::engine::shard::Settings;

/// A PUBLISH of 5.0 to `t`, 1,503 bytes long.
fn large() -> Vec<u8> {
    let payload = [b'x'; 1_496];
    [b"\x30\xDC\x0B\x00\x01t\x00", &payload[..]].concat()
}

#[test]
fn what_was_announced_holds_for_who_was_told_and_what_is_stored_is_not_touched() {
    let mut shard = Shard::new(|_| ());
    let older = shard.connect_v5(b'a');
    shard.hear(older);
    let mut other = Settings::default();
    other.limits.max_packet_bytes = 1_000;
    shard.core.renew(other);
    assert!(shard.core.settings.stores, "that is made at the start");
    let newer = shard.connect_v5(b'b');
    shard.hear(newer);
    for (client, is_refused) in [(older, false), (newer, true)] {
        shard.receive(client, &large());
        assert_eq!(shard.is_closed(client), is_refused);
    }
    shard.core.renew(Settings::default());
    let newest = shard.connect_v5(b'c');
    shard.hear(newest);
    shard.receive(newest, &large());
    assert!(!shard.is_closed(newest));
}
