//! What Tidegate may cost, as ratios within one run.

use super::results::Added;
use super::statistics::{Range, Spread, ratio};
use super::timed::Timed;
use super::variants::title;

/// A bound on what was measured.
#[derive(Debug)]
pub struct Budget {
    /// In words.
    pub claim: &'static str,
    /// The most it may be.
    pub bound: f64,
    /// What it is a number of.
    pub unit: &'static str,
    /// None when it was not measured, or cannot be told from nothing what it is a ratio to.
    pub measured: Option<Range>,
}

/// What a run says of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The whole range is within the bound.
    Kept,
    /// The whole range is above it.
    Missed,
    /// The bound lies within the range, or nothing was measured: the run was too short or the machine too busy.
    Unclear,
}

impl Budget {
    /// Whether what was measured keeps to the bound.
    pub fn verdict(&self) -> Verdict {
        match self.measured {
            Some(range) if range.high <= self.bound => Verdict::Kept,
            Some(range) if range.low > self.bound => Verdict::Missed,
            _ => Verdict::Unclear,
        }
    }
}

impl Verdict {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Missed => "not reached",
            Self::Unclear => "unclear",
        }
    }
}

/// What is counted rather than timed is as sure as it is even from burst to burst.
fn counted(spread: Spread) -> Range {
    Range { low: spread.lower, value: spread.median, high: spread.upper }
}

/// All of them, from what each variant added, what the bench build told, and a VM's memory before and after.
pub fn all(added: &[Added], timed: &Timed, vm_bytes: (u64, u64), seed: u64) -> Vec<Budget> {
    let of = |title: &str| added.iter().find(|added| added.title == title).map(|added| added.rounds.as_slice());
    let budget = |claim, bound, above, below| Budget {
        claim,
        bound,
        unit: "x",
        measured: of(above).zip(of(below)).and_then(|(above, below)| ratio(above, below, seed)),
    };
    let returning = (!timed.calls.is_empty()).then(|| counted(timed.returning_bytes));
    let (before, after) = vm_bytes;
    let grown = after.saturating_sub(before) as f64;
    vec![
        budget(
            "All three controls add at most 1.5 times what Envoy's own three add; the aim is 1.0",
            1.5,
            title::ALL,
            title::NATIVE,
        ),
        budget(
            "A request that no policy matches adds at most what a do-nothing filter on the stock SDK adds",
            1.0,
            title::UNMATCHED,
            title::STOCK,
        ),
        Budget {
            claim: "All three controls make at most 3 calls per request that return bytes, as the bench build counts them",
            bound: 3.0,
            unit: "calls",
            measured: returning,
        },
        budget("200 other policies add at most a tenth more than one", 1.1, title::TWO_HUNDRED, title::TWO),
        budget(
            "1 000 000 keys add at most 30 % more than 100, cache misses included",
            1.3,
            title::MANY_KEYS,
            title::ALL,
        ),
        Budget {
            claim: "The memory of the largest VM does not grow in this run once warm; --soak looks for longer",
            bound: 0.0,
            unit: "bytes",
            measured: (before > 0).then_some(Range { low: grown, value: grown, high: grown }),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::super::timed::Part;
    use super::*;

    fn added(title: &'static str, micros: f64) -> Added {
        Added { title, base: vec![28.0; 9], rounds: vec![micros; 9], ..Added::default() }
    }

    fn of(added: &[Added]) -> Vec<Budget> {
        all(added, &Timed::default(), (0, 0), 1)
    }

    #[test]
    fn a_ratio_to_less_than_nothing_keeps_no_budget() {
        let budgets = of(&[added(title::NATIVE, -1.0), added(title::ALL, 3.0)]);
        assert_eq!((budgets[0].measured, budgets[0].verdict()), (None, Verdict::Unclear));
    }

    #[test]
    fn calls_that_return_bytes_and_growth_are_judged_by_count() {
        let exactly = |value| Spread { lower: value, median: value, upper: value };
        let part = Part { name: "proxy_get_property".into(), times: exactly(1.0), ..Part::default() };
        let verdicts = |calls, after| {
            let timed = Timed { calls: vec![part.clone()], returning_bytes: exactly(calls), ..Timed::default() };
            let budgets = all(&[], &timed, (65_536, after), 1);
            (budgets[2].verdict(), budgets[5].verdict())
        };
        assert_eq!(verdicts(3.0, 65_536), (Verdict::Kept, Verdict::Kept));
        assert_eq!(verdicts(4.0, 131_072), (Verdict::Missed, Verdict::Missed));
    }

    #[test]
    fn a_budget_is_kept_up_to_its_bound_and_not_above() {
        let budgets = |all| of(&[added(title::NATIVE, 2.0), added(title::ALL, all)]);
        assert_eq!(budgets(3.0)[0].verdict(), Verdict::Kept);
        assert_eq!(budgets(3.1)[0].verdict(), Verdict::Missed);
    }

    #[test]
    fn what_was_not_measured_is_unclear() {
        assert!(of(&[]).iter().all(|budget| budget.verdict() == Verdict::Unclear));
    }

    #[test]
    fn a_bound_within_the_range_of_a_noisy_run_is_unclear() {
        let mut noisy = added(title::ALL, 0.0);
        noisy.rounds = vec![2.0, 4.0, 2.0, 4.0, 3.0, 2.0, 4.0, 2.5, 3.5];
        assert_eq!(of(&[added(title::NATIVE, 2.0), noisy])[0].verdict(), Verdict::Unclear);
    }
}
