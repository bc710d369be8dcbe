//! The library's `topics` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringmq_fuzz::topics(input));
