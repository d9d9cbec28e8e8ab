#![no_main]

#[path = "../targets.rs"]
#[expect(dead_code, reason = "each target uses its part of them")]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::readers::pn532(bytes));
