//! The results as text for the terminal and as JSON for other tools.

use std::fmt::Write;

use serde_json::{Value, json};

use super::budgets::Budget;
use super::results::Results;
use super::scale::Growth;
use super::statistics::Spread;

/// What the columns of the table of added time hold.
pub const ADDED: [&str; 4] = ["added", "quartiles", "of Envoy's three", "of the request"];
/// What the columns of the table of fixed rates hold.
pub const AT_RATE: [&str; 6] = ["rate", "answered", "worker busy", "p50", "p99", "p99.9"];

/// A table: what its columns are, and its rows with their names.
pub struct Table<const N: usize> {
    /// The columns.
    pub columns: [&'static str; N],
    /// The rows.
    pub rows: Vec<(String, [String; N])>,
}

/// What each variant added.
pub fn added(results: &Results) -> Table<4> {
    let native = results.added.iter().find(|added| added.title == super::variants::title::NATIVE);
    let native = native.map_or(f64::NAN, |added| added.spread().median);
    let rows = results.added.iter().skip(1).map(|added| {
        let Spread { lower, median, upper } = added.spread();
        let cells = [
            format!("{median:+.2} us"),
            format!("{lower:+.2} to {upper:+.2}"),
            format!("{:.2} x", median / native),
            format!("{:+.1} %", 100.0 * median / results.base.median),
        ];
        (added.title.to_owned(), cells)
    });
    Table { columns: ADDED, rows: rows.collect() }
}

/// Load at fixed rates.
pub fn at_rates(results: &Results) -> Table<6> {
    let rows = results.at_rates.iter().map(|one| {
        let micros = |percent| format!("{:.0} us", one.latencies.percentile(percent).as_secs_f64() * 1e6);
        let [p50, p99, p999] = [50.0, 99.0, 99.9].map(micros);
        let throughput = format!("{:.0}/s", one.throughput);
        (one.title.to_owned(), [format!("{}/s", one.rate), throughput, format!("{:.1} %", one.busy), p50, p99, p999])
    });
    Table { columns: AT_RATE, rows: rows.collect() }
}

/// How it grows.
pub fn growth_terminal(all: &[Growth]) -> String {
    let mut out = String::new();
    for Growth { title, added } in all {
        let base = Spread::of(&added.first().map(|added| added.base.clone()).unwrap_or_default());
        // Writing to a String cannot fail.
        let _ = writeln!(out, "\n{title}: {:.1} us a request without a filter", base.median);
        let rows = added.iter().skip(1).map(|added| {
            let Spread { lower, median, upper } = added.spread();
            (added.title.to_owned(), [format!("{median:+.2} us"), format!("{lower:+.2} to {upper:+.2}")])
        });
        table(&mut out, &Table { columns: ["added", "quartiles"], rows: rows.collect() });
    }
    out
}

/// The same for other tools.
pub fn growth_json(all: &[Growth]) -> Value {
    let of = |growth: &Growth| {
        let rows = growth
            .added
            .iter()
            .map(|added| json!({"variant": added.title, "rounds_us": added.rounds, "base_us": added.base}));
        json!({"title": growth.title, "added": rows.collect::<Vec<_>>()})
    };
    all.iter().map(of).collect()
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
            None => "not measured".into(),
            Some(ratio) => format!("{:.2} x, {:.2} to {:.2}", ratio.value, ratio.low, ratio.high),
        }
    }
}

/// The tables and budgets, aligned.
pub fn terminal(results: &Results) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "\nWhat each filter adds to a request, in the worker's time");
    table(&mut out, &added(results));
    let _ = writeln!(out, "\nLoad at fixed rates");
    table(&mut out, &at_rates(results));
    let _ = writeln!(out, "\nWhat calls to the host cost inside the VM");
    table(&mut out, &host_calls(results));
    let _ = writeln!(out, "\nBudgets (with the range of 90 in 100 resamplings)");
    for budget in &results.budgets {
        let _ =
            writeln!(out, "  {:<11}  {} (measured {})", budget.verdict().text(), budget.claim, budget.measured_text());
    }
    let _ = writeln!(out);
    for (name, value) in &results.method {
        let _ = writeln!(out, "{name}: {value}");
    }
    out
}

fn table<const N: usize>(out: &mut String, table: &Table<N>) {
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

/// Everything, with every round.
pub fn json(results: &Results) -> Value {
    let spread = |s: Spread| json!({"lower_quartile": s.lower, "median": s.median, "upper_quartile": s.upper});
    let added = results.added.iter().map(|added| {
        json!({"variant": added.title, "added_us": spread(added.spread()), "rounds_us": added.rounds, "base_us": added.base})
    });
    let at_rates = results.at_rates.iter().map(|one| {
        let micros = |percent| one.latencies.percentile(percent).as_micros();
        json!({
            "variant": one.title, "rate": one.rate, "throughput": one.throughput, "worker_busy_percent": one.busy,
            "p50_us": micros(50.0), "p99_us": micros(99.0), "p99_9_us": micros(99.9)
        })
    });
    let calls = results.host_calls.iter().map(|call| json!({"call": call.name, "ns": spread(call.nanos)}));
    let budgets = results.budgets.iter().map(|budget| {
        let ratio = budget.measured.map(|ratio| json!({"value": ratio.value, "low": ratio.low, "high": ratio.high}));
        json!({"claim": budget.claim, "bound": budget.bound, "measured": ratio, "verdict": budget.verdict().text()})
    });
    let method: serde_json::Map<_, _> =
        results.method.iter().map(|(name, value)| (name.to_lowercase(), json!(value))).collect();
    json!({
        "method": method,
        "base_us": spread(results.base),
        "added": added.collect::<Vec<_>>(),
        "at_rates": at_rates.collect::<Vec<_>>(),
        "host_calls": calls.collect::<Vec<_>>(),
        "budgets": budgets.collect::<Vec<_>>()
    })
}
