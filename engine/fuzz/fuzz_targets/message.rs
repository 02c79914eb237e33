//! Arbitrary bytes through everything in `hl7` that reads bytes from outside.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tie_engine::hl7::exercise(data));
