//! JSON text and serialized Structs: how they are told apart, read alike, and refused when broken.

#[cfg(not(target_family = "wasm"))]
use proptest::prelude::*;
use serde_json::Value;
use tidegate::config::read;
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// The wire format of a `google.protobuf.Struct`.
pub mod wire {
    use serde_json::{Map, Value};

    fn field(number: u8, payload: &[u8], out: &mut Vec<u8>) {
        out.push(number << 3 | 2);
        let mut length = payload.len();
        while length >= 0x80 {
            out.push(length as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend(payload);
    }

    pub fn object(map: &Map<String, Value>) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in map {
            let mut entry = Vec::new();
            field(1, name.as_bytes(), &mut entry);
            field(2, &self::value(value), &mut entry);
            field(1, &entry, &mut out);
        }
        out
    }

    fn value(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        match value {
            Value::Null => out.extend([0x08, 0]),
            Value::Bool(value) => out.extend([0x20, u8::from(*value)]),
            Value::Number(number) => {
                out.push(0x11);
                out.extend(number.as_f64().unwrap().to_le_bytes());
            }
            Value::String(text) => field(3, text.as_bytes(), &mut out),
            Value::Object(map) => field(5, &object(map), &mut out),
            Value::Array(items) => {
                let mut list = Vec::new();
                for item in items {
                    field(1, &self::value(item), &mut list);
                }
                field(6, &list, &mut out);
            }
        }
        out
    }
}

const TEXT: &str = r#"{"mode": "shadow", "policies": [{"name": "p", "enforce_percent": 12.5,
    "rate_limits": [{"name": "l", "rate": "1/s", "burst": 100, "cost": 2}],
    "circuit_breaker": {"minimum_calls": 100, "failure_when": {"reset": false}},
    "responses": {"rate_limited": {"headers": {"x": "y"}}}}], "version": 1}"#;

fn as_struct(text: &str) -> Vec<u8> {
    let value: Value = serde_json::from_str(text).unwrap();
    wire::object(value.as_object().unwrap())
}

fn error(bytes: &[u8]) -> String {
    read(bytes).unwrap_err().to_string()
}

#[test]
fn text_and_struct_of_one_document_are_read_alike() {
    let config = read(TEXT.as_bytes()).unwrap();
    assert_eq!(config.policies.len(), 1);
    assert_eq!(read(&as_struct(TEXT)).unwrap(), config);
}

#[test]
fn text_may_have_blanks_before_and_after_it() {
    let config = read(TEXT.as_bytes()).unwrap();
    for before in ["\n", "\n\n", "\r\n\t ", " ", "\n{\n\"version\":1,", "\u{feff}"] {
        let text = if before.contains('{') {
            TEXT.replacen('{', before, 1).replace(", \"version\": 1", "")
        } else {
            format!("{before}{TEXT}\n")
        };
        assert_eq!(read(text.as_bytes()).unwrap(), config, "{before:?}");
    }
}

/// The length of the first entry, the second byte, takes every value that JSON text could start with.
#[test]
fn a_struct_is_not_taken_for_text_whatever_its_lengths_are() {
    for length in 0..200 {
        let text = format!(r#"{{"{}": "{}"}}"#, "k".repeat(length % 40), "x".repeat(length));
        let error = error(&as_struct(&text));
        assert!(error.contains("unknown field"), "{text}: {error}");
    }
}

#[test]
fn a_broken_struct_is_refused_with_a_reason() {
    let whole = as_struct(TEXT);
    // From where the first value starts; before that there is nothing to tell a Struct by.
    for length in 9..whole.len() {
        // Cut between two entries it is a shorter Struct, and a valid one once the policies are there.
        if let Err(errors) = read(&whole[..length]) {
            let error = errors.to_string();
            assert!(error.contains("runs past the end") || error == "$.policies: required, but missing", "{error}");
        }
    }
    let lead = "not a valid serialized google.protobuf.Struct: ";
    for (bytes, path, reason) in [
        (&b"\x0a\x09\x0a\x01a\x12\x04\x1a\x09xx"[..], "$.a", "a field runs past the end"),
        (b"\x0a\x08\x0a\x01a\x12\x03\x1a\x01\xff", "$.a", "a string is not UTF-8"),
        (b"\x0a\x07\x0a\x01a\x12\x02\x17\x00", "$.a", "a field has an unknown wire type"),
        (
            b"\x0a\x10\x0a\x01a\x12\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            "$.a",
            "a number is longer than ten bytes",
        ),
        (b"\x0a\xff\x01\x0a\x01a\x12\x00", "$", "a field runs past the end"),
    ] {
        assert_eq!(error(bytes), format!("{path}: {lead}{reason}"), "{bytes:?}");
    }
}

#[test]
fn a_struct_may_hold_numbers_json_cannot_write() {
    let mut bytes = as_struct(r#"{"policies": [], "version": 7.5}"#);
    let at = bytes.windows(8).position(|window| window == 7.5_f64.to_le_bytes()).unwrap();
    bytes[at..at + 8].copy_from_slice(&f64::NAN.to_le_bytes());
    assert_eq!(error(&bytes), "$.version: expected 1, the only version, got no number");
}

#[test]
fn fields_a_struct_does_not_have_are_skipped() {
    let mut bytes = as_struct(TEXT);
    bytes.extend(b"\x10\x05\x19\x00\x00\x00\x00\x00\x00\x00\x00\x22\x01x\x2d\x00\x00\x00\x00");
    assert!(read(&bytes).is_ok());
}

#[test]
fn broken_text_names_path_line_and_column() {
    for (text, expected) in [
        ("{", "$: not valid JSON: EOF while parsing an object at line 1 column 1"),
        (
            "{\"policies\": [\n  {\"name\": }]}",
            "$.policies[0].name: not valid JSON: expected value at line 2 column 12",
        ),
        (
            "{\"policies\": [], \"version\": 1e400}",
            "$.version: not valid JSON: number out of range at line 1 column 33",
        ),
        ("{\"policies\": []} x", "$: not valid JSON: trailing characters at line 1 column 18"),
        ("policies: []", "$: not valid JSON: expected value at line 1 column 1"),
        ("{\"mode\": \"\\ud800\"}", "$.mode: not valid JSON: unexpected end of hex escape at line 1 column 17"),
    ] {
        assert_eq!(error(text.as_bytes()), expected, "{text}");
    }
    assert!(error(b"{\"mode\": \"\xff\"}").starts_with("$.mode: not valid JSON: invalid unicode"));
}

#[test]
fn depth_is_bounded_alike_in_both_forms() {
    let nested = |levels: usize| format!(r#"{{"a": {}{}}}"#, "[".repeat(levels), "]".repeat(levels));
    assert!(error(nested(63).as_bytes()).contains("$.a: unknown field"));
    assert_eq!(error(nested(63).as_bytes()), error(&as_struct(&nested(63))));
    for levels in [64, 100, 100_000] {
        assert!(error(nested(levels).as_bytes()).contains("nested too deeply: at most 64"), "{levels}");
    }
    assert!(error(&as_struct(&nested(64))).contains("[0]: nested too deeply: at most 64"));
    // Lists within lists, each as long as the rest allows, far deeper than any stack.
    let mut value = b"\x32\x00".to_vec();
    for _ in 0..5000 {
        let mut list = vec![0x0a];
        push_length(value.len(), &mut list);
        list.extend(&value);
        value = vec![0x32];
        push_length(list.len(), &mut value);
        value.extend(&list);
    }
    let mut entry = b"\x0a\x01a\x12".to_vec();
    push_length(value.len(), &mut entry);
    entry.extend(&value);
    let mut bytes = vec![0x0a];
    push_length(entry.len(), &mut bytes);
    bytes.extend(&entry);
    assert!(error(&bytes).contains("nested too deeply"), "{}", error(&bytes));
}

fn push_length(mut length: usize, out: &mut Vec<u8>) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

#[cfg(not(target_family = "wasm"))]
proptest! {
    #[test]
    fn any_document_is_read_alike_in_both_forms(document in super::properties::document()) {
        prop_assume!(document.as_object().is_some_and(|map| !map.is_empty()));
        let text = document.to_string();
        prop_assert_eq!(read(text.as_bytes()), read(&as_struct(&text)));
    }
}
