//! The configuration's reader, as seen from outside: what it accepts, with which defaults, and what it says otherwise.

// A helper that cannot go on fails the test that called it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod defaults;
mod errors;
mod forms;
#[cfg(not(target_family = "wasm"))]
mod properties;
#[cfg(not(target_family = "wasm"))]
mod reference;

use tidegate::config::{Config, Errors, Policy};

/// A configuration around a fragment: `kind` says what the fragment is.
pub fn wrap(kind: &str, fragment: &str) -> String {
    match kind {
        "configuration" => fragment.to_owned(),
        "policy" => format!(r#"{{"policies": [{fragment}]}}"#),
        "rate_limit" => wrap("fields", &format!(r#""rate_limits": [{fragment}]"#)),
        "key" => wrap("rate_limit", &format!(r#"{{"name": "l", "rate": "1/s", "key": {fragment}}}"#)),
        // Fields of a policy beside its name.
        "fields" => wrap("policy", &format!(r#"{{"name": "p", {fragment}}}"#)),
        field => wrap("fields", &format!(r#""{field}": {fragment}"#)),
    }
}

/// Reads what the reference documents.
pub fn read(text: &str) -> Result<Config, Errors> {
    tidegate::config::read(text.as_bytes())
}

/// The policy around a fragment that is valid.
pub fn policy(kind: &str, fragment: &str) -> Policy {
    let text = wrap(kind, fragment);
    read(&text).unwrap_or_else(|errors| panic!("{text}\n{errors}")).policies.remove(0)
}

/// The errors of a configuration, as shown.
pub fn errors(text: &str) -> Vec<String> {
    match read(text) {
        Ok(config) => panic!("accepted: {text}\n{config:?}"),
        Err(errors) => errors.to_string().lines().map(str::to_owned).collect(),
    }
}
