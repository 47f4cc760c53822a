//! No input makes the reader panic, and nearly valid input is read to the end.

use proptest::prelude::*;
use serde_json::{Map, Value};
use tidegate::config::{read, schemas};

fn scalar() -> impl Strategy<Value = Value> {
    let words = [
        "100/s",
        "250ms",
        "1h",
        "5xx",
        "500-504",
        "x",
        "",
        "fleet",
        "count",
        "fixed",
        "enforce",
        "/a/{b}/**",
        "(",
        "a.b",
        "GET",
        "token_bucket",
        "unavailable",
        "both",
    ];
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i64..200).prop_map(Value::from),
        (-(1_i64 << 53)..(1 << 53)).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        proptest::sample::select(words.to_vec()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ]
}

/// JSON documents out of the words a configuration is made of.
pub fn document() -> impl Strategy<Value = Value> {
    let names: Vec<&str> = schemas().flat_map(|schema| schema.fields.iter().copied()).collect();
    let tree = scalar().prop_recursive(8, 64, 6, move |inner| {
        let name =
            prop_oneof![9 => proptest::sample::select(names.clone()).prop_map(str::to_owned), 1 => any::<String>()];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(name, inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
        ]
    });
    // Half the time it hangs where the reader looks deepest.
    (
        tree,
        any::<bool>(),
        proptest::sample::select(vec!["match", "circuit_breaker", "load_shedding", "responses", "rate_limits"]),
    )
        .prop_map(|(tree, bare, field)| {
            if bare {
                return tree;
            }
            let tree = if field == "rate_limits" { Value::from(vec![tree]) } else { tree };
            serde_json::json!({"policies": [{"name": "p", field: tree}]})
        })
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
        let _ = read(&[b"\x0a\x80\x01\x0a\x01a\x12\x7e".as_slice(), &bytes].concat());
    }

    #[test]
    fn random_documents_are_read_or_refused_with_errors_that_have_a_path(document in document()) {
        if let Err(errors) = read(document.to_string().as_bytes()) {
            prop_assert!(errors.iter().count() > 0);
            prop_assert!(errors.iter().all(|error| error.path.starts_with('$') && !error.message.is_empty()));
        }
    }
}
