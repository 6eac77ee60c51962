#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bkp::mysql::binlog::fuzz::gtid_set(bytes));
