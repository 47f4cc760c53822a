//! Three accounts of one run, held against each other: what the clients saw, what the upstream saw, what the stats say.
//!
//! Each is kept without knowledge of the others, so an error in one shows as a difference. A request whose client went away, or
//! that got no whole answer, may have been counted either way: those are the only slack.

use std::collections::{BTreeSet, HashSet};

use anyhow::{Result, bail};

use crate::client::{Ending, ID, Outcomes, Tally};
use crate::stats::Stats;
use crate::upstream::Upstream;

/// Every decision but `admitted`.
const REJECTIONS: [&str; 5] = ["rate_limited", "circuit_open", "overloaded", "queue_timeout", "invalid_request"];

/// The accounts of one run.
#[derive(Debug, Clone, Default)]
pub struct Ledgers {
    tally: Tally,
    /// The requests of each ending, by their ids.
    answered: HashSet<String>,
    refused: HashSet<String>,
    open: HashSet<String>,
    upstream: HashSet<String>,
}

impl Ledgers {
    /// Opens the accounts with what the clients of the whole run saw.
    pub fn of_clients<'a>(loads: impl IntoIterator<Item = &'a Outcomes>) -> Self {
        let mut ledgers = Self::default();
        for outcome in loads.into_iter().flat_map(|load| &load.all) {
            ledgers.tally.count(&outcome.ending);
            let account = match outcome.ending {
                Ending::Answered(_) => &mut ledgers.answered,
                Ending::Rejected { .. } => &mut ledgers.refused,
                // The proxy may answer on its own before or after it has asked the upstream.
                Ending::Local(_) | Ending::Cancelled(_) | Ending::Errored(_) => &mut ledgers.open,
            };
            account.insert(outcome.id.clone());
        }
        ledgers
    }

    /// Adds what an upstream of the run saw.
    #[must_use]
    pub fn and_upstream(mut self, upstream: &Upstream) -> Self {
        self.upstream.extend(upstream.header_values(ID));
        self
    }

    /// Holds the clients' account against the upstreams': every answered request arrived there, no rejected one did, and
    /// nothing arrived that nobody sent.
    ///
    /// # Errors
    /// They differ; the message names the requests.
    pub fn check_upstream(&self) -> Result<()> {
        let mut faults = Vec::new();
        let mut note = |what: &str, ids: BTreeSet<&String>| {
            if !ids.is_empty() {
                let few: Vec<_> = ids.iter().take(5).collect();
                faults.push(format!("{} requests {what}, such as {few:?}", ids.len()));
            }
        };
        note("were answered, but the upstream did not see them", self.answered.difference(&self.upstream).collect());
        note("were rejected, but the upstream saw them", self.refused.intersection(&self.upstream).collect());
        let unknown = self
            .upstream
            .iter()
            .filter(|id| !self.answered.contains(*id) && !self.refused.contains(*id) && !self.open.contains(*id));
        note("were seen by the upstream, but nobody sent them", unknown.collect());
        self.report(&faults)
    }

    /// Holds the clients' account against the stats' growth over the run, for a policy that applied to every request: each
    /// request has one decision, and each reason's count is the clients' own.
    ///
    /// # Errors
    /// They differ; the message says where.
    pub fn check_stats(&self, policy: &str, grown: &Stats) -> Result<()> {
        let counted = |decision| grown.count("tidegate_requests_total", &[("policy", policy), ("decision", decision)]);
        let slack = self.tally.cancelled + self.tally.errored;
        let mut faults = Vec::new();
        let mut compare = |what: &str, counted: f64, least: usize, most: usize| {
            if counted < least as f64 || counted > most as f64 {
                faults.push(format!("{what}: the stats say {counted}, the clients {least} to {most}"));
            }
        };
        let rejected = |decision| self.tally.rejected_by(policy, decision);
        let others = self.tally.rejections() - REJECTIONS.iter().map(|decision| rejected(decision)).sum::<usize>();
        for decision in REJECTIONS {
            compare(decision, counted(decision), rejected(decision), rejected(decision) + slack);
        }
        // What another policy rejected may have been admitted by this one.
        let passed = self.tally.admitted() + self.tally.local.values().sum::<usize>();
        compare("admitted", counted("admitted"), passed, passed + slack + others);
        let all = counted("admitted") + REJECTIONS.iter().map(|decision| counted(decision)).sum::<f64>();
        compare("all decisions", all, self.tally.sent - slack - others, self.tally.sent);
        self.report(&faults)
    }

    fn report(&self, faults: &[String]) -> Result<()> {
        if !faults.is_empty() {
            bail!("the ledgers differ:\n{}\n{}", faults.join("\n"), self.tally);
        }
        Ok(())
    }
}
