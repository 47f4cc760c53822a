//! Areas on top of one another, each with its name where there is room for it.

use super::{Frame, number};

/// One layer: a class of the style sheet, a name, and a value for each interval.
#[derive(Debug)]
pub struct Layer {
    pub class: &'static str,
    pub name: &'static str,
    pub values: Vec<f64>,
}

/// The least height that can hold a name.
const ROOM: f64 = 15.0;
/// The mean width of a letter.
const LETTER: f64 = 6.6;

/// Draws the layers from the bottom up.
pub fn stack(layers: &[Layer], frame: &Frame) -> String {
    let mut svg = String::new();
    let mut names = String::new();
    let mut base = vec![0.0; layers.first().map_or(0, |layer| layer.values.len())];
    for layer in layers.iter().filter(|layer| layer.values.iter().any(|value| *value > 0.0)) {
        let top: Vec<f64> = base.iter().zip(&layer.values).map(|(base, value)| base + value).collect();
        let edge = |values: &[f64]| -> Vec<(f64, f64)> { frame.edge(values) };
        let mut outline = edge(&top);
        outline.extend(edge(&base).into_iter().rev());
        svg.push_str(&format!("<path class=\"area {}\" d=\"{}Z\"/>", layer.class, path(&outline)));
        let (low, high) = (frame.places(&base), frame.places(&top));
        if let Some((x, y)) = room_for(layer.name, &low, &high) {
            let (x, y, class, name) = (number(x), number(y + 4.0), layer.class, layer.name);
            names.push_str(&format!("<text class=\"on {class}\" x=\"{x}\" y=\"{y}\">{name}</text>"));
        }
        base = top;
    }
    svg + &names
}

/// A path through these points.
pub fn path(points: &[(f64, f64)]) -> String {
    let mut path = String::new();
    for (index, (x, y)) in points.iter().enumerate() {
        path.push_str(&format!("{}{},{}", if index == 0 { 'M' } else { 'L' }, number(*x), number(*y)));
    }
    path
}

/// The middle of the place where a band is high enough for a name over the name's whole width, and highest.
fn room_for(name: &str, low: &[(f64, f64)], high: &[(f64, f64)]) -> Option<(f64, f64)> {
    let step = low.get(1)?.0 - low.first()?.0;
    let wide = ((name.chars().count() as f64 * LETTER / step).ceil() as usize).max(1);
    let free = |from: usize| {
        let bottom = low.get(from..from + wide)?.iter().map(|(_, y)| *y).fold(f64::INFINITY, f64::min);
        let top = high.get(from..from + wide)?.iter().map(|(_, y)| *y).fold(f64::NEG_INFINITY, f64::max);
        let middle = (low[from].0 + low[from + wide - 1].0) / 2.0;
        Some((bottom - top, (middle, (bottom + top) / 2.0)))
    };
    let places = (0..low.len()).filter_map(free).filter(|(room, _)| *room >= ROOM);
    places.max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, place)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A band of these heights, standing on 100, with an interval every 10.
    fn band(heights: &[f64]) -> (Vec<(f64, f64)>, Vec<(f64, f64)>) {
        let at = |y: &dyn Fn(f64) -> f64| {
            heights.iter().enumerate().map(|(index, height)| (index as f64 * 10.0, y(*height))).collect()
        };
        (at(&|_| 100.0), at(&|height| 100.0 - height))
    }

    #[test]
    fn a_name_stands_where_the_band_is_highest_over_its_width() {
        let (low, high) = band(&[5.0, 20.0, 20.0, 40.0, 40.0, 5.0]);
        assert_eq!(room_for("abc", &low, &high), Some((35.0, 80.0)));
    }

    #[test]
    fn a_name_without_room_is_left_out() {
        let (low, high) = band(&[40.0, 5.0, 40.0, 5.0]);
        assert_eq!(room_for("abc", &low, &high), None);
        assert_eq!(room_for("a much longer name", &low, &high), None);
    }

    #[test]
    fn a_path_goes_through_its_points() {
        assert_eq!(path(&[(0.0, 1.5), (2.25, 3.0)]), "M0,1.5L2.3,3");
    }
}
