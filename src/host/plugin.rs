//! One worker's plugin: its root contexts, each with an engine, and the streams they serve.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::config::{self, Config};
use crate::engine::stats::{self, Registry};
use crate::engine::{Decision, Engine, Env, LocalReply, SplitMix64};
use crate::matching::{Facts, HeaderMap, Request};
use crate::share::{Memory, SharedState};

use super::abi::{self, Action, HeaderMapKind};
use super::arena::Callback;
use super::metrics::HostMetrics;
use super::share::HostShare;
use super::stream::{Response, Streams};

/// How often time is looked at where no request does: half-open breakers whose probes are lost are the only ones that
/// wait for it, in seconds.
const TICK_MS: u32 = 500;

/// The filter state for access logs: `%FILTER_STATE(wasm.tidegate:PLAIN)%`.
const FILTER_STATE: &str = "tidegate";

thread_local! {
    static PLUGIN: RefCell<Option<Plugin>> = const { RefCell::new(None) };
}

/// Runs on this VM's plugin. `None` when the host calls back in the middle of a call, which Envoy does not: the inner
/// call does nothing then.
pub fn with<T>(act: impl FnOnce(&mut Plugin) -> T) -> Option<T> {
    PLUGIN.with(|plugin| {
        let mut plugin = plugin.try_borrow_mut().ok()?;
        Some(act(plugin.get_or_insert_with(Plugin::new)))
    })
}

/// One worker's plugin.
pub struct Plugin {
    roots: HashMap<u32, Root>,
    streams: Streams,
    world: World,
}

struct Root {
    scope: String,
    engine: Rc<RefCell<Engine>>,
}

/// What engines run on.
struct World {
    share: Rc<dyn SharedState>,
    own: Memory,
    random: SplitMix64,
    stats: Registry,
    hash_key: (u64, u64),
}

impl World {
    fn env(&mut self) -> Env<'_> {
        Env {
            now: abi::monotonic_nanos(),
            share: &*self.share,
            own: &self.own,
            random: &mut self.random,
            metrics: &HostMetrics,
            stats: &self.stats,
            hash_key: self.hash_key,
        }
    }
}

impl Plugin {
    fn new() -> Self {
        let own = Memory::new();
        let shares = HostShare::works();
        let share: Rc<dyn SharedState> = if shares {
            Rc::new(HostShare::default())
        } else {
            log::warn!("this host shares nothing between workers: every protection holds per worker");
            Rc::new(own.clone())
        };
        let seed = || abi::random_u64().unwrap_or_else(abi::monotonic_nanos);
        let hash_key = shared_hash_key(&*share, (seed(), seed()));
        Self {
            roots: HashMap::new(),
            streams: Streams::default(),
            world: World { share, own, random: SplitMix64::new(seed()), stats: Registry::default(), hash_key },
        }
    }

    /// Reads a root's configuration. `false` refuses it: the proxy keeps the one before, or does not start.
    pub fn configure(&mut self, callback: &Callback, root: u32, size: usize) -> bool {
        let bytes = if size == 0 { &[] } else { callback.plugin_configuration(size).unwrap_or_default() };
        match self.build(callback, bytes) {
            Ok(built) => {
                self.roots.insert(root, built);
                if let Err(error) = abi::set_tick_period_ms(TICK_MS) {
                    log::warn!("this host has no timer ({error:?}): lost probes are noticed at the next request only");
                }
                true
            }
            Err(messages) => {
                for message in messages.lines() {
                    log::error!("configuration refused: {message}");
                }
                self.world.stats.add(&HostMetrics, stats::CONFIG_UPDATES, &["rejected"], 1);
                false
            }
        }
    }

    fn build(&mut self, callback: &Callback, bytes: &[u8]) -> Result<Root, String> {
        let config = config::read(bytes).map_err(|errors| errors.to_string())?;
        let scope = scope(callback);
        let previous = self.roots.values().find(|root| root.scope == scope).map(|root| Rc::clone(&root.engine));
        let borrowed = previous.as_ref().and_then(|engine| engine.try_borrow().ok());
        let engine = Engine::new(&config, borrowed.as_deref(), &scope, &mut self.world.env())?;
        drop(borrowed);
        if first_to_see(&*self.world.share, &scope, bytes) {
            self.world.stats.add(&HostMetrics, stats::CONFIG_UPDATES, &["accepted"], 1);
            log::info!("{} {}", env!("CARGO_PKG_VERSION"), summary(&config));
        }
        Ok(Root { scope, engine: Rc::new(RefCell::new(engine)) })
    }

    /// A stream begins under a root.
    pub fn open(&mut self, stream: u32, root: u32) {
        if let Some(root) = self.roots.get(&root) {
            self.streams.open(stream, Rc::clone(&root.engine));
        }
    }

    /// Time has passed for a root.
    pub fn tick(&mut self, root: u32) {
        if let Some(root) = self.roots.get(&root)
            && let Ok(mut engine) = root.engine.try_borrow_mut()
        {
            engine.tick(&mut self.world.env());
        }
    }

    /// Decides about a stream.
    pub fn request_headers(&mut self, callback: &Callback, stream: u32) -> Action {
        let Some(open) = self.streams.get(stream) else { return Action::Continue };
        let Ok(mut engine) = open.engine.try_borrow_mut() else { return Action::Continue };
        if !engine.needs_headers() {
            return Action::Continue;
        }
        let raw = callback.header_map(HeaderMapKind::Request).ok();
        let Some(headers) = raw.and_then(HeaderMap::parse) else {
            // Admitted: not reading a request is our failure, not the client's.
            self.world.stats.add(&HostMetrics, stats::ERRORS, &["request_headers"], 1);
            return Action::Continue;
        };
        let facts = HostFacts(callback);
        let request = Request::new(headers, &facts);
        match engine.decide(&request, &mut open.permit, &mut self.world.env()) {
            Decision::Unmatched => Action::Continue,
            Decision::Admitted { shadow } => {
                tell_access_log(shadow.as_deref().unwrap_or("admitted"));
                Action::Continue
            }
            Decision::Rejected { reply, line } => {
                tell_access_log(&line);
                if send(&reply) {
                    Action::Pause
                } else {
                    self.world.stats.add(&HostMetrics, stats::ERRORS, &["local_response"], 1);
                    Action::Continue
                }
            }
        }
    }

    /// A stream's response headers are there: the upstream's, or a local reply, perhaps our own. A rejected stream
    /// holds nothing, so nothing happens for it.
    pub fn response_headers(&mut self, callback: &Callback, stream: u32, ends: bool) {
        let Some(open) = self.streams.get(stream).filter(|open| !open.permit.is_empty()) else { return };
        if let Ok(engine) = open.engine.try_borrow() {
            engine.response_headers(&Response(callback), ends, &mut open.permit, &mut self.world.env());
        }
    }

    /// A stream's response trailers are there.
    pub fn response_trailers(&mut self, callback: &Callback, stream: u32) {
        let Some(open) = self.streams.get(stream).filter(|open| !open.permit.is_empty()) else { return };
        if let Ok(engine) = open.engine.try_borrow() {
            engine.response_trailers(&Response(callback), &mut open.permit);
        }
    }

    /// A stream has ended: what it holds is settled. Whoever comes first, the log or the deletion, does it.
    pub fn end(&mut self, callback: &Callback, stream: u32) {
        let Some(open) = self.streams.get(stream) else { return };
        if let Ok(mut engine) = open.engine.try_borrow_mut() {
            engine.end(&Response(callback), &mut open.permit, &mut self.world.env());
        }
    }

    /// A context is gone.
    pub fn close(&mut self, callback: &Callback, context: u32) {
        self.end(callback, context);
        self.streams.close(context);
        self.roots.remove(&context);
    }
}

/// What tells this plugin's state from that of others in the same proxy. The host gives all three, empty where the operator
/// set none, and only together do they tell filters apart: pages are shared by VMs of one `vm_id`, numbers by the whole
/// process.
fn scope(callback: &Callback) -> String {
    let named = |path: &[u8]| callback.property(path).map(String::from_utf8_lossy).unwrap_or_default();
    format!("{}/{}/{}", named(b"plugin_vm_id"), named(b"plugin_root_id"), named(b"plugin_name"))
}

struct HostFacts<'a>(&'a Callback);

impl<'a> Facts<'a> for HostFacts<'a> {
    fn property(&self, path: &[u8]) -> Option<&'a [u8]> {
        self.0.property(path)
    }
}

fn tell_access_log(decision: &str) {
    // Refused by hosts without filter state, whose access logs then do not show it.
    let _ = abi::set_filter_state(FILTER_STATE, decision);
}

/// Whether the host took the reply.
fn send(reply: &LocalReply) -> bool {
    let mut headers = Vec::with_capacity(256);
    let length = |text: &str| u32::try_from(text.len()).unwrap_or(0).to_le_bytes();
    headers.extend_from_slice(&u32::try_from(reply.headers.len()).unwrap_or(0).to_le_bytes());
    for (name, value) in &reply.headers {
        headers.extend_from_slice(&length(name));
        headers.extend_from_slice(&length(value));
    }
    for (name, value) in &reply.headers {
        for text in [name, value] {
            headers.extend_from_slice(text.as_bytes());
            headers.push(0);
        }
    }
    abi::send_local_response(reply.status, reply.details, reply.body.as_bytes(), &headers, reply.grpc_status).is_ok()
}

/// The key of the hashes, the same on all workers: the first one's, which it leaves for the others.
fn shared_hash_key(share: &dyn SharedState, mine: (u64, u64)) -> (u64, u64) {
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

/// Every worker configures itself, but one of them is to count and log an update: the first to replace, in a page that
/// all share, the digest of the update before.
fn first_to_see(share: &dyn SharedState, scope: &str, configuration: &[u8]) -> bool {
    use std::hash::Hasher;
    let mut hasher = siphasher::sip::SipHasher13::new();
    hasher.write(configuration);
    // 0 marks the page as new.
    let digest = hasher.finish().max(1).to_le_bytes();
    let Ok(pages) = share.pages(&format!("{scope}/configuration"), 1, &[0; 8]) else { return true };
    let mut seen = [0u8; 8];
    let Ok(version) = share.load(pages, 0, &mut seen) else { return true };
    seen != digest && share.store(pages, 0, &digest, version).is_ok()
}

fn summary(config: &Config) -> String {
    let limits = config.policies.iter().map(|policy| policy.rate_limits.len()).fold(0, usize::saturating_add);
    format!("configured: {} policies, {limits} rate limits", config.policies.len())
}
