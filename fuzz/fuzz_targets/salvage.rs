//! The library's `salvage` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringmq_fuzz::salvage(input));
