//! The results as text for the terminal and as JSON for other tools.

use std::fmt::Write;

use serde_json::{Value, json};

use super::budgets::Budget;
use super::results::AtRate;
use super::results::Results;
use super::statistics::{Range, Spread};
use super::timed::Part;

/// A table: what its columns are, and its rows with their names.
pub struct Table<const N: usize> {
    /// The columns.
    pub columns: [&'static str; N],
    /// The rows.
    pub rows: Vec<(String, [String; N])>,
}

/// What each variant added.
pub fn added(results: &Results) -> Table<5> {
    let native = results.added.iter().find(|added| added.title == super::variants::title::NATIVE);
    let native = native.map_or(f64::NAN, |added| added.spread().median);
    let rows = results.added.iter().skip(1).map(|added| {
        let Spread { lower, median, upper } = added.spread();
        let Range { low, high, .. } = added.range(results.seed);
        let cells = [
            format!("{median:+.2} us"),
            format!("{low:+.2} to {high:+.2}"),
            format!("{lower:+.2} to {upper:+.2}"),
            format!("{:.2} x", median / native),
            format!("{:+.1} %", 100.0 * median / results.base.median),
        ];
        (added.title.to_owned(), cells)
    });
    let columns = ["added", "its range", "half of all rounds", "of Envoy's three", "of the request"];
    Table { columns, rows: rows.collect() }
}

/// The lowest and the highest.
fn extremes(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    (values.clone().fold(f64::INFINITY, f64::min), values.fold(0.0, f64::max))
}

fn micros(latencies: &crate::client::Latencies, percent: f64) -> f64 {
    latencies.percentile(percent).as_secs_f64() * 1e6
}

/// Load at fixed rates.
pub fn at_rates(results: &Results) -> Table<7> {
    let rows = results.at_rates.iter().map(|one| {
        let latency = |percent| format!("{:.0} us", micros(&one.latencies, percent));
        let (low, high) = extremes(one.turns.iter().map(|turn| micros(turn, 99.0)));
        let cells = [
            format!("{}/s", one.rate),
            format!("{:.0}/s", Spread::of(&one.throughput).median),
            format!("{:.1} %", Spread::of(&one.busy).median),
            latency(50.0),
            latency(99.0),
            format!("{low:.0} to {high:.0}"),
            latency(99.9),
        ];
        (one.title.to_owned(), cells)
    });
    let columns = ["rate", "answered", "worker busy", "p50", "p99", "p99 in each turn", "p99.9"];
    Table { columns, rows: rows.collect() }
}

/// What a request costs inside the plugin.
pub fn callbacks(results: &Results) -> Table<4> {
    let row = |part: &Part| {
        let own = part.own.unwrap_or_default();
        let cells = [
            format!("{:.2}", part.times.median),
            format!("{:.0} ns", part.nanos.median),
            format!("{:.0} to {:.0}", part.nanos.lower, part.nanos.upper),
            format!("{:.0} ns", own.median),
        ];
        (part.name.clone(), cells)
    };
    let columns = ["times a request", "each", "quartiles", "in its own code"];
    Table { columns, rows: results.timed.callbacks.iter().map(row).collect() }
}

/// What calls to the host cost a request.
pub fn calls(results: &Results) -> Table<4> {
    Table { columns: ["times a request", "each", "quartiles", "a request"], rows: call_rows(&results.timed.calls) }
}

/// One row for each call.
pub fn call_rows(parts: &[Part]) -> Vec<(String, [String; 4])> {
    let row = |part: &Part| {
        let cells = [
            format!("{:.2}", part.times.median),
            format!("{:.0} ns", part.nanos.median),
            format!("{:.0} to {:.0}", part.nanos.lower, part.nanos.upper),
            format!("{:.0} ns", part.times.median * part.nanos.median),
        ];
        (part.name.clone(), cells)
    };
    parts.iter().map(row).collect()
}

/// What else the bench build counts.
pub fn counted(results: &Results) -> String {
    format!(
        "{:.2} calls returned bytes, and {:.2} allocations were made inside the VM, per request.",
        results.timed.returning_bytes.median, results.timed.allocations.median
    )
}

/// What calls to the host cost.
pub fn host_calls(results: &Results) -> Table<2> {
    let rows = results.host_calls.iter().map(|call| {
        let Spread { lower, median, upper } = call.nanos;
        (call.name.clone(), [format!("{median:.0} ns"), format!("{lower:.0} to {upper:.0}")])
    });
    Table { columns: ["a call", "quartiles"], rows: rows.collect() }
}

impl Budget {
    /// What was measured, in words.
    pub fn measured_text(&self) -> String {
        match self.measured {
            None => "not measured: what it is held against cannot be told from nothing".into(),
            Some(Range { low, value, high }) if low == high => format!("measured {value:.2} {}", self.unit),
            Some(Range { low, value, high }) => format!("measured {value:.2} {}, {low:.2} to {high:.2}", self.unit),
        }
    }
}

/// The tables and budgets, aligned.
pub fn terminal(results: &Results) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "\nWhat each filter adds to a request, in the worker's time (range: where 90 of 100 resamplings of the rounds put \
         the median)"
    );
    table(&mut out, &added(results));
    let _ = writeln!(out, "\nLoad at fixed rates");
    table(&mut out, &at_rates(results));
    let _ = writeln!(out, "\nInside the plugin, all three controls: its callbacks");
    table(&mut out, &callbacks(results));
    let _ = writeln!(out, "\nInside the plugin, all three controls: its calls to the host");
    table(&mut out, &calls(results));
    let _ = writeln!(out, "  {}", counted(results));
    let _ = writeln!(out, "\nCalls to the host in a loop inside a VM");
    table(&mut out, &host_calls(results));
    let _ = writeln!(out, "\nBudgets (with the range of 90 in 100 resamplings)");
    for budget in &results.budgets {
        let _ = writeln!(out, "  {:<11}  {} ({})", budget.verdict().text(), budget.claim, budget.measured_text());
    }
    let _ = writeln!(out);
    for (name, value) in &results.method {
        let _ = writeln!(out, "{name}: {value}");
    }
    out
}

pub(super) fn table<const N: usize>(out: &mut String, table: &Table<N>) {
    let wide = |text: &str| text.chars().count();
    let first = table.rows.iter().map(|(name, _)| wide(name)).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = table.rows.iter().map(|(_, cells)| wide(&cells[column]));
        cells.max().unwrap_or(0).max(wide(table.columns[column]))
    });
    let heads = ("", table.columns.map(str::to_owned));
    for (name, cells) in std::iter::once(heads).chain(table.rows.iter().map(|(n, c)| (n.as_str(), c.clone()))) {
        let cells: Vec<_> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
        let _ = writeln!(out, "  {name:<first$}  {}", cells.join("  "));
    }
}

pub(super) fn spread(s: Spread) -> Value {
    json!({"lower_quartile": s.lower, "median": s.median, "upper_quartile": s.upper})
}

pub(super) fn range(r: Range) -> Value {
    json!({"value": r.value, "low": r.low, "high": r.high})
}

pub(super) fn part(part: &Part) -> Value {
    json!({
        "name": part.name, "per_request": spread(part.times), "ns": spread(part.nanos), "own_ns": part.own.map(spread),
        "refused_per_1000": spread(part.refused),
        "interrupted_per_1000": spread(part.interrupted)
    })
}

pub(super) fn method(rows: &[(String, String)]) -> Value {
    rows.iter().map(|(name, value)| (name.to_lowercase(), json!(value))).collect::<serde_json::Map<_, _>>().into()
}

fn at_rate(one: &AtRate) -> Value {
    let turns = one.turns.iter().zip(&one.throughput).zip(&one.busy).map(|((turn, throughput), busy)| {
        json!({
            "throughput": throughput, "worker_busy_percent": busy,
            "p50_us": micros(turn, 50.0), "p99_us": micros(turn, 99.0), "p99_9_us": micros(turn, 99.9)
        })
    });
    json!({
        "variant": one.title, "rate": one.rate, "throughput": spread(Spread::of(&one.throughput)),
        "worker_busy_percent": spread(Spread::of(&one.busy)), "p50_us": micros(&one.latencies, 50.0),
        "p99_us": micros(&one.latencies, 99.0), "p99_9_us": micros(&one.latencies, 99.9),
        "requests": one.latencies.count(), "turns": turns.collect::<Vec<_>>()
    })
}

/// Everything, with every round.
pub fn json(results: &Results) -> Value {
    let added = results.added.iter().map(|added| {
        json!({
            "variant": added.title, "added_us": spread(added.spread()), "median_us": range(added.range(results.seed)),
            "rounds_us": added.rounds, "base_us": added.base
        })
    });
    let calls = results.host_calls.iter().map(|call| json!({"call": call.name, "ns": spread(call.nanos)}));
    let budgets = results.budgets.iter().map(|budget| {
        json!({
            "claim": budget.claim, "bound": budget.bound, "unit": budget.unit, "measured": budget.measured.map(range),
            "verdict": budget.verdict().text()
        })
    });
    let timed = &results.timed;
    json!({
        "method": method(&results.method),
        "seed": results.seed,
        "base_us": spread(results.base),
        "added": added.collect::<Vec<_>>(),
        "at_rates": results.at_rates.iter().map(at_rate).collect::<Vec<_>>(),
        "in_the_plugin": {
            "callbacks": timed.callbacks.iter().map(part).collect::<Vec<_>>(),
            "calls": timed.calls.iter().map(part).collect::<Vec<_>>(),
            "returning_bytes_per_request": spread(timed.returning_bytes),
            "allocations_per_request": spread(timed.allocations)
        },
        "host_calls": calls.collect::<Vec<_>>(),
        "budgets": budgets.collect::<Vec<_>>()
    })
}
