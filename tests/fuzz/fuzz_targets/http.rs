//! cargo-fuzz: `targets::http`.
#![no_main]
#![allow(dead_code, reason = "the bodies of the other targets")]

#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::http(data));
