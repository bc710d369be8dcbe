//! Who is slow and who is loud, as operators are told: by the API, in metrics, in the order of lists.

use crate::admin::{ANYWHERE, address, get};
use crate::on_shards;
use crate::storage::Place;
use crate::support::{Ack, Broker, Connect, Props, eventually, prop};
use serde_json::Value;

fn see(broker: &Broker, path: &str) -> Value {
    let page = get(address(broker), path);
    assert_eq!(page.status, 200, "{path}: {}", page.body);
    serde_json::from_str(&page.body).expect("JSON")
}

fn names(list: &Value, name: &str) -> Vec<String> {
    let rows = list.as_array().expect("a list").iter();
    rows.map(|row| row[name].as_str().expect("a text").to_owned())
        .collect()
}

on_shards! { [1, 2]
    who_is_slow_is_told_before_and_after_anything_is_dropped,
    who_publishes_most_is_told_and_where_to,
}

fn who_is_slow_is_told_before_and_after_anything_is_dropped(shards: usize) {
    let config = format!("{ANYWHERE}[limits]\nqueue_messages_max = 5\n");
    let broker = Broker::with_config(shards, &config);
    let one_at_a_time = Props::new().two(prop::RECEIVE_MAXIMUM, 1);
    let mut slow = Connect::v5("slow").props(one_at_a_time).open(&broker);
    slow.subscribe("t", 1);
    let mut fast = Connect::v5("fast").open(&broker);
    fast.subscribe("t", 1);
    let mut publisher = Connect::v5("p").open(&broker);
    for _ in 0..4 {
        publisher.publish("t", 1, "12345");
        fast.accept();
    }
    let told = || see(&broker, "/api/v1/top")["slow_clients"].clone();
    let row = eventually("the slow one is told of", || {
        let rows = told();
        assert!(
            !names(&rows, "client_id").contains(&"fast".to_owned()),
            "{rows}"
        );
        rows.as_array().and_then(|rows| rows.first().cloned())
    });
    assert_eq!(
        (&row["client_id"], &row["messages"]),
        (&"slow".into(), &4.into()),
        "{row}"
    );
    assert!(row["waits_ms"].as_u64() >= Some(100), "{row}");
    assert_eq!(row["dropped_messages"], 0);
    for sort in ["wait", "messages", "queue"] {
        let page = see(&broker, &format!("/api/v1/clients?sort={sort}&limit=1"));
        assert_eq!(names(&page["clients"], "client_id"), ["slow"], "{sort}");
        assert!(
            page["clients"][0]["waits_ms"].as_u64() >= Some(100),
            "{page}"
        );
    }
    for _ in 0..4 {
        publisher.publish("t", 1, "12345");
        fast.accept();
    }
    let metric = "ringmq_slow_client_dropped_messages{";
    eventually("it has lost some", || {
        let page = get(address(&broker), "/metrics").body;
        let line = page.lines().find(|line| line.starts_with(metric))?;
        line.ends_with("client_id=\"slow\"} 2").then_some(())
    });
    for _ in 0..6 {
        let publish = slow.recv_publish();
        slow.ack(Ack::Puback, publish.id);
    }
    eventually("nothing waits", || {
        (told() == Value::Array(Vec::new())).then_some(())
    });
    broker.stop();
}

fn who_publishes_most_is_told_and_where_to(shards: usize) {
    let broker = Broker::with_config(shards, &format!("{ANYWHERE}top_max = 2\n"));
    for (id, topic, count) in [
        ("loud", "a/b/c/d", 300),
        ("less", "a/b/e", 100),
        ("little", "x", 10),
    ] {
        let mut client = Connect::v5(id).open(&broker);
        for _ in 0..count {
            client.publish(topic, 1, "12345");
        }
    }
    let top = see(&broker, "/api/v1/top");
    assert_eq!(names(&top["loud_clients"], "name"), ["loud", "less"]);
    assert_eq!(names(&top["loud_topics"], "name"), ["a/b/#", "x"]);
    let rate = |row: &Value, name: &str| row[name].as_f64().expect("a rate");
    let rows = [&top["loud_clients"][0], &top["loud_clients"][1]];
    let [loud, less] = rows.map(|row| rate(row, "messages_per_second"));
    // Of the same time, but for those who are on another shard.
    assert!(loud > less && less > 0.0, "{top}");
    let bytes = rate(rows[0], "bytes_per_second");
    assert!((bytes / loud - 12.0).abs() < 1.0, "{top}");
    let at = format!("http://{}", address(&broker));
    let told = crate::operator::run(&["top", "--admin", &at, "--every", "0.1"], &[]);
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    let is_told = |head: &str, first: &str| {
        let (_, rows) = told.output.split_once(head).expect("a table");
        rows.lines()
            .nth(1)
            .is_some_and(|row| row.starts_with(first))
    };
    assert!(
        is_told("LOUD CLIENT", "loud ") && is_told("LOUD TOPICS", "a/b/# "),
        "{told:?}"
    );
    let page = get(address(&broker), "/metrics").body;
    for line in [
        "ringmq_loud_client_messages_per_second{client_id=\"loud\"} ",
        "ringmq_loud_topic_bytes_per_second{prefix=\"a/b/#\"} ",
    ] {
        assert!(page.contains(line), "{line}: {page}");
    }
    broker.stop();
}

#[test]
fn what_is_kept_on_disk_is_told() {
    let broker = Broker::with_config(1, ANYWHERE);
    assert_eq!(see(&broker, "/api/v1/storage")["keeps"], false);
    broker.stop();
    let place = Place::new();
    let broker = place.setup(1).config(ANYWHERE).start();
    Connect::v5("c")
        .persistent()
        .open(&broker)
        .subscribe("t", 1);
    let told = see(&broker, "/api/v1/storage");
    let number = |name: &str| told[name].as_u64().expect("a number");
    assert_eq!(
        (&told["keeps"], &told["full"]),
        (&true.into(), &false.into()),
        "{told}"
    );
    assert!(
        number("log_bytes") > 0 && number("segments") > 0 && number("commits") > 0,
        "{told}"
    );
    assert_eq!(told["pending_bytes"].as_array().map(Vec::len), Some(1));
    broker.stop();
}
