//! Runs a real Envoy with Tidegate in it.
