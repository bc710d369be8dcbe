//! The library's `mosquitto` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringmq_fuzz::mosquitto(input));
