//! Whatever a proxy hands over, the reader returns, and its errors can be shown.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(errors) = tidegate::config::read(bytes) {
        assert!(errors.iter().count() > 0);
        assert!(errors.to_string().starts_with('$'));
    }
});
