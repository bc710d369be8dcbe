//! One client whole: how fast its messages come and go, and what went wrong for it, also before it was ever let
//! in; by the API and by `ringmq client`.

use crate::admin::{ANYWHERE, address, get};
use crate::on_shards;
use crate::operator::run;
use crate::support::{Broker, Connect, Props, Setup, eventually, prop, unique};
use serde_json::Value;

fn see(broker: &Broker, path: &str) -> Value {
    let page = get(address(broker), &format!("/api/v1/clients/{path}"));
    assert_eq!(page.status, 200, "{path}: {}", page.body);
    serde_json::from_str(&page.body).expect("JSON")
}

/// What went wrong, newest first.
fn texts(list: &Value) -> Vec<String> {
    let rows = list.as_array().expect("a list").iter();
    rows.map(|row| row["text"].as_str().expect("a text").to_owned())
        .collect()
}

on_shards! { [1, 2, 4]
    messages_and_bytes_are_counted_and_rates_are_of_the_time_asked_for,
    what_went_wrong_for_a_client_is_kept_with_its_time,
    a_queue_that_stays_full_is_one_row_and_few_lines,
}

fn a_queue_that_stays_full_is_one_row_and_few_lines(shards: usize) {
    let config = format!("{ANYWHERE}[limits]\nqueue_messages_max = 1\n");
    let broker = Broker::with_config(shards, &config);
    let mut away = Connect::v5("away").persistent().open(&broker);
    away.subscribe("t", 1);
    away.cut();
    let mut publisher = Connect::v5("p").open(&broker);
    let errors = || see(&broker, "away")["last_errors"].clone();
    let mut told = Vec::new();
    let mut published = 0;
    // The shard asks once in a second.
    eventually("what is lost was noted three times", || {
        publisher.publish("t", 1, "x");
        published += 1;
        let row = errors()
            .as_array()?
            .iter()
            .find(|row| is_loss(row))?
            .clone();
        let count = row["count"].as_u64().expect("a count");
        if told.last() != Some(&count) {
            told.push(count);
        }
        (told.len() == 3).then_some(())
    });
    eventually("each is counted", || {
        let rows = errors();
        let rows: Vec<_> = rows.as_array()?.iter().filter(|row| is_loss(row)).collect();
        assert_eq!(rows.len(), 1, "{rows:?}");
        (rows[0]["count"].as_u64() == Some(published - 1)).then_some(())
    });
    let texts = texts(&errors());
    assert!(
        texts.iter().any(|text| text.contains("has gone")),
        "{texts:?}"
    );
    let lines = broker.log().matches("client \"away\" has lost").count();
    assert_eq!(lines, 1, "{}", broker.log());
    broker.stop();
}

fn is_loss(row: &Value) -> bool {
    let text = row["text"].as_str().expect("a text");
    text.contains("it has lost messages: its queue is full (limits.queue_messages_max")
}

fn messages_and_bytes_are_counted_and_rates_are_of_the_time_asked_for(shards: usize) {
    let broker = Broker::with_config(shards, ANYWHERE);
    let mut subscriber = Connect::v5("s").open(&broker);
    for (topic, qos) in [("zero", 0), ("one", 1), ("two", 2)] {
        subscriber.subscribe(topic, qos);
    }
    let mut publisher = Connect::v5("p").open(&broker);
    for (topic, qos) in [("zero", 0), ("one", 1), ("two", 2)] {
        for _ in 0..3 {
            publisher.publish(topic, qos, "12345");
            subscriber.accept();
        }
    }
    let whole = see(&broker, "p");
    assert_eq!(
        (&whole["received_messages"], &whole["sent_messages"]),
        (&9.into(), &0.into()),
        "{whole}"
    );
    assert_eq!(whole["rates"], Value::Null);
    assert_eq!(see(&broker, "s")["sent_messages"], 9);
    // Messages that go while somebody looks.
    let stop = std::sync::atomic::AtomicBool::new(false);
    let [of_p, of_s] = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                publisher.publish("one", 1, "12345");
                subscriber.accept();
            }
        });
        let seen = ["p?over_ms=300", "s?over_ms=300"].map(|path| see(&broker, path));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        seen
    });
    let rate = |whole: &Value, name: &str| whole["rates"][name].as_f64().expect("a rate");
    assert!(rate(&of_p, "over_ms") >= 300.0, "{of_p}");
    assert!(rate(&of_p, "received_messages_per_second") > 0.0, "{of_p}");
    assert_eq!(rate(&of_p, "sent_messages_per_second"), 0.0);
    assert!(rate(&of_p, "received_bytes_per_second") > 0.0, "{of_p}");
    assert!(rate(&of_s, "sent_messages_per_second") > 0.0, "{of_s}");
    assert_eq!(rate(&of_s, "received_messages_per_second"), 0.0);
    for wrong in ["p?over_ms=99", "p?over_ms=5001"] {
        let page = get(address(&broker), &format!("/api/v1/clients/{wrong}"));
        assert_eq!(page.status, 422, "{}", page.body);
    }
    broker.stop();
}

fn what_went_wrong_for_a_client_is_kept_with_its_time(shards: usize) {
    let file = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("access"));
    std::fs::write(&file, "topic read ok/#\n").expect("write");
    let config = format!("acl_file = {file:?}\n{ANYWHERE}[limits]\nqueue_messages_max = 1\n");
    let broker = Broker::with_config(shards, &config);
    let slowly = Props::new().two(prop::RECEIVE_MAXIMUM, 1);
    let mut client = Connect::v5("c").props(slowly).persistent().open(&broker);
    assert_eq!(see(&broker, "c")["last_errors"], Value::Array(Vec::new()));
    client.publish("not/ok", 0, "x");
    let denied = eventually("a denial is told", || {
        let told = see(&broker, "c")["last_errors"].clone();
        told.as_array().and_then(|rows| rows.first().cloned())
    });
    let text = denied["text"].as_str().expect("a text");
    assert!(
        text.contains("may not publish to \"not/ok\" (acl_file)"),
        "{text}"
    );
    assert!(denied["seconds_ago"].as_u64() < Some(60), "{denied}");
    let at_ms = denied["at_ms"].as_u64().expect("a time");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now_ms = now.expect("after 1970").as_millis() as u64;
    assert!(now_ms.abs_diff(at_ms) < 60_000, "{at_ms} {now_ms}");
    // A second connection with its identifier, and one that only closes.
    let again = Connect::v5("c").persistent().resume().open(&broker);
    drop(again);
    let told = eventually("both are told", || {
        let told = texts(&see(&broker, "c")["last_errors"]);
        (told.len() == 3).then_some(told)
    });
    assert!(
        told[0].contains("it closed the connection without a DISCONNECT"),
        "{told:?}"
    );
    assert!(told[1].contains("a newer connection"), "{told:?}");
    let _ = std::fs::remove_file(&file);
    broker.stop();
}

#[test]
fn of_a_client_that_was_never_let_in_it_is_told_why() {
    let file = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("users"));
    std::fs::write(&file, "").expect("write");
    let config = format!("password_file = {file:?}\n{ANYWHERE}");
    let broker = Setup::new().shards(2).config(&config).start();
    let refused = Connect::v5("sensor").login("ann", "wrong").attempt(&broker);
    drop(refused);
    let told = eventually("it is told", || {
        let told = texts(&see(&broker, "sensor/errors")["errors"]);
        (!told.is_empty()).then_some(told)
    });
    assert!(
        told[0].contains("client \"sensor\" (user \"ann\")"),
        "{told:?}"
    );
    assert!(told[0].contains("is refused"), "{told:?}");
    let at = format!("http://{}", address(&broker));
    let told = run(&["client", "sensor", "--admin", &at], &[]);
    assert_eq!(
        (told.status.code(), &*told.output),
        (Some(3), ""),
        "{told:?}"
    );
    for text in [
        "no session has this client identifier",
        "WHAT WENT WRONG",
        "is refused",
    ] {
        assert!(told.log.contains(text), "no '{text}': {told:?}");
    }
    assert_eq!(
        see(&broker, "nobody/errors")["errors"],
        Value::Array(Vec::new())
    );
    let _ = std::fs::remove_file(&file);
    broker.stop();
}

#[test]
fn a_client_is_told_of_whole_on_a_terminal() {
    let broker = Setup::new().shards(2).config(ANYWHERE).start();
    let mut client = Connect::v5("c").persistent().open(&broker);
    client.subscribe("x/+", 1);
    drop(Connect::v5("c").persistent().resume().open(&broker));
    let _client = Connect::v5("c").persistent().resume().open(&broker);
    let at = format!("http://{}", address(&broker));
    let told = run(&["client", "c", "--admin", &at, "--over-ms", "100"], &[]);
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    for text in [
        "messages from it /s ",
        "bytes to it ",
        "WHAT WENT WRONG",
        "x/+ ",
    ] {
        assert!(told.output.contains(text), "no '{text}': {}", told.output);
    }
    let told = run(&["client", "c", "--admin", &at, "--over-ms", "0"], &[]);
    assert!(!told.output.contains("messages from it /s "), "{told:?}");
    let wrong = run(&["client", "c", "--admin", &at, "--over-ms", "7"], &[]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    broker.stop();
}
