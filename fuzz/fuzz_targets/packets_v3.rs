//! The library's `packets_v3` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringmq_fuzz::packets_v3(input));
