//! Whatever a proxy hands over, the reader returns, and its errors can be shown.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for result in [tidegate::config::read(bytes), tidegate::config::read_as_documented(bytes)] {
        if let Err(errors) = result {
            assert!(errors.iter().count() > 0);
            assert!(errors.to_string().starts_with('$'));
        }
    }
});
