//! A broker that loses, doubles, reorders or damages messages is caught, at each QoS.

use crate::fake::{self, Fault, Wire};
use crate::support::{breaches, measured, or_limited};
use serde_json::Value;

/// 103 messages, so that the last one is no fifth and nothing is held back at the end.
const COMMON: [&str; 9] = [
    "fanout",
    "--subscribers=3",
    "--messages=103",
    "--patience=1s",
    "--threads=2",
    "--rate=2000",
    "--size=100",
    "--publishers=1",
    "--keep-alive=0",
];

fn against(fault: Fault, qos: &str, more: &[&str]) -> (i32, Value) {
    let address = fake::start(fault, Wire::Tcp, None);
    measured(&address, &[&COMMON[..], &["--qos", qos], more].concat())
}

#[test]
fn a_fake_without_fault_is_clean_at_each_qos() {
    for qos in ["0", "1", "2"] {
        let (code, json) = against(Fault::None, qos, &[]);
        assert_eq!(or_limited(code, 0), 0, "{json}");
        assert_eq!(json["delivered"]["messages"], 309, "{json}");
    }
}

#[test]
fn lost_messages_are_counted_and_fail_where_they_may_not_be_lost() {
    for (qos, more, expected, verdict) in [
        ("0", &[][..], 3, "breach"),
        ("0", &["--allow-loss=10%"], 3, "breach"),
        ("0", &["--allow-loss=50%"], 0, "lossy"),
        ("1", &["--allow-loss=50%"], 3, "breach"),
        ("2", &[], 3, "breach"),
    ] {
        let (code, json) = against(Fault::Lose, qos, more);
        assert_eq!(breaches(&json, "lost"), 60, "QoS {qos}: {json}");
        assert_eq!(or_limited(code, expected), expected, "QoS {qos}: {json}");
        if code != 5 {
            assert_eq!(json["verdict"], verdict, "QoS {qos}: {json}");
        }
        assert!(!json["is_clean"].as_bool().unwrap(), "QoS {qos}: {json}");
    }
}

#[test]
fn doubled_messages_are_counted_and_fail_except_at_qos_1() {
    for (qos, expected) in [("0", 3), ("1", 0), ("2", 3)] {
        let (code, json) = against(Fault::Double, qos, &[]);
        assert_eq!(breaches(&json, "duplicated"), 60, "QoS {qos}: {json}");
        assert_eq!(json["delivered"]["messages"], 309, "QoS {qos}: {json}");
        assert_eq!(or_limited(code, expected), expected, "QoS {qos}: {json}");
    }
}

#[test]
fn reordered_messages_are_counted_and_fail_at_each_qos() {
    for qos in ["0", "1", "2"] {
        let (code, json) = against(Fault::Reorder, qos, &[]);
        assert_eq!(breaches(&json, "reordered"), 60, "QoS {qos}: {json}");
        assert_eq!(breaches(&json, "lost"), 0, "QoS {qos}: {json}");
        assert_eq!(code, 3, "QoS {qos}: {json}");
    }
}

#[test]
fn damaged_messages_are_counted_and_fail_at_each_qos() {
    for qos in ["0", "1", "2"] {
        let (code, json) = against(Fault::Damage, qos, &[]);
        assert_eq!(breaches(&json, "corrupt"), 60, "QoS {qos}: {json}");
        assert_eq!(code, 3, "QoS {qos}: {json}");
    }
}

#[test]
fn a_closed_loop_that_loses_gives_up_instead_of_hanging() {
    let address = fake::start(Fault::Lose, Wire::Tcp, None);
    let args = [
        "fanout",
        "--subscribers=2",
        "--messages=20",
        "--patience=1s",
        "--qos=1",
    ];
    let (code, json) = measured(&address, &args);
    assert_eq!(code, 3, "{json}");
    let warnings = json["warnings"].to_string();
    assert!(warnings.contains("nothing moved for 1s"), "{warnings}");
}
