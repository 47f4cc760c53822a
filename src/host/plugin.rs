//! One worker's plugin: its root contexts, each with an engine, and the streams they serve.

use std::cell::RefCell;
use std::rc::Rc;

use crate::config;
use crate::control::Nanos;
use crate::engine::held::{Held, Waiting};
use crate::engine::stats::{self, Registry};
use crate::engine::{Decision, Engine, MOST_OWN_BYTES, SplitMix64, Stream, Updates, client_left};
use crate::share::{Memory, SharedState};

use super::abi::{self, Action, HostError};
use super::arena::Callback;
use super::configuration::{holds, scope, shared_hash_key, summary};
use super::metrics::HostMetrics;
use super::share::HostShare;
use super::stream::{ByContext, Open, Response, Streams};
use super::world::World;

/// How often time is looked at where no request does: half-open breakers whose probes are lost are the only ones that
/// wait for it, in seconds. While streams are held the timer goes off earlier, for each of them.
const TICK_MS: u32 = 500;

const MILLISECOND: Nanos = 1_000_000;

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
    updates: Updates,
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
    /// It has gone off.
    rang: bool,
}

impl Plugin {
    fn new() -> Self {
        // For two configurations: one that serves, and one before that drains.
        let own = Memory::lazy_within(2 * MOST_OWN_BYTES);
        let shares = HostShare::works();
        let share: Rc<dyn SharedState> = if shares {
            Rc::new(HostShare::default())
        } else {
            log::warn!("this host shares nothing between workers: every protection holds per worker");
            Rc::new(own.clone())
        };
        let stats = Registry::default();
        let numbers = [abi::random_u64(), abi::random_u64(), abi::random_u64()];
        if numbers.contains(&None) {
            log::warn!("this host gives no random numbers: others may guess how keys are hashed, and aim at one");
            stats.add(&HostMetrics, stats::ERRORS, &["random"], 1);
        }
        let [first, second, seed] = numbers.map(|number| number.unwrap_or_else(abi::monotonic_nanos));
        let hash_key = shared_hash_key(&*share, (first, second));
        // A host that knows contexts knows that there is none of this number.
        let holds = abi::set_effective_context(u32::MAX) == Err(HostError::Absent);
        let (random, waiting) = (SplitMix64::new(seed), Waiting::default());
        Self {
            roots: ByContext::default(),
            streams: Streams::default(),
            updates: Updates::default(),
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
        let previous = self.engines(&scope);
        let borrowed: Vec<_> = previous.iter().filter_map(|engine| engine.try_borrow().ok()).collect();
        let engines: Vec<&Engine> = borrowed.iter().map(|engine| &**engine).collect();
        let engine = Engine::new(&config, &engines, &scope, &mut self.world.env())?;
        let memory = self.world.tell_memory() / 1024;
        if self.updates.is_first(&*self.world.share, &scope, bytes) {
            self.world.stats.add(&HostMetrics, stats::CONFIG_UPDATES, &["accepted"], 1);
            log::info!(
                "{} {}; {memory} KiB of memory in this VM",
                env!("CARGO_PKG_VERSION"),
                summary(&config, &engine)
            );
        }
        if !self.world.holds && config.policies.iter().any(holds) {
            log::warn!("this host cannot hold requests: rate limits that pace, and queues, reject instead");
        }
        let rings_at = abi::monotonic_nanos().saturating_add(Nanos::from(TICK_MS) * MILLISECOND);
        let timer = Timer { period_ms: TICK_MS, rings_at, engine_at: rings_at, rang: false };
        Ok(Root { scope, engine: Rc::new(RefCell::new(engine)), timer })
    }

    /// The engines of one scope, the newest first: contexts are numbered as they come.
    fn engines(&self, scope: &str) -> Vec<Rc<RefCell<Engine>>> {
        let mut roots: Vec<_> = self.roots.iter().filter(|(_, root)| root.scope == scope).collect();
        roots.sort_unstable_by_key(|(context, _)| std::cmp::Reverse(**context));
        roots.into_iter().map(|(_, root)| Rc::clone(&root.engine)).collect()
    }

    /// A stream begins under a root.
    pub fn begin(&mut self, stream: u32, root: u32) {
        self.streams.begin(stream, root);
    }

    /// Time has passed for a root.
    pub fn tick(&mut self, callback: &Callback, root: u32) {
        let now = abi::monotonic_nanos();
        self.world.waiting.unwound();
        if let Some(state) = self.roots.get_mut(&root).filter(|state| state.timer.engine_at <= now)
            && let Ok(mut engine) = state.engine.try_borrow_mut()
        {
            state.timer.engine_at = now.saturating_add(Nanos::from(TICK_MS) * MILLISECOND);
            state.timer.rang = true;
            engine.tick(&mut self.world.env());
            self.world.tell_memory();
        }
        self.resume(callback, root, now);
        self.set_timer(root, now, true);
    }

    /// Decides about a stream.
    pub fn request_headers(&mut self, callback: &Callback, stream: u32, ends: bool) -> Action {
        let Some(root) = self.streams.take_root(stream) else { return Action::Continue };
        let Some(state) = self.roots.get(&root) else { return Action::Continue };
        let engine = Rc::clone(&state.engine);
        let mut open = Open { engine, permit: self.streams.permit(stream), held: None };
        let action = self.world.decide(callback, stream, &mut open);
        let held = open.held.is_some();
        if ends {
            self.world.body_ended(&mut open);
        }
        self.streams.keep(stream, open);
        if held {
            // The timer is the root's.
            let _ = abi::set_effective_context(root);
            self.set_timer(root, abi::monotonic_nanos(), false);
            let _ = abi::set_effective_context(stream);
        }
        action
    }

    /// Asks again about streams whose time or turn has come, in a callback of this context. Only in callbacks that return
    /// nothing: where one of these streams is rejected, the host would take what the callback returns for a wish to pause.
    fn resume(&mut self, callback: &Callback, context: u32, now: Nanos) {
        self.world.waiting.turn_begins(now);
        while self.world.waiting.may_go_on() {
            let Some(stream) = self.world.waiting.due(now).or_else(|| self.take_turn()) else { break };
            self.world.waiting.goes_on();
            self.release(stream);
            // The host refuses both calls if the client has just left; the stream's end is told next.
            if abi::set_effective_context(stream).is_ok()
                && let Some(open) = self.streams.get(stream)
            {
                match self.world.resume(callback, stream, open) {
                    Action::Continue => {
                        let _ = abi::continue_request();
                    }
                    // From one queue to another a request might go on and on, while no time passes.
                    Action::Pause if matches!(open.held, Some(Held::Until(_))) => self.world.waiting.stays(),
                    Action::Pause => {}
                }
            }
            let _ = abi::set_effective_context(context);
        }
        self.world.waiting.turn_ends(now);
    }

    /// Whose turn it is in a queue, of all engines that have streams here; it has been granted.
    fn take_turn(&mut self) -> Option<u32> {
        if !self.world.waiting.any_queued() {
            return None;
        }
        let Self { roots, streams, world, .. } = self;
        for root in roots.values() {
            let Ok(mut engine) = root.engine.try_borrow_mut() else { continue };
            let mut env = world.env();
            while let Some(woken) = engine.wake(&mut env) {
                let stream = woken.stream();
                let granted = match streams.get(stream) {
                    Some(open) => open.permit.grant(woken),
                    None => Err(woken),
                };
                match granted {
                    Ok(()) => return Some(stream),
                    Err(woken) => engine.forgo(woken, &mut env),
                }
            }
        }
        None
    }

    /// A stream is held no longer.
    fn release(&mut self, stream: u32) {
        if let Some(open) = self.streams.get(stream)
            && let Some(held) = open.held.take()
        {
            self.world.waiting.remove(held, stream);
            if self.world.waiting.has_missed(held) {
                open.permit.miss();
            }
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

    /// So many more bytes of a stream's request body are there. They are counted, not read. While the stream is held they
    /// are kept back: where the host hands bodies over meanwhile (Envoy's `allow_on_headers_stop_iteration`), to let them
    /// pass would be to let the stream go on.
    pub fn request_body(&mut self, stream: u32, bytes: usize, ends: bool) -> Action {
        let Some(open) = self.streams.get(stream) else { return Action::Continue };
        // What is kept back comes again with what is new.
        let over = if open.held.is_some() { open.permit.body_is(bytes) } else { open.permit.body_grew(bytes) };
        // What follows, the clock for one, is for those alone that are too long.
        if over {
            let decision = match open.engine.try_borrow_mut() {
                Ok(mut engine) => engine.cut_off(&mut open.permit, &mut self.world.env()),
                Err(_) => Decision::Unmatched,
            };
            if let Decision::Rejected { .. } = decision
                && let Some(held) = open.held.take()
            {
                self.world.waiting.remove(held, stream);
            }
            if let Action::Pause = self.world.carry_out(stream, open, decision) {
                return Action::Pause;
            }
        } else if ends {
            self.world.body_ended(open);
        }
        if open.held.is_some() { Action::Pause } else { Action::Continue }
    }

    /// A stream's response headers are there: the upstream's, or a local reply, perhaps our own. A rejected stream
    /// holds nothing, so nothing happens for it.
    pub fn response_headers(&mut self, callback: &Callback, stream: u32, ends: bool) {
        let Some(open) = self.streams.get(stream).filter(|open| !open.permit.is_empty()) else { return };
        if let Some(held) = open.held.take() {
            self.world.waiting.remove(held, stream);
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

    /// A stream has ended: what it holds is settled.
    fn end(&mut self, callback: &Callback, stream: u32) {
        // Asked first because reading the clock is a call to the host, and some hold nothing any more.
        let Some(open) = self.streams.get(stream).filter(|open| !open.permit.is_empty()) else { return };
        if let Some(held) = open.held.take() {
            self.world.waiting.remove(held, stream);
        }
        if let Ok(mut engine) = open.engine.try_borrow_mut() {
            engine.end(&Response(callback), &mut open.permit, &mut self.world.env());
        }
        // What it gave back is for those who wait here. Where its client left, its connection may be going away, and with it
        // streams that wait and have not been told yet: then the timer sees to it, after all of them have ended.
        if self.world.waiting.any_queued() && !client_left(Response(callback).flags()) {
            self.resume(callback, stream, abi::monotonic_nanos());
        }
    }

    /// A context is gone.
    pub fn close(&mut self, callback: &Callback, context: u32) {
        self.end(callback, context);
        self.streams.close(context);
        // A root lives until its last stream has ended.
        if let Some(gone) = self.roots.remove(&context)
            && let Ok(engine) = gone.engine.try_borrow()
        {
            engine.release_rows(&self.world.env());
            // One that never saw the timer only tried a configuration out, in a VM of its own, while those that serve with
            // it are about to begin: what it gave up they would lose.
            if gone.timer.rang {
                let rest = self.engines(&gone.scope);
                let rest: Vec<_> = rest.iter().filter_map(|engine| engine.try_borrow().ok()).collect();
                let rest: Vec<&Engine> = rest.iter().map(|engine| &**engine).collect();
                engine.retire(&rest, &self.world.env());
            }
        }
    }
}
