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
/// A height beyond which more is no better.
const COMFORT: f64 = 24.0;
/// The mean width of a letter.
const LETTER: f64 = 7.0;

/// Draws the layers from the bottom up.
pub fn stack(layers: &[Layer], frame: &Frame) -> String {
    let mut svg = String::new();
    let mut names = String::new();
    let mut base = vec![0.0; layers.first().map_or(0, |layer| layer.values.len())];
    for layer in layers.iter().filter(|layer| layer.values.iter().any(|value| *value > 0.0)) {
        let top: Vec<f64> = base.iter().zip(&layer.values).map(|(base, value)| base + value).collect();
        let mut outline = frame.steps(&top);
        outline.extend(frame.steps(&base).into_iter().rev());
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

/// The middle of a place where a band is high enough for a name over the name's whole width: in the middle of the longest
/// stretch with comfort, or else where it is highest.
fn room_for(name: &str, low: &[(f64, f64)], high: &[(f64, f64)]) -> Option<(f64, f64)> {
    let step = low.get(1)?.0 - low.first()?.0;
    let wide = (name.chars().count() as f64 * LETTER / step).ceil() as usize + 1;
    let last = low.len().checked_sub(wide)?;
    let edges = |from: usize| {
        let bottom = low[from..from + wide].iter().map(|(_, y)| *y).fold(f64::INFINITY, f64::min);
        let top = high[from..from + wide].iter().map(|(_, y)| *y).fold(f64::NEG_INFINITY, f64::max);
        (bottom, top)
    };
    let rooms: Vec<f64> = (0..=last).map(edges).map(|(bottom, top)| bottom - top).collect();
    let stretches = rooms.chunk_by(|one, other| (*one >= COMFORT) == (*other >= COMFORT));
    let comfortable = stretches
        .scan(0, |next, stretch| {
            let begin = *next;
            *next += stretch.len();
            Some((begin, stretch))
        })
        .filter(|(_, stretch)| stretch[0] >= COMFORT)
        .max_by_key(|(_, stretch)| stretch.len())
        .map(|(begin, stretch)| begin + stretch.len() / 2);
    let highest = || (0..=last).max_by(|one, other| rooms[*one].total_cmp(&rooms[*other]));
    let from = comfortable.or_else(highest).filter(|from| rooms[*from] >= ROOM)?;
    let (bottom, top) = edges(from);
    Some(((low[from].0 + low[from + wide - 1].0) / 2.0, (bottom + top) / 2.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Places = Vec<(f64, f64)>;

    /// A band of these heights, standing on 100, with an interval every 10.
    fn band(heights: &[f64]) -> (Places, Places) {
        let at = |y: &dyn Fn(f64) -> f64| {
            heights.iter().enumerate().map(|(index, height)| (index as f64 * 10.0, y(*height))).collect()
        };
        (at(&|_| 100.0), at(&|height| 100.0 - height))
    }

    #[test]
    fn a_name_stands_where_the_band_is_highest_over_its_width() {
        let (low, high) = band(&[5.0, 16.0, 16.0, 16.0, 20.0, 20.0, 20.0, 20.0, 5.0]);
        assert_eq!(room_for("abc", &low, &high), Some((55.0, 90.0)));
    }

    #[test]
    fn a_name_stands_in_the_middle_of_the_longest_stretch_with_comfort() {
        let (low, high) = band(&[90.0, 90.0, 90.0, 5.0, 50.0, 50.0, 50.0, 50.0, 50.0]);
        assert_eq!(room_for("ab", &low, &high), Some((60.0, 75.0)));
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
