//! One worker's plugin: its root contexts, each with an engine, and the streams they serve.

use std::cell::RefCell;
use std::rc::Rc;

use crate::config::{self, Config};
use crate::control::Nanos;
use crate::engine::stats::{self, Registry};
use crate::engine::{Decision, Engine, Env, LocalReply, Permit, SplitMix64};
use crate::matching::{Facts, HeaderMap, Request};
use crate::share::{Memory, SharedState};

use super::abi::{self, Action, HeaderMapKind, HostError};
use super::arena::Callback;
use super::metrics::HostMetrics;
use super::share::HostShare;
use super::stream::{ByContext, Response, Streams};
use super::waiting::{AT_ONCE, Waiting};

/// How often time is looked at where no request does: half-open breakers whose probes are lost are the only ones that
/// wait for it, in seconds. While streams are held the timer goes off earlier, for each of them.
const TICK_MS: u32 = 500;

const MILLISECOND: Nanos = 1_000_000;

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
    roots: ByContext<Root>,
    streams: Streams,
    world: World,
}

struct Root {
    scope: String,
    engine: Rc<RefCell<Engine>>,
    timer: Timer,
}

/// A root's timer, as the host runs it.
#[derive(Default)]
struct Timer {
    period_ms: u32,
    rings_at: Nanos,
    /// When the engine is to look at the time next.
    engine_at: Nanos,
}

/// What there is to ask of an engine about a request.
type Question = fn(&mut Engine, &Request<'_>, &mut Permit, &mut Env<'_>) -> Decision;

/// What engines run on.
struct World {
    share: Rc<dyn SharedState>,
    own: Memory,
    random: SplitMix64,
    stats: Registry,
    hash_key: (u64, u64),
    waiting: Waiting,
    /// Whether the host can pause a stream and resume it from the timer.
    holds: bool,
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
            may_wait: self.holds && self.waiting.has_room(),
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
        // A host that knows contexts knows that there is none of this number.
        let holds = abi::set_effective_context(u32::MAX) == Err(HostError::Absent);
        let (random, stats, waiting) = (SplitMix64::new(seed()), Registry::default(), Waiting::default());
        Self {
            roots: ByContext::default(),
            streams: Streams::default(),
            world: World { share, own, random, stats, hash_key, waiting, holds },
        }
    }

    /// Reads a root's configuration. `false` refuses it: the proxy keeps the one before, or does not start.
    pub fn configure(&mut self, callback: &Callback, root: u32, size: usize) -> bool {
        let bytes = if size == 0 { &[] } else { callback.plugin_configuration(size).unwrap_or_default() };
        match self.build(callback, bytes) {
            Ok(built) => {
                self.roots.insert(root, built);
                if let Err(error) = abi::set_tick_period_ms(TICK_MS) {
                    self.world.holds = false;
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
        let paces = |policy: &config::Policy| policy.rate_limits.iter().any(|limit| limit.pace.is_some());
        if !self.world.holds && config.policies.iter().any(paces) {
            log::warn!("this host cannot hold requests: rate limits that pace reject instead");
        }
        let rings_at = abi::monotonic_nanos().saturating_add(Nanos::from(TICK_MS) * MILLISECOND);
        let timer = Timer { period_ms: TICK_MS, rings_at, engine_at: rings_at };
        Ok(Root { scope, engine: Rc::new(RefCell::new(engine)), timer })
    }

    /// A stream begins under a root.
    pub fn open(&mut self, stream: u32, root: u32) {
        if let Some(state) = self.roots.get(&root) {
            self.streams.open(stream, root, Rc::clone(&state.engine));
        }
    }

    /// Time has passed for a root.
    pub fn tick(&mut self, callback: &Callback, root: u32) {
        let now = abi::monotonic_nanos();
        if let Some(state) = self.roots.get_mut(&root).filter(|state| state.timer.engine_at <= now)
            && let Ok(mut engine) = state.engine.try_borrow_mut()
        {
            state.timer.engine_at = now.saturating_add(Nanos::from(TICK_MS) * MILLISECOND);
            engine.tick(&mut self.world.env());
        }
        self.resume_due(callback, root, now);
        self.set_timer(root, now, true);
    }

    /// Decides about a stream.
    pub fn request_headers(&mut self, callback: &Callback, stream: u32) -> Action {
        let action = self.ask(callback, stream, Engine::decide);
        if let Some(root) = self.streams.get(stream).filter(|open| open.waits_until.is_some()).map(|open| open.root) {
            // The timer is the root's.
            let _ = abi::set_effective_context(root);
            self.set_timer(root, abi::monotonic_nanos(), false);
            let _ = abi::set_effective_context(stream);
        }
        action
    }

    /// Asks again about streams whose time has come, in a callback of this context. Only in callbacks that return nothing:
    /// where one of these streams is rejected, the host would take what the callback returns for a wish to pause.
    fn resume_due(&mut self, callback: &Callback, context: u32, now: Nanos) {
        for _ in 0..AT_ONCE {
            let Some(stream) = self.world.waiting.take_due(now) else { break };
            if let Some(open) = self.streams.get(stream) {
                open.waits_until = None;
            }
            // The host refuses both calls if the client has just left; the stream's end is told next.
            if abi::set_effective_context(stream).is_ok()
                && let Action::Continue = self.ask(callback, stream, Engine::resume)
            {
                let _ = abi::continue_request();
            }
            let _ = abi::set_effective_context(context);
        }
    }

    /// Has the timer of a root, the effective context, go off when the first of those that wait is due. `rang`: it has
    /// just gone off, which by our clock may be a little early.
    fn set_timer(&mut self, root: u32, now: Nanos, rang: bool) {
        let period_ms = self.world.waiting.next_in_ms(now, TICK_MS);
        let Some(Root { timer, .. }) = self.roots.get_mut(&root) else { return };
        let rings_at = now.saturating_add(Nanos::from(period_ms) * MILLISECOND);
        // Once it has gone off the host starts it again by itself, with the same period.
        let early_enough = if rang { timer.period_ms == period_ms } else { timer.rings_at <= rings_at };
        if rang && early_enough {
            timer.rings_at = rings_at;
        }
        if !early_enough && abi::set_tick_period_ms(period_ms).is_ok() {
            timer.period_ms = period_ms;
            timer.rings_at = rings_at;
        }
    }

    fn ask(&mut self, callback: &Callback, stream: u32, question: Question) -> Action {
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
        match question(&mut engine, &request, &mut open.permit, &mut self.world.env()) {
            Decision::Unmatched => Action::Continue,
            Decision::Wait { until } => {
                open.waits_until = Some(until);
                self.world.waiting.add(until, stream);
                Action::Pause
            }
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
        if let Some(until) = open.waits_until.take() {
            self.world.waiting.remove(until, stream);
        }
        if let Ok(mut engine) = open.engine.try_borrow_mut() {
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
        // Asked first because reading the clock is a call to the host: most streams come here twice, some hold nothing.
        let Some(open) = self.streams.get(stream).filter(|open| !open.permit.is_empty()) else { return };
        if let Some(until) = open.waits_until.take() {
            self.world.waiting.remove(until, stream);
        }
        if let Ok(mut engine) = open.engine.try_borrow_mut() {
            engine.end(&Response(callback), &mut open.permit, &mut self.world.env());
        }
    }

    /// A context is gone.
    pub fn close(&mut self, callback: &Callback, context: u32) {
        self.end(callback, context);
        if !self.streams.close(context) {
            self.roots.remove(&context);
        }
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
