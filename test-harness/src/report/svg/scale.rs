//! From values to places in a drawing.

/// Maps a range of values to a range of places, linearly or by their logarithm. Values outside are held to its ends.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    values: (f64, f64),
    places: (f64, f64),
    logarithmic: bool,
}

impl Scale {
    /// Equal differences are equal distances.
    pub fn linear(values: (f64, f64), places: (f64, f64)) -> Self {
        Self { values, places, logarithmic: false }
    }

    /// Equal ratios are equal distances; all values are above 0.
    pub fn logarithmic(values: (f64, f64), places: (f64, f64)) -> Self {
        Self { values, places, logarithmic: true }
    }

    /// Where a value lies.
    pub fn at(&self, value: f64) -> f64 {
        let (low, high) = self.values;
        let measure = |value: f64| if self.logarithmic { value.ln() } else { value };
        let share = (measure(value.clamp(low, high)) - measure(low)) / (measure(high) - measure(low));
        self.places.0 + share * (self.places.1 - self.places.0)
    }
}

/// Round values from 0 to `most` or just beyond, at most `steps` steps of 1, 2, 2.5 or 5 times a power of ten.
pub fn ticks(most: f64, steps: usize) -> Vec<f64> {
    let least = most.max(1.0) / steps.max(1) as f64;
    let power = 10_f64.powf(least.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= least);
    let step = step.unwrap_or(10.0 * power);
    (0..=(most.max(1.0) / step).ceil() as usize).map(|index| index as f64 * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_scale_maps_ends_to_ends_and_holds_what_is_outside() {
        let scale = Scale::linear((0.0, 10.0), (100.0, 0.0));
        assert_eq!([0.0, 2.5, 10.0, 11.0, -1.0].map(|value| scale.at(value)), [100.0, 75.0, 0.0, 0.0, 100.0]);
    }

    #[test]
    fn on_a_logarithmic_scale_decades_are_equally_long() {
        let scale = Scale::logarithmic((10.0, 1000.0), (0.0, 2.0));
        assert_eq!([10.0, 100.0, 1000.0].map(|value| (scale.at(value) * 1e9).round() / 1e9), [0.0, 1.0, 2.0]);
    }

    #[test]
    fn ticks_are_round_few_and_reach_the_largest_value() {
        assert_eq!(ticks(1040.0, 3), [0.0, 500.0, 1000.0, 1500.0]);
        assert_eq!(ticks(250.0, 3), [0.0, 100.0, 200.0, 300.0]);
        assert_eq!(ticks(10.0, 5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(0.0, 3), [0.0, 0.5, 1.0]);
    }
}
