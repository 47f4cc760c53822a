//! Drawings of one performance: what became of the requests, the latency of the served, and the breaker's state, over one
//! axis of time.

mod scale;
mod stack;

use super::html::escape;
use super::model::{Act, BreakerState, Fate, Group, Performance};
use super::series::{self, INTERVAL};
use scale::{Scale, ticks};
use stack::{Layer, path, stack};

const WIDTH: f64 = 440.0;
const LEFT: f64 = 34.0;
const RIGHT: f64 = WIDTH - 6.0;
/// Where the requests' chart begins and ends, from the top.
const REQUESTS: (f64, f64) = (26.0, 176.0);
const LATENCY: (f64, f64) = (214.0, 300.0);
const BREAKER: (f64, f64) = (338.0, 354.0);
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
        let middle = |index: usize| self.x.at((index as f64 + 0.5) * INTERVAL);
        values.iter().enumerate().map(|(index, value)| (middle(index), self.y.at(*value))).collect()
    }

    /// The same, drawn out to the begin of the first interval and the end of the last.
    fn edge(&self, values: &[f64]) -> Vec<(f64, f64)> {
        let mut places = self.places(values);
        if let (Some(first), Some(last)) = (places.first().copied(), places.last().copied()) {
            places.insert(0, (self.x.at(0.0), first.1));
            places.push((self.x.at(values.len() as f64 * INTERVAL), last.1));
        }
        places
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
fn number(value: f64) -> String {
    let rounded = (value * 10.0).round() / 10.0;
    // No minus in front of nothing.
    format!("{}", if rounded == 0.0 { 0.0 } else { rounded })
}

fn text(class: &str, x: f64, y: f64, text: &str) -> String {
    format!("<text class=\"{class}\" x=\"{}\" y=\"{}\">{}</text>", number(x), number(y), escape(text))
}

fn line(class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) -> String {
    let [x1, y1, x2, y2] = [x1, y1, x2, y2].map(number);
    format!("<line class=\"{class}\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>")
}

fn rectangle(class: &str, (left, right): (f64, f64), (top, bottom): (f64, f64)) -> String {
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
    let ticks = ticks(axes.most, 3);
    let top = ticks.last().copied().unwrap_or(1.0);
    let frame = Frame { x, y: Scale::linear((0.0, top), (REQUESTS.1, REQUESTS.0)) };
    let layer = |class, name, fate: Fate, group: Option<Group>| {
        let chosen = |sample: &super::Sample| sample.fate == fate && group.is_none_or(|group| sample.group == group);
        Layer { class, name, values: series::per_second(&run.samples, axes.seconds, chosen) }
    };
    let layers = [
        layer("served", "served", Fate::Served, Some(Group::Crowd)),
        layer("greedy", "served, greedy client", Fate::Served, Some(Group::Greedy)),
        layer("rate", "rate limited", Fate::RateLimited, None),
        layer("open", "circuit open", Fate::CircuitOpen, None),
        layer("shed", "overloaded", Fate::Overloaded, None),
        layer("failed", "errors", Fate::Failed, None),
    ];
    let offered = series::per_second(&run.samples, axes.seconds, |_| true);
    let outline = format!("<path class=\"offered\" d=\"{}\"/>", path(&frame.edge(&offered)));
    text("muted", 0.0, REQUESTS.0 - 12.0, "requests/s")
        + &grid(&ticks, &frame.y, |value| value.to_string())
        + &stack(&layers, &frame)
        + &outline
}

fn latency(act: &Act, run: &Performance, x: Scale) -> String {
    let frame = Frame { x, y: Scale::logarithmic(LATENCIES, (LATENCY.1, LATENCY.0)) };
    let of = |percent| series::latency(&run.samples, act.seconds, Group::Crowd, percent);
    let whose = if act.greedy { "latency of the others' served requests" } else { "latency of the served" };
    let (p50, p99) = (of(50.0), of(99.0));
    let label = |value: f64| if value < 1000.0 { format!("{value} ms") } else { "1 s".into() };
    let mut svg = text("muted", 0.0, LATENCY.0 - 12.0, whose) + &grid(&[10.0, 100.0, 1000.0], &frame.y, label);
    for (class, name, values, away) in [("p99", "p99", &p99, -6.0), ("p50", "p50", &p50, 14.0)] {
        let mut end = None;
        for (from, values) in runs(values) {
            let places: Vec<_> = frame
                .places(&values)
                .iter()
                .map(|(x, y)| (x + frame.x.at(from as f64 * INTERVAL) - LEFT, *y))
                .collect();
            end = places.last().copied();
            // A cap at both ends makes a single interval visible.
            let again = places.last().copied().filter(|_| places.len() == 1);
            let points: Vec<_> = places.into_iter().chain(again).collect();
            svg.push_str(&format!("<path class=\"line {class}\" d=\"{}\"/>", path(&points)));
        }
        if let Some((x, y)) = end {
            let fits = (y + away).clamp(LATENCY.0 + 9.0, LATENCY.1 - 3.0);
            svg.push_str(&text(&format!("end {class}"), x.max(LEFT + 24.0), fits, name));
        }
    }
    let gap = runs(&p50.iter().map(|value| value.is_none().then_some(0.0)).collect::<Vec<_>>());
    let wide = gap.into_iter().filter(|(_, values)| values.len() >= 8).max_by_key(|(_, values)| values.len());
    if let Some((from, values)) = wide {
        let middle = (from as f64 + values.len() as f64 / 2.0) * INTERVAL;
        svg.push_str(&text("middle muted", frame.x.at(middle), (LATENCY.0 + LATENCY.1) / 2.0 + 4.0, "nothing served"));
    }
    svg
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
    let caption = text("muted", 0.0, BREAKER.0 - 10.0, "circuit breaker");
    if run.breaker.is_empty() {
        return caption
            + &rectangle("none", (LEFT, RIGHT), BREAKER)
            + &text("middle muted", (LEFT + RIGHT) / 2.0, BREAKER.1 - 4.0, "none");
    }
    let end = run.breaker.last().map_or(0.0, |(at, _)| at.as_secs_f64());
    let mut svg = caption;
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
        if to - from > 34.0 {
            svg.push_str(&text(&format!("on {class}"), (from + to) / 2.0, BREAKER.1 - 4.0, name));
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
