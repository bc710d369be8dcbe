//! Counting allocations: exact, so they are asserted even under test.

use allocation_counter::measure;

/// Runs `operation` so often, after the same again to warm up, and fails above `allowed` allocations each.
pub fn at_most(name: &str, allowed: f64, times: u64, mut operation: impl FnMut()) {
    for _ in 0..times {
        operation();
    }
    let counted = measure(|| {
        for _ in 0..times {
            operation();
        }
    });
    let each = counted.count_total as f64 / times as f64;
    println!("{name}: {each:.3} allocations");
    assert!(each <= allowed, "{name}: {each} allocations, not {allowed}");
}

/// Makes a thing and tells the bytes of heap memory it holds.
pub fn bytes_held<T>(make: impl FnOnce() -> T) -> (T, i64) {
    let mut make = Some(make);
    let mut made = None;
    let counted = measure(|| made = make.take().map(|make| make()));
    (made.expect("it was made"), counted.bytes_current)
}
