//! What a plugin does once, when it is configured: whose state it shares, and what is said of it.

use crate::config::{self, Config};
use crate::engine::Engine;
use crate::share::SharedState;

use super::arena::Callback;

/// What tells this plugin's state from that of others in the same proxy. The host gives all three, empty where the operator
/// set none, and only together do they tell filters apart: pages are shared by VMs of one `vm_id`, numbers by the whole
/// process.
pub fn scope(callback: &Callback) -> String {
    let named = |path: &[u8]| callback.property(path).map(String::from_utf8_lossy).unwrap_or_default();
    format!("{}/{}/{}", named(b"plugin_vm_id"), named(b"plugin_root_id"), named(b"plugin_name"))
}

/// The key of the hashes, the same on all workers: the first one's, which it leaves for the others.
pub fn shared_hash_key(share: &dyn SharedState, mine: (u64, u64)) -> (u64, u64) {
    let mut bytes = [0u8; 16];
    let (first, second) = bytes.split_at_mut(8);
    first.copy_from_slice(&mine.0.to_le_bytes());
    second.copy_from_slice(&mine.1.to_le_bytes());
    if let Ok(pages) = share.pages("hash_key", 1, &bytes) {
        // On failure `bytes` still are our own: limits then hold per worker, as the host that fails so leaves them.
        let _ = share.load(pages, 0, &mut bytes);
    }
    let number = |range: &[u8]| range.try_into().map_or(0, u64::from_le_bytes);
    let (first, second) = bytes.split_at(8);
    (number(first), number(second))
}

/// Whether a policy may want to hold requests.
pub fn holds(policy: &config::Policy) -> bool {
    let queues = policy.load_shedding.as_ref().is_some_and(|shedding| shedding.queue.is_some());
    queues || policy.rate_limits.iter().any(|limit| limit.pace.is_some())
}

/// What is said of a configuration that was accepted.
pub fn summary(config: &Config, engine: &Engine) -> String {
    let limits = config.policies.iter().map(|policy| policy.rate_limits.len()).fold(0, usize::saturating_add);
    let (shared, own) = engine.rate_limit_bytes();
    let keyed = engine.bulkhead_bytes();
    format!(
        "configured: {} policies, {limits} rate limits, which keep at most {shared} bytes for all workers and {own} bytes \
         in each, and concurrency limits by key, which keep at most {keyed} bytes in each",
        config.policies.len()
    )
}
