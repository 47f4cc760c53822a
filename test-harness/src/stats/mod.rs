//! Envoy's stats as scraped, with names, labels and values.

mod parse;

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;

/// One line of a scrape.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The metric's name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value; counters and gauges are whole numbers below 2^53.
    pub value: f64,
}

/// One scrape.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    samples: Vec<Sample>,
}

impl Stats {
    /// Reads the Prometheus text format.
    ///
    /// # Errors
    /// A line is not in that format.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(Self { samples: parse::parse(text)? })
    }

    /// Every sample of this name whose labels include `labels`.
    pub fn samples<'a>(&'a self, name: &'a str, labels: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            sample.name == name
                && labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|found| found == value))
        })
    }

    /// Every sample.
    pub fn iter(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter()
    }

    /// The sum over every such sample; none when there is no such sample, which is not the same as 0.
    pub fn stat(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.samples(name, labels).map(|sample| sample.value).reduce(|sum, value| sum + value)
    }

    /// The same, 0 when there is none: Envoy lists a counter only once it was touched.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.stat(name, labels).unwrap_or(0.0)
    }

    /// How much the counters have grown since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let samples = self.samples.iter().cloned().map(|mut sample| {
            let old = before.samples.iter().find(|old| old.name == sample.name && old.labels == sample.labels);
            sample.value -= old.map_or(0.0, |old| old.value);
            sample
        });
        Self { samples: samples.collect() }
    }

    /// The samples whose name starts with `prefix`, for messages.
    #[must_use]
    pub fn only(&self, prefix: &str) -> Self {
        Self { samples: self.samples.iter().filter(|sample| sample.name.starts_with(prefix)).cloned().collect() }
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.samples.iter().try_for_each(|Sample { name, labels, value }| writeln!(f, "{name}{labels:?} {value}"))
    }
}
