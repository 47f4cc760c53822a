//! The drawing: one panel for each way to find a limit, all with the same axes.

use super::{CALM, INTERVAL, OFFERED, Run, TIMES, capacity};
use crate::report::html::escape;
use crate::report::svg::{Scale, line, number, text};

const COLUMNS: usize = 2;
const WIDTH: f64 = 430.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = WIDTH - 14.0;
/// Where the requests lie, from the top of a panel, and where the limit.
const REQUESTS: (f64, f64) = (34.0, 154.0);
const LIMIT: (f64, f64) = (178.0, 222.0);
/// Limits beyond are drawn at the edge.
const MOST: f64 = 100.0;

const STYLE: &str = "\
text{font:12px DejaVu Sans,Helvetica,Arial,sans-serif;fill:#263238}.muted{fill:#607d8b;font-size:10px}\
.title{font-weight:bold;font-size:13px}.end{text-anchor:end}.middle{text-anchor:middle}\
.grid{stroke:#eceff1}.good{fill:#a5d6a7;stroke:#2e7d32;stroke-width:1.5}\
.offered{fill:none;stroke:#90a4ae;stroke-width:1}.capacity{fill:none;stroke:#263238;stroke-dasharray:4 3}\
.limit{fill:none;stroke:#e65100;stroke-width:1.5}";

/// A drawing of all runs.
pub fn chart(runs: &[Run]) -> String {
    let rows = runs.len().div_ceil(COLUMNS);
    let (width, height) = (WIDTH * COLUMNS as f64, HEIGHT * rows as f64 + 24.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\" aria-label=\"Requests answered in time and the limit found, by algorithm\">\n\
         <style>{STYLE}</style>\n<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    for (index, run) in runs.iter().enumerate() {
        let (x, y) = ((index % COLUMNS) as f64 * WIDTH, (index / COLUMNS) as f64 * HEIGHT);
        svg.push_str(&format!("<g transform=\"translate({x} {y})\">{}</g>\n", panel(run)));
    }
    let key = "Green: answered within 250 ms, per second. Grey: offered. Dashed: what the upstream can carry. Orange: the limit.";
    svg.push_str(&text("muted", LEFT, height - 10.0, key));
    svg.push_str("\n</svg>\n");
    svg
}

fn panel(run: &Run) -> String {
    let [overload, _, _, calm, end] = TIMES;
    let x = Scale::linear((0.0, end), (LEFT, RIGHT));
    let requests = Scale::linear((0.0, OFFERED * 1.05), (REQUESTS.1, REQUESTS.0));
    let limit = Scale::linear((0.0, MOST), (LIMIT.1, LIMIT.0));
    let mut svg = text("title", LEFT, REQUESTS.0 - 14.0, &run.name);
    for (scale, values) in [(requests, [0.0, 500.0, 1000.0]), (limit, [0.0, MOST / 2.0, MOST])] {
        for value in values {
            let at = scale.at(value);
            svg.push_str(&line("grid", (LEFT, at), (RIGHT, at)));
            svg.push_str(&text("muted end", LEFT - 5.0, at + 4.0, &number(value)));
        }
    }
    let good: Vec<_> = run
        .goodput
        .iter()
        .enumerate()
        .flat_map(|(at, value)| step(at, |_| *value))
        .map(|(at, value)| (x.at(at), requests.at(value)))
        .collect();
    let bottom = requests.at(0.0);
    let closed = [(x.at(0.0), bottom)].into_iter().chain(good).chain([(x.at(end), bottom)]);
    svg.push_str(&format!("<path class=\"good\" d=\"{}Z\"/>", path(closed)));
    let intervals = 0..(end / INTERVAL) as usize;
    let steps = |value: &dyn Fn(f64) -> f64| {
        let points = intervals.clone().flat_map(|at| step(at, value));
        path(points.map(|(at, value)| (x.at(at), requests.at(value))))
    };
    let offered = |at: f64| if (overload..calm).contains(&at) { OFFERED } else { CALM };
    svg.push_str(&format!("<path class=\"offered\" d=\"{}\"/>", steps(&offered)));
    svg.push_str(&format!("<path class=\"capacity\" d=\"{}\"/>", steps(&capacity)));
    if run.limit.is_empty() {
        svg.push_str(&text("muted middle", (LEFT + RIGHT) / 2.0, (LIMIT.0 + LIMIT.1) / 2.0 + 4.0, "no limit is told"));
    } else {
        let points = run.limit.iter().map(|(at, value)| (x.at(*at), limit.at(*value)));
        svg.push_str(&format!("<path class=\"limit\" d=\"{}\"/>", path(points)));
    }
    for second in (0..=end as u32).step_by(2) {
        svg.push_str(&text("muted middle", x.at(f64::from(second)), LIMIT.1 + 16.0, &escape(&format!("{second} s"))));
    }
    svg
}

/// The begin and the end of an interval, with its value.
fn step(index: usize, value: impl Fn(f64) -> f64) -> [(f64, f64); 2] {
    let from = index as f64 * INTERVAL;
    [from, from + INTERVAL].map(|at| (at, value(from)))
}

fn path(points: impl IntoIterator<Item = (f64, f64)>) -> String {
    let mut path = String::new();
    for (x, y) in points {
        path.push_str(if path.is_empty() { "M" } else { "L" });
        path.push_str(&format!("{} {}", number(x), number(y)));
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_has_a_panel_and_a_limit_beyond_the_edge_is_drawn_at_it() {
        let run = |name: &str, limit: Vec<(f64, f64)>| Run { name: name.into(), goodput: vec![250.0; 34], limit };
        let svg = chart(&[run("one", vec![(0.0, 20.0), (1.0, 1000.0)]), run("two < three", Vec::new())]);
        assert_eq!(svg.matches("<g transform").count(), 2);
        assert_eq!((svg.matches("class=\"limit\"").count(), svg.matches("no limit is told").count()), (1, 1));
        assert!(svg.contains("two &lt; three"));
        let top = format!(" {}", number(LIMIT.0));
        assert!(svg.lines().any(|line| line.contains("class=\"limit\"") && line.contains(&top)), "{svg}");
    }
}
