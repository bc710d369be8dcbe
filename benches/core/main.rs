//! What the core costs, without sockets: time by criterion, and allocations, which are asserted.
//!
//! `cargo bench --bench core` measures; under `cargo test` each runs once, small, so that none rots.
//! `cargo bench --bench core -- route` picks some.

mod allocations;
mod broker;
mod cases;
mod codec;
mod fanout;
mod mailbox;
mod records;
mod route;
mod session;

use criterion::criterion_group;

/// How large a case is: `full` when it is measured, `tiny` under test.
fn size(full: usize, tiny: usize) -> usize {
    if std::env::args().any(|argument| argument == "--bench") {
        full
    } else {
        tiny
    }
}

criterion_group!(
    benches,
    codec::decode,
    codec::encode,
    route::matches,
    route::memory,
    fanout::fan_out,
    session::pairs,
    mailbox::hops,
    records::records,
);

fn main() {
    if let Ok(request) = std::env::var("RINGMQ_BENCH_CASE") {
        return cases::run(&request);
    }
    benches();
    criterion::Criterion::default()
        .configure_from_args()
        .final_summary();
}
