//! What Tidegate may cost, as ratios within one run.

use super::results::Added;
use super::statistics::{Ratio, ratio};
use super::variants::title;

/// A bound on a ratio.
#[derive(Debug)]
pub struct Budget {
    /// In words.
    pub claim: &'static str,
    /// The most the ratio may be.
    pub bound: f64,
    /// What was measured; none when a variant was not.
    pub measured: Option<Ratio>,
}

/// What a run says of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The ratio's whole range is within the bound.
    Kept,
    /// The whole range is above it.
    Missed,
    /// The bound lies within the range, or nothing was measured: the run was too short or the machine too busy.
    Unclear,
}

impl Budget {
    /// Whether the ratio keeps to the bound.
    pub fn verdict(&self) -> Verdict {
        match self.measured {
            Some(ratio) if ratio.high <= self.bound => Verdict::Kept,
            Some(ratio) if ratio.low > self.bound => Verdict::Missed,
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

/// All of them, from what each variant added.
pub fn all(added: &[Added], seed: u64) -> Vec<Budget> {
    let of = |title: &str| added.iter().find(|added| added.title == title).map(|added| added.rounds.as_slice());
    let budget = |claim, bound, above, below| Budget {
        claim,
        bound,
        measured: of(above).zip(of(below)).map(|(above, below)| ratio(above, below, seed)),
    };
    vec![
        budget("All three controls add at most 1.5 times what Envoy's own three add", 1.5, title::ALL, title::NATIVE),
        budget(
            "A request that no policy matches adds at most what a do-nothing filter on the stock SDK adds",
            1.0,
            title::UNMATCHED,
            title::STOCK,
        ),
        budget("200 policies add at most a tenth more than 2", 1.1, title::TWO_HUNDRED, title::TWO),
        budget(
            "1 000 000 keys add at most 30 % more than 100, cache misses included",
            1.3,
            title::MANY_KEYS,
            title::ALL,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(title: &'static str, micros: f64) -> Added {
        Added { title, base: vec![28.0; 9], rounds: vec![micros; 9] }
    }

    #[test]
    fn a_budget_is_kept_up_to_its_bound_and_not_above() {
        let budgets = |all| super::all(&[added(title::NATIVE, 2.0), added(title::ALL, all)], 1);
        assert_eq!(budgets(3.0)[0].verdict(), Verdict::Kept);
        assert_eq!(budgets(3.1)[0].verdict(), Verdict::Missed);
    }

    #[test]
    fn what_was_not_measured_is_unclear() {
        assert!(all(&[], 1).iter().all(|budget| budget.verdict() == Verdict::Unclear));
    }

    #[test]
    fn a_bound_within_the_range_of_a_noisy_run_is_unclear() {
        let mut noisy = added(title::ALL, 0.0);
        noisy.rounds = vec![2.0, 4.0, 2.0, 4.0, 3.0, 2.0, 4.0, 2.5, 3.5];
        assert_eq!(all(&[added(title::NATIVE, 2.0), noisy], 1)[0].verdict(), Verdict::Unclear);
    }
}
