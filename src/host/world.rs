//! What engines run on, and how they are asked about a stream.

use std::rc::Rc;

use crate::engine::held::{Held, Waiting};
use crate::engine::stats::{self, Registry};
use crate::engine::{Decision, Engine, Env, LocalReply, Permit, SplitMix64};
use crate::matching::{Facts, HeaderMap, Request};
use crate::share::{Memory, SharedState};

use super::abi::{self, Action, HeaderMapKind};
use super::arena::Callback;
use super::metrics::{self, HostMetrics};
use super::stream::Open;

/// The filter state for access logs: `%FILTER_STATE(wasm.tidegate:PLAIN)%`.
const FILTER_STATE: &str = "tidegate";

/// What engines run on.
pub struct World {
    pub share: Rc<dyn SharedState>,
    pub own: Memory,
    pub random: SplitMix64,
    pub stats: Registry,
    pub hash_key: (u64, u64),
    pub waiting: Waiting,
    /// Whether the host can pause a stream and resume it from the timer.
    pub holds: bool,
}

impl World {
    pub fn env(&mut self) -> Env<'_> {
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

    /// Tells how much memory this VM has, in bytes, and says it.
    pub fn tell_memory(&self) -> u64 {
        const PAGE: u64 = 65_536;
        let pages = u64::try_from(std::arch::wasm32::memory_size::<0>()).unwrap_or(0);
        // At most 65 536 pages: cannot overflow.
        let bytes = pages.saturating_mul(PAGE);
        if let Some(id) = self.stats.id(&HostMetrics, stats::VM_MEMORY, &[]) {
            metrics::raise(id, bytes);
        }
        bytes
    }

    /// Decides about a stream.
    pub fn decide(&mut self, callback: &Callback, stream: u32, open: &mut Open) -> Action {
        self.ask(callback, stream, open, |engine, request, permit, world| {
            // The clock is a call to the host, and most requests may be nobody's business.
            if engine.concerns(request) {
                engine.decide_found(request, permit, &mut world.env())
            } else {
                Decision::Unmatched
            }
        })
    }

    /// Decides about a stream that was held.
    pub fn resume(&mut self, callback: &Callback, stream: u32, open: &mut Open) -> Action {
        self.ask(callback, stream, open, |engine, request, permit, world| {
            engine.resume(request, permit, &mut world.env())
        })
    }

    fn ask(
        &mut self,
        callback: &Callback,
        stream: u32,
        open: &mut Open,
        question: impl FnOnce(&mut Engine, &Request<'_>, &mut Permit, &mut Self) -> Decision,
    ) -> Action {
        let Ok(mut engine) = open.engine.try_borrow_mut() else { return Action::Continue };
        if !engine.needs_headers() {
            return Action::Continue;
        }
        let raw = callback.header_map(HeaderMapKind::Request).ok();
        let Some(headers) = raw.and_then(HeaderMap::parse) else {
            self.stats.add(&HostMetrics, stats::ERRORS, &["request_headers"], 1);
            let decision = engine.resume_unread(&mut open.permit, &mut self.env());
            drop(engine);
            return self.carry_out(stream, open, decision);
        };
        let facts = HostFacts(callback);
        let request = Request::new(headers, &facts);
        let decision = question(&mut engine, &request, &mut open.permit, self);
        drop(engine);
        self.carry_out(stream, open, decision)
    }

    /// No more of a stream's request body comes.
    pub fn body_ended(&mut self, open: &mut Open) {
        if open.permit.counts_body()
            && let Ok(engine) = open.engine.try_borrow()
        {
            engine.body_ended(&mut open.permit, &self.env());
        }
    }

    /// Does with a stream what was decided about it.
    pub fn carry_out(&mut self, stream: u32, open: &mut Open, decision: Decision) -> Action {
        match decision {
            Decision::Unmatched => Action::Continue,
            Decision::Wait { until } => self.hold(stream, open, Held::Until(until)),
            Decision::Queued => self.hold(stream, open, Held::Queued),
            Decision::Admitted { shadow } => {
                tell_access_log(shadow.as_deref().unwrap_or("admitted"));
                Action::Continue
            }
            Decision::Rejected { reply, line } => {
                tell_access_log(&line);
                if send(&reply) {
                    Action::Pause
                } else {
                    self.stats.add(&HostMetrics, stats::ERRORS, &["local_response"], 1);
                    Action::Continue
                }
            }
        }
    }

    /// A stream is held from now on.
    fn hold(&mut self, stream: u32, open: &mut Open, held: Held) -> Action {
        open.held = Some(held);
        self.waiting.add(held, stream);
        Action::Pause
    }
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
