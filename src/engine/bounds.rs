//! Bounds on the request itself: its path, its headers, and its body.
//!
//! A body that says how long it is, with `content-length`, is judged with the headers, and the proxy sees to it that it is
//! no longer than that. Any other is counted while it passes by. It is not kept back, so when it turns out too long a part
//! of it has been sent upstream. All the same the request is rejected: what it was charged and what it held is given back at
//! once, and the upstream is not judged by it. Its client is answered in the upstream's place, or cut off if that has
//! begun to answer. Whether such a request was admitted is known, and told, when its body has ended. What follows the headers
//! of a tunnel is no body.

use crate::matching::Request;

use super::decide::{Applied, Decision, Refusal, Refused, count_shadow};
use super::permit::Permit;
use super::rates::whole_number;
use super::rejection::{Invalid, Reason, Rejection};
use super::{Engine, Env};

/// A request's body, as far as it is counted.
#[derive(Debug, Default)]
pub(super) struct Body {
    bytes: u64,
    /// The policies that bound it, and by how much. Empty: it is not counted.
    bounds: Vec<(usize, u64)>,
    /// The policies that count the request as admitted unless its body proves too long.
    admitted: Vec<usize>,
}

impl Body {
    /// It is counted no longer.
    pub fn forget(&mut self) {
        self.bytes = 0;
        self.bounds.clear();
        self.admitted.clear();
    }

    /// The policy bounds it no longer.
    pub fn forget_policy(&mut self, policy: usize) {
        self.bounds.retain(|(bounding, _)| *bounding != policy);
    }

    /// Whether anybody counts it, or is still to count its request.
    pub fn is_counted(&self) -> bool {
        !(self.bounds.is_empty() && self.admitted.is_empty())
    }

    /// The policy has admitted the request, which is told when its body has ended. False: it is not counted.
    pub fn defers(&mut self, policy: usize) -> bool {
        let counted = !self.bounds.is_empty();
        if counted {
            self.admitted.push(policy);
        }
        counted
    }

    fn is_too_long(&self) -> bool {
        self.bounds.iter().any(|(_, most)| self.bytes > *most)
    }

    /// A policy whose bound it passes, which bounds it no longer.
    fn take_passed(&mut self) -> Option<usize> {
        let at = self.bounds.iter().position(|(_, most)| self.bytes > *most)?;
        let (policy, _) = self.bounds.remove(at);
        self.admitted.retain(|admitting| *admitting != policy);
        Some(policy)
    }
}

impl Permit {
    /// Whether its request's body is counted.
    pub fn counts_body(&self) -> bool {
        self.body.is_counted()
    }

    /// So many more bytes of the request's body are there. Whether [`Engine::cut_off`] is to be asked what becomes of it.
    pub fn body_grew(&mut self, bytes: usize) -> bool {
        // Nobody sends 2^64 bytes; saturated they would still be too many.
        self.body.bytes = self.body.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        self.body.is_too_long()
    }

    /// The same where so many are there by now.
    pub fn body_is(&mut self, bytes: usize) -> bool {
        self.body.bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.body.is_too_long()
    }
}

impl Engine {
    /// Bounds that the request's headers can be held to.
    pub(super) fn check_requests(
        &mut self,
        request: &Request<'_>,
        permit: &mut Permit,
        env: &mut Env<'_>,
    ) -> Option<Refused> {
        for at in 0..self.work.applied.len() {
            let Some(limits) = self.live(at).and_then(|policy| policy.request_limits.as_ref()) else { continue };
            let over = |bound: Option<u32>, value: usize| {
                bound.is_some_and(|bound| value > usize::try_from(bound).unwrap_or(usize::MAX))
            };
            let (mut count, mut bytes) = (0usize, 0usize);
            if limits.max_headers.is_some() || limits.max_header_bytes.is_some() {
                for (name, value) in request.headers().iter().filter(|(name, _)| !name.starts_with(b":")) {
                    count = count.saturating_add(1);
                    bytes = bytes.saturating_add(name.len()).saturating_add(value.len());
                }
            }
            let length = limits.max_body_bytes.map(|most| (most, content_length(request)));
            let invalid = if over(limits.max_path_bytes, request.raw_path().len()) {
                Invalid::Path
            } else if over(limits.max_headers, count) || over(limits.max_header_bytes, bytes) {
                Invalid::Headers
            } else if length.is_some_and(|(most, length)| length.is_some_and(|length| length > most)) {
                Invalid::Body
            } else {
                if let (Some((most, None)), Some(applied)) = (length, self.work.applied.get(at)) {
                    permit.body.bounds.push((applied.policy, most));
                }
                continue;
            };
            let refusal = Refusal { reason: Reason::Invalid(invalid), limit: None, wait: None, left: None };
            if let Some(refused) = self.refuse(at, refusal, permit, env) {
                return Some(refused);
            }
        }
        None
    }

    /// No more of the request's body comes, or it is none: those that admitted the request count it now.
    pub fn body_ended(&self, permit: &mut Permit, env: &Env<'_>) {
        for policy in permit.body.admitted.drain(..) {
            if let Some(id) = self.policies.get(policy).and_then(|policy| policy.admitted) {
                env.metrics.add(id, 1);
            }
        }
        permit.body.forget();
    }

    /// What becomes of a request whose body has grown past a bound.
    pub fn cut_off(&mut self, permit: &mut Permit, env: &mut Env<'_>) -> Decision {
        let mut shadow = None;
        while let Some(policy) = permit.body.take_passed() {
            let rejection = Rejection { policy, reason: Reason::Invalid(Invalid::Body), limit: None, wait: None };
            self.work.applied.clear();
            self.work.applied.push(Applied::new(policy));
            if self.enforced(0, env) {
                permit.body.forget();
                self.abandon(permit, env);
                return self.rejected(&rejection, None, permit.grpc, env);
            }
            // The policy drops out, as it does wherever it is not heeded.
            self.give_back(permit, |held| held.policy == policy, env);
            if let Some(made) = self.policies.get(policy) {
                count_shadow(made, &rejection, &mut shadow, env);
            }
        }
        Decision::Admitted { shadow }
    }
}

/// How long a request says its body is. A header that is no number says nothing.
fn content_length(request: &Request<'_>) -> Option<u64> {
    request.headers().get(b"content-length").and_then(whole_number)
}
