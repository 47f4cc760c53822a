//! How cost and memory grow, as text for the terminal and as JSON for other tools.

use std::fmt::Write;

use serde_json::{Value, json};

use super::memory::{Memory, Stood};
use super::output::{Table, method, part, range, spread, table};
use super::results::Added;
use super::scale::{Contended, Growth, Scale};
use super::statistics::{Range, Spread};

/// For the terminal.
pub fn terminal(scale: &Scale) -> String {
    let mut out = String::new();
    for Growth { title, added, contended } in &scale.growth {
        let base = Spread::of(&added.first().map(|added| added.base.clone()).unwrap_or_default());
        // Writing to a String cannot fail.
        let _ = writeln!(out, "\n{title}: {:.1} us a request without a filter", base.median);
        table(&mut out, &times(added, scale.seed));
        if let Some(Contended { workers, timed }) = contended {
            let _ = writeln!(out, "  The limit without a key in the bench build, {workers} at work:");
            let calls = timed.calls.iter().filter(|call| call.name.contains("shared_data"));
            let rows = calls.map(|call| {
                let cells = [
                    format!("{:.2}", call.times.median),
                    format!("{:.0} ns", call.nanos.median),
                    format!("{:.0} to {:.0}", call.nanos.lower, call.nanos.upper),
                    format!("{:.1} of 1000", call.refused.median),
                ];
                (call.name.clone(), cells)
            });
            table(&mut out, &Table { columns: ["times a request", "each", "quartiles", "lost"], rows: rows.collect() });
        }
    }
    let _ = writeln!(out, "\nMemory, in bytes of one VM and of Envoy's process with its two VMs");
    let rows = scale.memory.iter().map(|memory| {
        let (vm, process) = memory.each();
        let from_to = |figure: fn(&Stood) -> u64| {
            format!("{} to {} KiB", figure(&memory.few) / 1024, figure(&memory.many) / 1024)
        };
        let cells = [
            format!("{} to {}", memory.few.count, memory.many.count),
            from_to(|stood| stood.vm_bytes),
            format!("{vm:.1}"),
            from_to(|stood| stood.process_bytes),
            format!("{process:.1}"),
        ];
        (memory.what.to_owned(), cells)
    });
    let columns = ["how many", "one VM", "each", "the process", "each"];
    table(&mut out, &Table { columns, rows: rows.collect() });
    let _ = writeln!(out);
    for (name, value) in &scale.method {
        let _ = writeln!(out, "{name}: {value}");
    }
    out
}

fn times(all: &[Added], seed: u64) -> Table<5> {
    let rows = all.iter().map(|added| {
        let Spread { lower, median, upper } = added.spread();
        let Range { low, high, .. } = added.range(seed);
        let cells = [
            format!("{median:+.2} us"),
            format!("{low:+.2} to {high:+.2}"),
            format!("{lower:+.2} to {upper:+.2}"),
            format!("{:.1} us", Spread::of(&added.waited).median),
            format!("{:.0}/s", Spread::of(&added.speed).median),
        ];
        (added.title.to_owned(), cells)
    });
    let columns = ["added", "its range", "half of all rounds", "waited for a core", "answered"];
    Table { columns, rows: rows.collect() }
}

/// For other tools.
pub fn json(scale: &Scale) -> Value {
    let added = |added: &Added| {
        json!({
            "variant": added.title, "added_us": spread(added.spread()), "median_us": range(added.range(scale.seed)),
            "rounds_us": added.rounds, "base_us": added.base, "waited_us": added.waited, "requests_per_second": added.speed
        })
    };
    let growth = |growth: &Growth| {
        let contended = growth.contended.as_ref().map(|Contended { workers, timed }| {
            json!({"workers_at_work": workers, "calls": timed.calls.iter().map(part).collect::<Vec<_>>()})
        });
        json!({
            "title": growth.title, "added": growth.added.iter().map(added).collect::<Vec<_>>(), "one_page": contended
        })
    };
    let stood = |s: &Stood| json!({"count": s.count, "vm_bytes": s.vm_bytes, "process_bytes": s.process_bytes});
    let memory = |memory: &Memory| {
        let (vm, process) = memory.each();
        json!({
            "what": memory.what, "few": stood(&memory.few), "many": stood(&memory.many),
            "vm_bytes_each": vm, "process_bytes_each": process
        })
    };
    json!({
        "method": method(&scale.method),
        "seed": scale.seed,
        "growth": scale.growth.iter().map(growth).collect::<Vec<_>>(),
        "memory": scale.memory.iter().map(memory).collect::<Vec<_>>()
    })
}
