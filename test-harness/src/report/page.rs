//! One page that needs nothing but itself.

use super::html::escape;
use super::model::{Act, Comparison, Report};
use super::series::INTERVAL;
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
    let header = format!(
        "<h1>The same traffic, without Tidegate and with it</h1>\n\
         <p class=\"lead\">{} Each act was played twice, with the same requests at the same moments: through Envoy alone, and \
         through Envoy with the Tidegate filter and <a href=\"#policy\">one policy</a> for all acts.</p>\n{}{}",
        escape(&report.setting),
        warning(&report.missing),
        key()
    );
    let main = format!("{acts}{}{}{}", table(&report.acts), policy(&report.policy), method(&report.method));
    shell("Tidegate, with and without", &header, &main)
}

/// A whole document around what stands at its head and what follows.
pub fn shell(title: &str, header: &str, main: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header>\n{header}</header>\n<main>\n{main}</main>\n</body>\n</html>\n"
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
         Everything is taken together over {} ms. The large figures read: without → with Tidegate.</p>\n\
         <ul class=\"key\" aria-label=\"Colours\">{series}<li><i class=\"stroke\"></i>offered load</li></ul>\n",
        INTERVAL * 1000.0
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
        unbroken(&escape(&act.claim)),
        figure(&act.without, "without Tidegate"),
        figure(&act.with, "with Tidegate")
    )
}

/// The same text with figures and their units kept on one line.
fn unbroken(text: &str) -> String {
    [" %", " ms", " s"].iter().fold(text.to_owned(), |text, unit| {
        let kept = unit.replace(' ', "\u{a0}");
        // A unit is followed by what ends a word.
        [" ", ".", ",", ";", ")"]
            .iter()
            .fold(text, |text, end| text.replace(&format!("{unit}{end}"), &format!("{kept}{end}")))
    })
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
         <p class=\"muted\">Over each whole act. Admitted are those that Tidegate did not reject. Latencies are those of the served requests, goodput is served requests per \
         second; errors are answers other than 2xx, and requests that got no answer in time.</p>\n\
         <div class=\"scroll\" role=\"region\" aria-labelledby=\"table\" tabindex=\"0\"><table><thead><tr><th scope=\"col\"></th>\
         {head}</tr></thead>\n{groups}</table></div>\n</section>\n"
    )
}

fn policy(text: &str) -> String {
    format!(
        "<section aria-labelledby=\"policy\">\n<h2 id=\"policy\">The policy</h2>\n\
         <p class=\"muted\">A rate limit for each client, a circuit breaker for the upstream, and a bound on what is in flight. All \
         four acts ran with it.</p>\n<pre>{}</pre>\n</section>\n",
        escape(text.trim_end())
    )
}

/// How it was measured: names and values.
pub fn method(rows: &[(String, String)]) -> String {
    let rows: String =
        rows.iter().map(|(name, value)| format!("<dt>{}</dt><dd>{}</dd>", escape(name), escape(value))).collect();
    format!(
        "<section aria-labelledby=\"how\">\n<h2 id=\"how\">How it was measured</h2>\n<dl class=\"method\">{rows}</dl>\n</section>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Performance;

    fn report() -> Report {
        let act = Act {
            title: "<script>alert(1)</script>".into(),
            story: "a & b".into(),
            seconds: 1.0,
            mark: None,
            greedy: true,
            shows_breaker: true,
            without: Performance::default(),
            with: Performance::default(),
            claim: "0 < 1".into(),
            comparisons: vec![Comparison { label: "x".into(), without: "<b>".into(), with: "\"".into() }],
        };
        let missing = vec!["<i>0".into()];
        let (setting, policy) = ("\"setting\"".into(), "{\"a\": \"<\"}".into());
        Report { setting, acts: vec![act], policy, missing, method: vec![("Seed".into(), "<1>".into())] }
    }

    #[test]
    fn nothing_that_is_reported_becomes_markup() {
        let page = html(&report());
        for raw in ["<script", "<b>", "<i>0", "<1>", "\"<\"", "0 < 1", "a & b"] {
            assert!(!page.contains(raw), "{raw} in {page}");
        }
    }

    #[test]
    fn the_page_needs_nothing_but_itself() {
        let page = html(&report());
        for outside in ["http:", "https:", "src=", "url(", "@import", "<link", "<script"] {
            assert!(!page.contains(outside), "{outside} in {page}");
        }
    }

    #[test]
    fn figures_and_units_stay_together() {
        assert_eq!(unbroken("0 % in 5 ms, not 1.2 s."), "0\u{a0}% in 5\u{a0}ms, not 1.2\u{a0}s.");
        assert_eq!(unbroken("a sample"), "a sample");
    }

    #[test]
    fn what_was_not_shown_is_said_on_the_page() {
        let mut report = report();
        report.missing = vec!["the breaker opens".into()];
        assert!(html(&report).contains("<li>the breaker opens</li>"));
        report.missing.clear();
        assert!(!html(&report).contains("class=\"warning\""));
    }
}
