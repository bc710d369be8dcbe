//! Single cases for `scripts/icount.sh`, which counts instructions: one case, so many times, no clock.

use crate::fanout::Rules;
use crate::{codec, fanout, records, route, session};

/// Operations that are counted: a name, how many deliveries (or the like) one call is, and the call.
fn case(name: &str) -> Option<(usize, Box<dyn FnMut()>)> {
    Some(match name {
        "fanout-1000" => (
            1_000,
            Box::new(fanout::operation(1_000, 64, 1, Rules::None)),
        ),
        "fanout-1000-rules" => (
            1_000,
            Box::new(fanout::operation(1_000, 64, 1, Rules::Unchecked)),
        ),
        "fanout-1000-checked" => (
            1_000,
            Box::new(fanout::operation(1_000, 64, 1, Rules::Checked)),
        ),
        "fanout-1000x16" => (
            16_000,
            Box::new(fanout::operation(1_000, 64, 16, Rules::None)),
        ),
        "fanout-1000-16k" => (
            1_000,
            Box::new(fanout::operation(1_000, 16_384, 1, Rules::None)),
        ),
        "pair-qos0x10" => (10, Box::new(fanout::operation(1, 64, 10, Rules::None))),
        "pair-qos1" => (1, Box::new(session::operation(1))),
        "pair-qos2" => (1, Box::new(session::operation(2))),
        "decode-5.0" => (64, Box::new(codec::operation())),
        "match-10K" => (1, Box::new(route::operation(10_000))),
        "records-to-1" => (records::AT_ONCE, Box::new(records::operation(1))),
        "records-to-100" => (100 * records::AT_ONCE, Box::new(records::operation(100))),
        _ => return None,
    })
}

/// Runs `NAME:TIMES`; prints what one call counts for.
pub fn run(request: &str) {
    let (name, times) = request.split_once(':').expect("NAME:TIMES");
    let (weight, mut operation) = case(name).expect("a known case");
    for _ in 0..times.parse().expect("a number") {
        operation();
    }
    println!("{weight}");
}
