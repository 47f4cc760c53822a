//! Drawings of one performance: what became of the requests, the latency of the served, and the breaker's state, over one
//! axis of time.

mod scale;
mod stack;

use super::html::escape;
use super::model::{Act, BreakerState, Fate, Group, Performance};
use super::series::{self, INTERVAL};
pub use scale::{Scale, ticks};
use stack::{Layer, path, stack};

const WIDTH: f64 = 440.0;
const LEFT: f64 = 50.0;
/// Beyond it stand the names of lines.
const RIGHT: f64 = WIDTH - 30.0;
/// Where the requests' chart begins and ends, from the top.
const REQUESTS: (f64, f64) = (28.0, 178.0);
const LATENCY: (f64, f64) = (218.0, 304.0);
const BREAKER: (f64, f64) = (344.0, 362.0);
/// Latencies that are shown, in milliseconds.
const LATENCIES: (f64, f64) = (10.0, 1000.0);

/// The axes of one chart.
struct Frame {
    x: Scale,
    y: Scale,
}

impl Frame {
    /// Where the values of the intervals lie, each in the middle of its own.
    fn places(&self, values: &[f64]) -> Vec<(f64, f64)> {
        self.places_from(0, values)
    }

    /// The same for values that begin with a later interval.
    fn places_from(&self, first: usize, values: &[f64]) -> Vec<(f64, f64)> {
        let middle = |index: usize| self.x.at(((first + index) as f64 + 0.5) * INTERVAL);
        values.iter().enumerate().map(|(index, value)| (middle(index), self.y.at(*value))).collect()
    }

    /// The same as steps: each value from the begin of its interval to the end.
    fn steps(&self, values: &[f64]) -> Vec<(f64, f64)> {
        let ends = |(index, value): (usize, &f64)| {
            let at = |index: usize| (self.x.at(index as f64 * INTERVAL), self.y.at(*value));
            [at(index), at(index + 1)]
        };
        values.iter().enumerate().flat_map(ends).collect()
    }
}

/// The axes both performances of an act share.
#[derive(Debug)]
pub struct Axes {
    seconds: f64,
    most: f64,
}

impl Axes {
    /// Long and high enough for both.
    pub fn of(act: &Act) -> Self {
        let offered = [&act.without, &act.with].map(|run| series::per_second(&run.samples, act.seconds, |_| true));
        Self { seconds: act.seconds, most: offered.iter().flatten().copied().fold(0.0, f64::max) }
    }
}

/// The drawing of one performance. `id` is unique on the page.
pub fn performance(act: &Act, run: &Performance, axes: &Axes, id: &str, title: &str) -> String {
    let x = Scale::linear((0.0, axes.seconds), (LEFT, RIGHT));
    let bottom = if act.shows_breaker { BREAKER.1 } else { LATENCY.1 };
    let figures = run.figures(None, act.seconds);
    let description = format!(
        "{} requests sent, {} served, {} rejected, {} errors; median latency of the served {}, 99th percentile {}.",
        figures.sent,
        figures.served,
        figures.rejected(),
        figures.failed,
        super::milliseconds(figures.latency_ms(50.0)),
        super::milliseconds(figures.latency_ms(99.0))
    );
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\
         <title id=\"{id}-t\">{}</title><desc id=\"{id}-d\">{description}</desc>",
        bottom + 22.0,
        escape(title)
    );
    svg.push_str(&mark(act, &x, bottom));
    svg.push_str(&requests(run, axes, x));
    svg.push_str(&latency(act, run, x));
    if act.shows_breaker {
        svg.push_str(&breaker(run, &x));
    }
    svg.push_str(&seconds(axes, &x, bottom));
    svg.push_str("</svg>");
    svg
}

/// A number as short as a drawing needs it.
pub fn number(value: f64) -> String {
    let rounded = (value * 10.0).round() / 10.0;
    // No minus in front of nothing.
    format!("{}", if rounded == 0.0 { 0.0 } else { rounded })
}

/// Text that begins, ends or is centred at a point, by its class.
pub fn text(class: &str, x: f64, y: f64, text: &str) -> String {
    format!("<text class=\"{class}\" x=\"{}\" y=\"{}\">{}</text>", number(x), number(y), escape(text))
}

/// A line between two points.
pub fn line(class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) -> String {
    let [x1, y1, x2, y2] = [x1, y1, x2, y2].map(number);
    format!("<line class=\"{class}\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>")
}

/// A rectangle between two columns and two rows.
pub fn rectangle(class: &str, (left, right): (f64, f64), (top, bottom): (f64, f64)) -> String {
    let [x, y, width, height] = [left, top, right - left, bottom - top].map(number);
    format!("<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/>")
}

fn mark(act: &Act, x: &Scale, bottom: f64) -> String {
    let Some(mark) = &act.mark else { return String::new() };
    let (from, to) = (x.at(mark.from), x.at(mark.to));
    rectangle("mark", (from, to), (REQUESTS.0 - 20.0, bottom))
        + &text("middle", (from + to) / 2.0, REQUESTS.0 - 8.0, &mark.label)
}

fn seconds(axes: &Axes, x: &Scale, bottom: f64) -> String {
    let all = ticks(axes.seconds, 5);
    let inside = all.iter().filter(|tick| **tick <= axes.seconds);
    let label = |tick: &f64| text("middle muted", x.at(*tick), bottom + 16.0, &format!("{tick} s"));
    inside.map(label).collect()
}

fn grid(values: &[f64], y: &Scale, label: impl Fn(f64) -> String) -> String {
    let one = |value: &f64| {
        let at = y.at(*value);
        line("grid", (LEFT, at), (RIGHT, at)) + &text("end muted", LEFT - 5.0, at + 4.0, &label(*value))
    };
    values.iter().map(one).collect()
}

fn requests(run: &Performance, axes: &Axes, x: Scale) -> String {
    let top = axes.most * 1.05;
    let frame = Frame { x, y: Scale::linear((0.0, top), (REQUESTS.1, REQUESTS.0)) };
    let ticks: Vec<_> = ticks(top, 3).into_iter().filter(|tick| *tick <= top).collect();
    let layer = |class, name, fate: Fate, group: Option<Group>| {
        let chosen = |sample: &super::Sample| sample.fate == fate && group.is_none_or(|group| sample.group == group);
        Layer { class, name, values: series::per_second(&run.samples, axes.seconds, chosen) }
    };
    let layers = [
        layer("served", "served", Fate::Served, Some(Group::Crowd)),
        layer("greedy", "greedy", Fate::Served, Some(Group::Greedy)),
        layer("rate", "rate limited", Fate::RateLimited, None),
        layer("open", "circuit open", Fate::CircuitOpen, None),
        layer("shed", "overloaded", Fate::Overloaded, None),
        layer("failed", "errors", Fate::Failed, None),
    ];
    let offered = series::per_second(&run.samples, axes.seconds, |_| true);
    let outline = format!("<path class=\"offered\" d=\"{}\"/>", path(&frame.steps(&offered)));
    text("muted", 0.0, REQUESTS.0 - 12.0, "requests/s")
        + &grid(&ticks, &frame.y, |value| value.to_string())
        + &stack(&layers, &frame)
        + &outline
}

fn latency(act: &Act, run: &Performance, x: Scale) -> String {
    let frame = Frame { x, y: Scale::logarithmic(LATENCIES, (LATENCY.1, LATENCY.0)) };
    let of = |percent| series::latency(&run.samples, act.seconds, Group::Crowd, percent);
    let whose = if act.greedy { "latency of the others, where served" } else { "latency of the served" };
    let (p50, p99) = (of(50.0), of(99.0));
    let label = |value: f64| if value < 1000.0 { format!("{value} ms") } else { "1 s".into() };
    let mut svg = text("muted", 0.0, LATENCY.0 - 12.0, whose) + &grid(&[10.0, 100.0, 1000.0], &frame.y, label);
    let mut ends = Vec::new();
    for (class, values) in [("p99", &p99), ("p50", &p50)] {
        for (from, values) in runs(values) {
            let places: Vec<_> = frame.places_from(from, &values);
            ends.push((class, places.last().copied().unwrap_or_default()));
            // A point of its own is drawn as a line to itself: its round cap shows.
            let again = places.last().copied().filter(|_| places.len() == 1);
            let points: Vec<_> = places.into_iter().chain(again).collect();
            svg.push_str(&format!("<path class=\"line {class}\" d=\"{}\"/>", path(&points)));
        }
    }
    svg.push_str(&names(&ends));
    let gap = runs(&p50.iter().map(|value| value.is_none().then_some(0.0)).collect::<Vec<_>>());
    let wide = gap.into_iter().filter(|(_, values)| values.len() >= 8).max_by_key(|(_, values)| values.len());
    if let Some((from, values)) = wide {
        let middle = (from as f64 + values.len() as f64 / 2.0) * INTERVAL;
        svg.push_str(&text("middle muted", frame.x.at(middle), (LATENCY.0 + LATENCY.1) / 2.0 + 4.0, "nothing served"));
    }
    svg
}

/// The lines' names, beside the end of each line's last stretch, and off each other.
fn names(ends: &[(&str, (f64, f64))]) -> String {
    let last = |class: &str| ends.iter().rev().find(|(name, _)| *name == class).map(|(_, place)| *place);
    let (Some(p99), Some(p50)) = (last("p99"), last("p50")) else { return String::new() };
    let (middle, half) = ((p99.1 + p50.1) / 2.0, ((p50.1 - p99.1) / 2.0).max(7.0));
    let upper = (middle - half).max(LATENCY.0 + 6.0);
    let lower = (middle + half).max(upper + 14.0);
    text("p99", p99.0 + 6.0, upper + 4.0, "p99") + &text("p50", p50.0 + 6.0, lower + 4.0, "p50")
}

/// The stretches in which there are values, each with where it begins.
fn runs(values: &[Option<f64>]) -> Vec<(usize, Vec<f64>)> {
    let mut runs: Vec<(usize, Vec<f64>)> = Vec::new();
    for (index, value) in values.iter().enumerate() {
        let Some(value) = value else { continue };
        match runs.last_mut() {
            Some((from, run)) if *from + run.len() == index => run.push(*value),
            _ => runs.push((index, vec![*value])),
        }
    }
    runs
}

fn breaker(run: &Performance, x: &Scale) -> String {
    let caption = |words| text("muted", 0.0, BREAKER.0 - 10.0, words);
    if run.breaker.is_empty() {
        return caption("circuit breaker")
            + &rectangle("none", (LEFT, RIGHT), BREAKER)
            + &text("middle muted", (LEFT + RIGHT) / 2.0, BREAKER.1 - 4.5, "none");
    }
    let end = run.breaker.last().map_or(0.0, |(at, _)| at.as_secs_f64());
    let mut svg = caption("circuit breaker (dark: open, pale: half-open)");
    let mut rest = run.breaker.as_slice();
    while let Some(((at, state), _)) = rest.split_first() {
        let same = rest.iter().take_while(|(_, other)| other == state).count();
        let until = rest.get(same).map_or(end, |(at, _)| at.as_secs_f64());
        let (from, to) = (x.at(at.as_secs_f64()), x.at(until));
        let (class, name) = match state {
            BreakerState::Closed => ("closed", "closed"),
            BreakerState::Open => ("open", "open"),
            BreakerState::HalfOpen => ("half", ""),
        };
        svg.push_str(&rectangle(class, (from, to), BREAKER));
        if to - from > 38.0 {
            svg.push_str(&text(&format!("on {class}"), (from + to) / 2.0, BREAKER.1 - 4.5, name));
        }
        rest = &rest[same..];
    }
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_split_where_there_are_none() {
        let values = [None, Some(1.0), Some(2.0), None, None, Some(3.0)];
        assert_eq!(runs(&values), [(1, vec![1.0, 2.0]), (5, vec![3.0])]);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.04, -0.04, 12.0, 12.26].map(number), ["0", "0", "12", "12.3"]);
    }
}
