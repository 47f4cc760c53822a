//! JSON in, a validated [`Config`] out: every error of a configuration at once, each with its JSON path.

mod model;

pub use model::*;
