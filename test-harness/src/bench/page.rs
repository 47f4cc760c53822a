//! The page: a chart of what each variant adds, the budgets, and the tables.

use super::budgets::{Budget, Verdict};
use super::output::{self, Table};
use super::results::{Added, Results};
use crate::report::html::escape;
use crate::report::page::{method, shell};
use crate::report::svg::{Scale, line, number, rectangle, text, ticks};

const WIDTH: f64 = 900.0;
const LEFT: f64 = 270.0;
const RIGHT: f64 = WIDTH - 70.0;
const TOP: f64 = 24.0;
const ROW: f64 = 28.0;
const BAR: f64 = 16.0;

/// The page.
pub fn html(results: &Results) -> String {
    let header = format!(
        "<h1>What Tidegate adds to a request</h1>\n\
         <p class=\"lead\">Processor time of Envoy's worker thread per request, beyond the {:.1} µs of a request without any \
         filter. Every variant has a listener of its own in one Envoy; all get their requests in bursts, in an order that is \
         drawn anew in each round, and each burst is held against the one without a filter in the same round.</p>\n",
        results.base.median
    );
    let budgets: String = results.budgets.iter().map(budget).collect();
    let main = format!(
        "{}{}{}{}{}{}",
        section(
            "added",
            "Added time",
            "Bars are medians over all rounds. The thick lines are where 90 of 100 resamplings of the rounds put the median, \
             the thin ones span the middle half of the rounds.",
            &format!(
                "<figure>{}</figure>{}",
                chart(&results.added, results.seed),
                table("added", &output::added(results))
            )
        ),
        section(
            "budgets",
            "Budgets",
            "Within this run. Ratios have the range in which 90 of 100 resamplings of its rounds put them.",
            &format!("<ul class=\"budgets\">{budgets}</ul>")
        ),
        section(
            "rates",
            "At fixed rates",
            "Requests leave when they are due, whether or not earlier ones have been answered; latency counts from then. \
             Variants take turns. A worker near 100 % busy is beyond what it can carry: latencies then tell of the queue.",
            &table("rates", &output::at_rates(results))
        ),
        section(
            "inside",
            "Inside the plugin",
            "A build of Tidegate that times itself, with all three controls. What timing costs is taken off; what it costs \
             the proxy to call into the VM and to come back is not in here.",
            &format!(
                "{}{}<p class=\"muted\">{}</p>",
                table("inside", &output::callbacks(results)),
                table("inside", &output::calls(results)),
                output::counted(results)
            )
        ),
        section(
            "calls",
            "Calls to the host in a loop",
            "Timed inside a VM that does nothing else, so with warm caches. What returns bytes calls back into the VM for \
             room to put them: that the shared data of 16 bytes costs more than that of none is such a crossing.",
            &table("calls", &output::host_calls(results))
        ),
        method(&results.method)
    );
    shell("What Tidegate adds to a request", &header, &main)
}

fn section(id: &str, title: &str, note: &str, body: &str) -> String {
    format!(
        "<section aria-labelledby=\"{id}\">\n<h2 id=\"{id}\">{title}</h2>\n<p class=\"muted\">{note}</p>\n{body}\n</section>\n"
    )
}

fn budget(budget: &Budget) -> String {
    let class = match budget.verdict() {
        Verdict::Kept => "kept",
        Verdict::Missed => "missed",
        Verdict::Unclear => "unclear",
    };
    format!(
        "<li class=\"{class}\"><strong>{}</strong> {} <span class=\"muted\">{}</span></li>",
        budget.verdict().text(),
        escape(budget.claim),
        escape(&budget.measured_text())
    )
}

fn table<const N: usize>(id: &str, table: &Table<N>) -> String {
    let head = table.columns.map(|name| format!("<th scope=\"col\">{}</th>", escape(name))).concat();
    let row = |(name, cells): &(String, [String; N])| {
        let cells: String =
            cells.iter().map(|cell| format!("<td>{}</td>", escape(&cell.replace(" us", " µs")))).collect();
        format!("<tr><th scope=\"row\">{}</th>{cells}</tr>\n", escape(name))
    };
    let rows: String = table.rows.iter().map(row).collect();
    format!(
        "<div class=\"scroll\" role=\"region\" aria-labelledby=\"{id}\" tabindex=\"0\"><table><thead><tr>\
         <th scope=\"col\"></th>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>"
    )
}

fn chart(all: &[Added], seed: u64) -> String {
    let rows: Vec<_> = all.iter().skip(1).map(|added| (added.title, added.spread(), added.range(seed))).collect();
    let most = rows.iter().map(|(_, spread, range)| spread.upper.max(range.high)).fold(0.0, f64::max);
    let ticks = ticks(most, 6);
    let x = Scale::linear((0.0, ticks.last().copied().unwrap_or(1.0)), (LEFT, RIGHT));
    let bottom = TOP + ROW * rows.len() as f64;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-labelledby=\"chart-t chart-d\"><title id=\"chart-t\">Added time</title>\
         <desc id=\"chart-d\">The same figures as in the table below.</desc>",
        bottom + 8.0
    );
    for tick in ticks {
        let label = format!("{} µs", number(tick));
        svg.push_str(&line("grid", (x.at(tick), TOP - 6.0), (x.at(tick), bottom)));
        svg.push_str(&text("middle muted", x.at(tick), TOP - 12.0, &label));
    }
    for ((title, spread, range), row) in rows.iter().zip(0u32..) {
        let middle = TOP + ROW * (f64::from(row) + 0.5);
        let class = if title.starts_with("Tidegate") { "area served" } else { "area other" };
        let bar = (middle - BAR / 2.0, middle + BAR / 2.0);
        svg.push_str(&text("end", LEFT - 10.0, middle + 4.0, title));
        svg.push_str(&rectangle(class, (LEFT, x.at(spread.median)), bar));
        svg.push_str(&line("spread", (x.at(spread.lower), middle), (x.at(spread.upper), middle)));
        svg.push_str(&line("range", (x.at(range.low), middle), (x.at(range.high), middle)));
        svg.push_str(&text(
            "value",
            x.at(spread.upper.max(range.high)) + 8.0,
            middle + 4.0,
            &format!("{:.2}", spread.median),
        ));
    }
    svg.push_str("</svg>");
    svg
}
