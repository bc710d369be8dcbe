//! What is told of bridges: what they lose, and by which files and attempts they go.

use crate::bridges::{asked, await_line, bridge};
use crate::login::Scratch;
use crate::support::{Broker, Client, Connect, Setup, unique};

fn client(broker: &Broker) -> Client {
    Connect::v5(&unique("c")).open(broker)
}

fn lines_with(broker: &Broker, text: &str) -> usize {
    let log = broker.log();
    let lines = log.lines().filter(|line| line.contains("WARN"));
    lines.filter(|line| line.contains(text)).count()
}

/// Each reason has one line, with how many there were, and no second one soon; `ringmq bridges` has columns.
fn what_a_line_loses_is_told_with_its_remedy(shards: usize) {
    let rules = Scratch::new("topic readwrite t/#\n");
    let text = format!(
        "acl_file = {:?}\n[limits]\nmax_packet_bytes = 1024\n",
        rules.0
    );
    let remote = Setup::new().shards(shards).config(&text).start();
    let rules = "protocol = \"5.0\"\ntopics = [{ filter = \"#\" }]\n[admin]\nlisten = \"http://127.0.0.1:0\"";
    let local = Broker::with_config(shards, &bridge(remote.address(), rules));
    await_line(&local, "bridge b is up");
    let mut here = client(&local);
    here.publish("t/large", 1, "x".repeat(2_000));
    let line = await_line(&local, "1 message was dropped (dropped_bridge_too_large)");
    for said in [
        "WARN bridge b (mqtt://",
        "limits.max_packet_bytes",
        "publish smaller ones",
    ] {
        assert!(line.contains(said), "{line}");
    }
    for _ in 0..20 {
        here.publish("t/large", 1, "x".repeat(2_000));
    }
    local.await_counter("dropped_bridge_too_large", 21);
    assert_eq!(lines_with(&local, "dropped_bridge_too_large"), 1);
    let told = asked(&local);
    assert_eq!(
        (&told["dropped_by_line"], &told["rejected"]),
        (&21.into(), &0.into())
    );
    local.stop();
    let local = Broker::with_config(shards, &bridge(remote.address(), rules));
    await_line(&local, "bridge b is up");
    client(&local).publish("elsewhere", 1, "x");
    let line = await_line(&local, "1 message was not taken by the other broker");
    for said in ["the last one with not authorized (0x87)", "access rules"] {
        assert!(line.to_lowercase().contains(said), "{line}");
    }
    assert_eq!(asked(&local)["rejected"], 1);
    local.stop();
}

crate::on_shards!([1, 4] what_a_line_loses_is_told_with_its_remedy);
