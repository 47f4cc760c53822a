//! The Prometheus text format: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use super::Sample;

pub(super) fn parse(text: &str) -> Result<Vec<Sample>> {
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    lines.map(|line| sample(line).with_context(|| format!("not a Prometheus sample: {line}"))).collect()
}

fn sample(line: &str) -> Result<Sample> {
    let end = line.find(['{', ' ']).context("no value")?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    // A time stamp may follow the value.
    let value = rest.split_whitespace().next().context("no value")?;
    Ok(Sample { name: name.to_owned(), labels, value: value.parse()? })
}

/// Reads `a="1",b="2"}` and gives what follows the brace.
fn labels(mut rest: &str) -> Result<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(rest) = rest.strip_prefix('}') {
            return Ok((labels, rest));
        }
        let (name, after) = rest.split_once("=\"").context("a label without a value")?;
        let (value, after) = quoted(after)?;
        labels.insert(name.to_owned(), value);
        rest = after;
    }
}

/// Reads up to the closing quote, taking the escapes back.
fn quoted(text: &str) -> Result<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next().map(|(_, escaped)| escaped) {
                Some('n') => value.push('\n'),
                Some(escaped @ ('"' | '\\')) => value.push(escaped),
                other => bail!("unknown escape {other:?}"),
            },
            c => value.push(c),
        }
    }
    bail!("a label's value does not end")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_labels_and_values_are_read() {
        let text = "# TYPE a counter\na{x=\"1\",y=\"q\\\"\\\\}, \\n\"} 3\n\nb 2.5 1700000000\nc_sum{} 4\n";
        let samples = parse(text).unwrap();
        let found: Vec<_> = samples.iter().map(|s| (s.name.as_str(), s.value, s.labels.len())).collect();
        assert_eq!(found, [("a", 3.0, 2), ("b", 2.5, 0), ("c_sum", 4.0, 0)]);
        assert_eq!(samples[0].labels["y"], "q\"\\}, \n");
    }

    #[test]
    fn what_is_not_a_sample_is_an_error() {
        for line in ["a", "a x", "a{b} 1", "a{b=\"1\" 1", "a{b=\"1", "a{b=\"\\x\"} 1"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
