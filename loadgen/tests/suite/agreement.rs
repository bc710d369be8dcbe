//! The counts agree with those of mosquitto_sub on the same traffic.

use crate::support::{Broker, clean};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;

#[test]
fn mosquitto_sub_counts_the_same_messages_and_bytes() {
    let broker = Broker::start();
    let port = broker.address.rsplit(':').next().unwrap();
    for (qos, messages) in [("0", 500_u64), ("1", 400), ("2", 300)] {
        let count = (messages * 3).to_string();
        // -d says when the subscription stands, at once because of stdbuf; -F prints the payload's length.
        let mut child = Command::new("stdbuf")
            .args([
                "-oL",
                "mosquitto_sub",
                "-h",
                "127.0.0.1",
                "-p",
                port,
                "-t",
                "loadgen/#",
                "-q",
                qos,
                "-d",
            ])
            .args(["-F", "bytes %l", "-C", &count, "-W", "60"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("mosquitto-clients are installed (scripts/test.sh --setup)");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let subscribed =
            lines.find(|line| line.as_ref().is_ok_and(|l| l.starts_with("Subscribed")));
        assert!(subscribed.is_some(), "mosquitto_sub subscribes");
        let counting = thread::spawn(move || -> Vec<u64> {
            let lines = lines.map_while(Result::ok);
            lines
                .filter_map(|line| line.strip_prefix("bytes ")?.parse().ok())
                .collect()
        });
        let each = messages.to_string();
        let args = [
            "fanout",
            "--publishers=3",
            "--subscribers=5",
            "--size=16-300",
        ];
        let json = clean(
            &broker.address,
            &[
                &args[..],
                &["--qos", qos, "--messages", &each, "--window=5"],
            ]
            .concat(),
        );
        let seen = counting.join().unwrap();
        assert!(
            child.wait().unwrap().success(),
            "mosquitto_sub got as many as it waited for"
        );
        let published = &json["published"];
        assert_eq!(published["messages"], seen.len(), "QoS {qos}");
        assert_eq!(published["bytes"], seen.iter().sum::<u64>(), "QoS {qos}");
        let delivered = &json["delivered"];
        assert_eq!(delivered["messages"], seen.len() * 5, "QoS {qos}");
        assert_eq!(
            delivered["bytes"],
            seen.iter().sum::<u64>() * 5,
            "QoS {qos}"
        );
    }
}
