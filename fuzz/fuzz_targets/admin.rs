#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hookturn_fuzz::admin(data));
