//! Medians, their spread, and how sure a ratio of two medians is.

use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// A median with the quartiles around it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spread {
    /// A quarter of the values lies below.
    pub lower: f64,
    /// Half of them.
    pub median: f64,
    /// Three quarters.
    pub upper: f64,
}

impl Spread {
    /// Of these values; zeros when there are none.
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Self { lower: quantile(&sorted, 0.25), median: quantile(&sorted, 0.5), upper: quantile(&sorted, 0.75) }
    }
}

/// A quantile of sorted values, between two of them by linear interpolation.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = share * last as f64;
    let at = |index: usize| sorted.get(index.min(last)).copied().unwrap_or_default();
    let (below, part) = (place.floor(), place.fract());
    at(below as usize) * (1.0 - part) + at(below as usize + 1) * part
}

/// A figure and where 90 of 100 resamplings of the rounds put it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// Five of 100 lie below.
    pub low: f64,
    /// That of the rounds as they were.
    pub value: f64,
    /// Five of 100 lie above.
    pub high: f64,
}

const RESAMPLINGS: usize = 1_000;

/// A figure of rounds and its range (Efron's bootstrap, by percentiles). Where the figure is none for more resamplings than
/// may lie outside the range on one side, it has no range, and there is none.
fn bootstrap(rounds: usize, seed: u64, figure: impl Fn(&[usize]) -> Option<f64>) -> Option<Range> {
    const OUTSIDE: f64 = 0.05;
    if rounds == 0 {
        return None;
    }
    let value = figure(&(0..rounds).collect::<Vec<_>>())?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut drawn: Vec<_> = (0..RESAMPLINGS)
        .filter_map(|_| figure(&(0..rounds).map(|_| random.random_range(0..rounds)).collect::<Vec<_>>()))
        .collect();
    if ((RESAMPLINGS - drawn.len()) as f64) > OUTSIDE * RESAMPLINGS as f64 {
        return None;
    }
    drawn.sort_by(f64::total_cmp);
    Some(Range { low: quantile(&drawn, OUTSIDE), value, high: quantile(&drawn, 1.0 - OUTSIDE) })
}

fn median(values: &[f64], picked: &[usize]) -> f64 {
    Spread::of(&picked.iter().filter_map(|&round| values.get(round).copied()).collect::<Vec<_>>()).median
}

/// The median of rounds, and how sure it is.
pub fn median_range(rounds: &[f64], seed: u64) -> Range {
    let range = bootstrap(rounds.len(), seed, |picked| Some(median(rounds, picked)));
    range.unwrap_or(Range { low: 0.0, value: 0.0, high: 0.0 })
}

/// The ratio of the medians of two figures that were measured in the same rounds. None where the lower one cannot be told
/// from nothing: a ratio to nothing, or to less, would say anything.
pub fn ratio(above: &[f64], below: &[f64], seed: u64) -> Option<Range> {
    bootstrap(above.len().min(below.len()), seed, |picked| {
        let below = median(below, picked);
        (below > 0.0).then(|| median(above, picked) / below)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_values_where_no_value_is_one() {
        assert_eq!(Spread::of(&[4.0, 1.0, 3.0, 2.0]), Spread { lower: 1.75, median: 2.5, upper: 3.25 });
        assert_eq!(Spread::of(&[7.0]), Spread { lower: 7.0, median: 7.0, upper: 7.0 });
        assert_eq!(Spread::of(&[]), Spread::default());
    }

    #[test]
    fn a_ratio_that_is_the_same_in_every_round_is_certain() {
        let below: Vec<f64> = vec![2.0; 50];
        let above: Vec<f64> = vec![3.0; 50];
        assert_eq!(ratio(&above, &below, 1), Some(Range { low: 1.5, value: 1.5, high: 1.5 }));
    }

    #[test]
    fn a_ratio_of_noisy_rounds_lies_within_its_bounds_and_the_same_seed_gives_the_same() {
        let below: Vec<f64> = (0..100).map(|n| f64::from(n % 7) + 10.0).collect();
        let above: Vec<f64> = (0..100).map(|n| f64::from(n % 11) + 20.0).collect();
        let found = ratio(&above, &below, 3).unwrap();
        assert!(found.low < found.value && found.value < found.high, "{found:?}");
        assert_eq!(Some(found), ratio(&above, &below, 3));
    }

    #[test]
    fn there_is_no_ratio_to_what_cannot_be_told_from_nothing() {
        let above = vec![3.0; 55];
        // Noise around a little more than nothing: its median is above zero, those of many resamplings are not.
        let below: Vec<f64> = (0..55).map(|n| f64::from(n % 11) - 4.9).collect();
        assert!(Spread::of(&below).median > 0.0);
        assert_eq!(ratio(&above, &below, 1), None);
        assert_eq!(ratio(&above, &vec![-1.0; 55], 1), None);
        assert_eq!(ratio(&[], &[], 1), None);
    }

    #[test]
    fn a_median_is_surer_than_its_rounds_are_close() {
        let rounds: Vec<f64> = (0..100).map(|n| f64::from(n % 11)).collect();
        let (range, spread) = (median_range(&rounds, 1), Spread::of(&rounds));
        assert!(spread.lower < range.low && range.low <= range.value && range.value <= range.high);
        assert!(range.high < spread.upper, "{range:?} {spread:?}");
        assert_eq!(median_range(&[], 1), Range { low: 0.0, value: 0.0, high: 0.0 });
    }
}
