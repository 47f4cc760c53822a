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
    /// request has one decision, and each reason's count is the clients' own. What the proxy answered itself counts as admitted
    /// first: a timeout, or an upstream that is gone.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hyper::HeaderMap;

    use super::*;
    use crate::client::{Outcome, Reason};

    /// Two answered, one rejected by `p`, one cancelled.
    fn ledgers() -> Ledgers {
        let rejected = Ending::Rejected { status: 429, reason: Reason::parse("rate_limited;policy=p;limit=l") };
        let endings = [Ending::Answered(200), Ending::Answered(500), rejected, Ending::Cancelled(None)];
        let all = endings.into_iter().enumerate().map(|(index, ending)| {
            let (id, zero) = (index.to_string(), Duration::ZERO);
            Outcome { index, id, intended: zero, sent: zero, latency: zero, ending, headers: HeaderMap::new() }
        });
        Ledgers::of_clients([&Outcomes { name: "test".into(), seed: 1, all: all.collect() }])
    }

    fn stats(admitted: u32, rate_limited: u32) -> Stats {
        let line =
            |decision, count| format!("tidegate_requests_total{{policy=\"p\",decision=\"{decision}\"}} {count}\n");
        Stats::parse(&(line("admitted", admitted) + &line("rate_limited", rate_limited))).unwrap()
    }

    #[test]
    fn a_cancelled_request_may_be_counted_either_way_or_not_at_all() {
        for (admitted, rate_limited) in [(2, 1), (3, 1), (2, 2)] {
            ledgers().check_stats("p", &stats(admitted, rate_limited)).unwrap();
        }
    }

    #[test]
    fn a_decision_too_many_or_too_few_is_found() {
        for (admitted, rate_limited) in [(1, 1), (4, 1), (2, 0), (2, 3), (3, 2)] {
            assert!(ledgers().check_stats("p", &stats(admitted, rate_limited)).is_err(), "{admitted}, {rate_limited}");
        }
    }

    #[test]
    fn requests_must_arrive_exactly_when_they_were_admitted() {
        let seen = |ids: &[&str]| {
            let mut ledgers = ledgers();
            ledgers.upstream = ids.iter().map(|id| (*id).to_owned()).collect();
            ledgers.check_upstream()
        };
        seen(&["0", "1"]).unwrap();
        seen(&["0", "1", "3"]).unwrap();
        for wrong in [&["0"][..], &["0", "1", "2"], &["0", "1", "4"]] {
            assert!(seen(wrong).is_err(), "{wrong:?}");
        }
    }
}
