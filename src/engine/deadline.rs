//! How much time a request has left, as its headers say.
//!
//! A plain header holds milliseconds; `grpc-timeout` (gRPC over HTTP/2, "Requests") up to eight digits and a unit. A
//! header that is absent or is neither sets no deadline.

use crate::control::Nanos;
use crate::matching::Request;

use super::decide::{Refused, live_mut};
use super::permit::Permit;
use super::rates::whole_number;
use super::{Engine, Env};

/// Where a request says how much time it has left.
#[derive(Debug)]
pub(super) struct Deadline {
    header: String,
}

const GRPC_TIMEOUT: &str = "grpc-timeout";

impl Deadline {
    /// Deadlines in the header of this name, in lower case.
    pub fn new(header: &str) -> Self {
        Self { header: header.to_owned() }
    }

    /// How much time a request had left when it came.
    pub fn remaining(&self, request: &Request<'_>) -> Option<Nanos> {
        let value = request.headers().get(self.header.as_bytes())?.trim_ascii();
        if self.header == GRPC_TIMEOUT {
            grpc_timeout(value)
        } else {
            // More than 584 years are no deadline.
            Some(whole_number(value)?.saturating_mul(1_000_000))
        }
    }
}

impl Engine {
    /// Whether a request that rate limits are about to hold could be answered in time when it goes on: they are not charged for
    /// one that could not.
    #[cold]
    pub(super) fn check_deadlines(
        &mut self,
        request: &Request<'_>,
        permit: &mut Permit,
        env: &mut Env<'_>,
    ) -> Option<Refused> {
        let held_for = self.held_for(env);
        if held_for == 0 {
            return None;
        }
        for at in 0..self.work.applied.len() {
            let Some((policy, _)) = live_mut(&mut self.policies, &self.work.applied, at) else { continue };
            let Some(concurrency) = &policy.concurrency else { continue };
            let outlasted = concurrency.outlasted(request, permit.arrived, held_for, &mut self.work.key, env);
            if let Some(refusal) = outlasted
                && let Some(refused) = self.refuse(at, refusal, permit, env)
            {
                return Some(refused);
            }
        }
        None
    }
}

fn grpc_timeout(value: &[u8]) -> Option<Nanos> {
    let (unit, digits) = value.split_last()?;
    let unit = match unit {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return None,
    };
    if digits.len() > 8 {
        return None;
    }
    Some(whole_number(digits)?.saturating_mul(unit))
}
