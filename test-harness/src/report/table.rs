//! The closing table: the same rows in the terminal and on the page.

use super::model::{Act, Figures, Group};

/// What the columns after the first two hold.
pub const COLUMNS: [&str; 9] =
    ["sent", "admitted", "rate limited", "circuit open", "overloaded", "errors", "p50", "p99", "goodput"];

/// Two rows that belong together.
#[derive(Debug)]
pub struct Pair {
    /// The act, and the group of clients when there are several.
    pub label: String,
    /// The cells of the control run.
    pub without: [String; 9],
    /// The cells of the run with Tidegate.
    pub with: [String; 9],
}

/// The rows of all acts.
pub fn pairs(acts: &[Act]) -> Vec<Pair> {
    let pair = |act: &Act, label: String, group| Pair {
        label,
        without: cells(&act.without.figures(group, act.seconds)),
        with: cells(&act.with.figures(group, act.seconds)),
    };
    let of_act = |act: &Act| {
        if act.greedy {
            vec![
                pair(act, format!("{}: the others", act.title), Some(Group::Crowd)),
                pair(act, format!("{}: the greedy one", act.title), Some(Group::Greedy)),
            ]
        } else {
            vec![pair(act, act.title.clone(), None)]
        }
    };
    acts.iter().flat_map(of_act).collect()
}

fn cells(figures: &Figures) -> [String; 9] {
    let latency = |percent| milliseconds(figures.latency_ms(percent));
    [
        figures.sent.to_string(),
        figures.admitted().to_string(),
        count(figures.rate_limited),
        count(figures.circuit_open),
        count(figures.overloaded),
        count(figures.failed),
        latency(50.0),
        latency(99.0),
        format!("{:.0}/s", figures.goodput()),
    ]
}

/// A count, quiet when there is none.
fn count(count: usize) -> String {
    if count == 0 { "–".into() } else { count.to_string() }
}

/// A latency: `0.8 ms`, `21 ms`, `1.2 s`.
pub fn milliseconds(value: Option<f64>) -> String {
    match value {
        None => "–".into(),
        Some(ms) if ms < 9.95 => format!("{ms:.1} ms"),
        Some(ms) if ms < 999.5 => format!("{ms:.0} ms"),
        Some(ms) => format!("{:.1} s", ms / 1000.0),
    }
}

/// The table as aligned text.
pub fn text(acts: &[Act]) -> String {
    let mut rows = vec![(String::new(), COLUMNS.map(str::to_owned))];
    for pair in pairs(acts) {
        rows.push((format!("{}\n  without Tidegate", pair.label), pair.without));
        rows.push(("  with Tidegate".into(), pair.with));
    }
    let first = rows.iter().flat_map(|(label, _)| label.lines()).map(|line| line.chars().count()).max().unwrap_or(0);
    let widths: [usize; 9] =
        std::array::from_fn(|column| rows.iter().map(|(_, cells)| cells[column].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for (label, cells) in &rows {
        let (above, label) = label.rsplit_once('\n').unwrap_or(("", label));
        if !above.is_empty() {
            text.push_str(above);
            text.push('\n');
        }
        let cells: Vec<_> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
        text.push_str(format!("{label:<first$}  {}", cells.join("  ")).trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::report::model::{Fate, Performance, Sample};

    fn act(greedy: bool) -> Act {
        let sample = |group, fate| Sample { intended: Duration::ZERO, latency: Duration::from_millis(20), group, fate };
        let samples = vec![sample(Group::Crowd, Fate::Served), sample(Group::Greedy, Fate::RateLimited)];
        Act {
            title: "An act".into(),
            story: String::new(),
            seconds: 1.0,
            mark: None,
            greedy,
            shows_breaker: false,
            without: Performance::default(),
            with: Performance { samples, ..Performance::default() },
            claim: String::new(),
            comparisons: Vec::new(),
        }
    }

    #[test]
    fn every_line_of_figures_is_aligned() {
        let text = text(&[act(false), act(true)]);
        let lines: Vec<_> = text.lines().filter(|line| line.contains("Tidegate")).collect();
        assert_eq!(lines.len(), 6, "{text}");
        assert!(lines.iter().all(|line| line.chars().count() == lines[0].chars().count()), "{text}");
    }

    #[test]
    fn a_greedy_client_has_rows_of_its_own() {
        let pairs = pairs(&[act(true)]);
        assert_eq!(pairs.len(), 2);
        assert_eq!(pairs[0].with[..3], ["1".to_owned(), "1".into(), "–".into()]);
        assert_eq!(pairs[1].with[..3], ["1".to_owned(), "0".into(), "1".into()]);
        assert_eq!(pairs[1].with[6], "–", "no latency without a good answer");
    }

    #[test]
    fn latencies_are_written_to_two_figures_or_whole_milliseconds() {
        let all = [None, Some(0.84), Some(21.3), Some(999.7)].map(milliseconds);
        assert_eq!(all, ["–", "0.8 ms", "21 ms", "1.0 s"]);
    }
}
