//! One page that needs nothing but itself.

use super::html::escape;
use super::model::{Act, Comparison, Report};
use super::svg::{self, Axes};
use super::table::{COLUMNS, pairs};

const STYLE: &str = include_str!("page.css");

/// The series and what they are called, by the variable of the style sheet that holds their colour.
const KEY: [(&str, &str); 6] = [
    ("served", "served"),
    ("greedy", "served, greedy client"),
    ("rate", "rejected: rate limited"),
    ("open", "rejected: circuit open"),
    ("shed", "rejected: overloaded"),
    ("failed", "errors and timeouts"),
];

/// The page.
pub fn html(report: &Report) -> String {
    let acts: String = report.acts.iter().zip(1..).map(|(act, number)| section(act, number)).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Tidegate, with and without</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header>\n<h1>The same traffic, without Tidegate and with it</h1>\n\
         <p class=\"lead\">An Envoy in front of an upstream that serves 500 requests a second, in four acts. Each was played \
         twice, with the same requests at the same moments: through Envoy alone, and through Envoy with the Tidegate filter \
         and <a href=\"#policy\">one policy</a> for all acts.</p>\n{}{}</header>\n\
         <main>\n{acts}{}{}{}</main>\n</body>\n</html>\n",
        warning(&report.missing),
        key(),
        table(&report.acts),
        policy(&report.policy),
        method(&report.method)
    )
}

fn warning(missing: &[String]) -> String {
    if missing.is_empty() {
        return String::new();
    }
    let items: String = missing.iter().map(|one| format!("<li>{}</li>", escape(one))).collect();
    format!("<div class=\"warning\"><p>This run did not show what it should:</p><ul>{items}</ul></div>\n")
}

fn key() -> String {
    let swatch =
        |(class, name): (&str, &str)| format!("<li><i style=\"background:var(--{class})\"></i>{}</li>", escape(name));
    let series: String = KEY.map(swatch).concat();
    format!(
        "<p class=\"muted\">The upper charts show every request at the moment it was meant to leave, coloured by what became \
         of it; the line on top is the load that was offered. The lower ones show the latency of those that were served. \
         Everything is taken together over 250 ms.</p>\n\
         <ul class=\"key\" aria-label=\"Colours\">{series}<li><i class=\"stroke\"></i>offered load</li></ul>\n"
    )
}

fn section(act: &Act, number: usize) -> String {
    let axes = Axes::of(act);
    let figure = |run, name: &str| {
        let title = format!("{}, {name}", act.title);
        let drawing = svg::performance(
            act,
            run,
            &axes,
            &format!("a{number}-{}", if name.starts_with("with ") { "on" } else { "off" }),
            &title,
        );
        format!("<figure><figcaption>{}</figcaption>{drawing}</figure>\n", capitalised(name))
    };
    let figures: String = act.comparisons.iter().map(comparison).collect();
    format!(
        "<section aria-labelledby=\"a{number}\">\n<h2 id=\"a{number}\">{number}. {}</h2>\n<p class=\"muted\">{}</p>\n\
         <p class=\"claim\">{}</p>\n<dl class=\"figures\">{figures}</dl>\n\
         <div class=\"pair\">{}{}</div>\n</section>\n",
        escape(&act.title),
        escape(&act.story),
        escape(&act.claim),
        figure(&act.without, "without Tidegate"),
        figure(&act.with, "with Tidegate")
    )
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn comparison(Comparison { label, without, with }: &Comparison) -> String {
    let [label, without, with] = [label, without, with].map(|text| escape(text));
    format!(
        "<div><dt>{label}</dt><dd><span class=\"from\" title=\"without Tidegate\">{without}</span>\
         <span class=\"arrow\" aria-label=\"without Tidegate, with it:\">→</span>\
         <span title=\"with Tidegate\">{with}</span></dd></div>"
    )
}

fn table(acts: &[Act]) -> String {
    let head: String = COLUMNS.map(|name| format!("<th scope=\"col\">{name}</th>")).concat();
    let row = |class: &str, name: &str, cells: &[String; 9]| {
        let cells: String = cells.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect();
        format!("<tr class=\"{class}\"><th scope=\"row\">{name}</th>{cells}</tr>")
    };
    let groups = pairs(acts).into_iter().map(|pair| {
        format!(
            "<tbody><tr><th scope=\"rowgroup\" colspan=\"10\">{}</th></tr>{}{}</tbody>\n",
            escape(&pair.label),
            row("without", "without", &pair.without),
            row("with", "with Tidegate", &pair.with)
        )
    });
    let groups: String = groups.collect();
    format!(
        "<section aria-labelledby=\"table\">\n<h2 id=\"table\">All figures</h2>\n\
         <p class=\"muted\">Over each whole act. Latencies are those of the served requests, goodput is served requests per \
         second; errors are answers other than 2xx, and requests without an answer within a second.</p>\n\
         <div class=\"scroll\" role=\"region\" aria-labelledby=\"table\" tabindex=\"0\"><table><thead><tr><th scope=\"col\"></th>\
         {head}</tr></thead>\n{groups}</table></div>\n</section>\n"
    )
}

fn policy(text: &str) -> String {
    format!(
        "<section aria-labelledby=\"policy\">\n<h2 id=\"policy\">The policy</h2>\n\
         <p class=\"muted\">Each client, told apart by <code>x-api-key</code>, may send 40 requests a second. The breaker looks \
         at the calls of the last second. At most 40 requests are in flight.</p>\n<pre>{}</pre>\n</section>\n",
        escape(text.trim_end())
    )
}

fn method(rows: &[(String, String)]) -> String {
    let rows: String =
        rows.iter().map(|(name, value)| format!("<dt>{}</dt><dd>{}</dd>", escape(name), escape(value))).collect();
    format!(
        "<section aria-labelledby=\"how\">\n<h2 id=\"how\">How it was measured</h2>\n<dl class=\"method\">{rows}</dl>\n</section>\n"
    )
}
