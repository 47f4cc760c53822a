//! What the project says of itself is true: its arrows, its table of stats, the paths its documents name.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use tidegate::engine::stats::{self, Kind};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The project's documents.
fn documents() -> Vec<PathBuf> {
    let mut documents = files("docs", "md");
    documents.extend(["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root().join(name)));
    documents
}

#[test]
fn arrows_run_one_way() {
    // Each folder, and the folders it may name.
    let allowed: &[(&str, &[&str])] = &[
        ("config", &[]),
        ("share", &[]),
        ("matching", &["config"]),
        ("control", &["share"]),
        ("engine", &["config", "matching", "control", "share"]),
        ("host", &["config", "matching", "control", "share", "engine"]),
    ];
    for (folder, may_name) in allowed {
        for file in files(&format!("src/{folder}"), "rs") {
            for (number, line) in read(&file).lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                for (other, _) in allowed {
                    let named = code.contains(&format!("crate::{other}"));
                    assert!(
                        !named || other == folder || may_name.contains(other),
                        "{}:{}: {folder} must not name {other}",
                        file.display(),
                        number + 1
                    );
                }
            }
        }
    }
}

#[test]
fn only_the_host_is_unsafe_or_speaks_the_abi_and_only_it_reads_a_clock() {
    for file in files("src", "rs").into_iter().filter(|file| !file.starts_with(root().join("src/host"))) {
        let text = read(&file);
        for word in ["unsafe ", "extern \"C\"", "proxy_on_", "Instant::now", "SystemTime::now"] {
            assert!(!text.contains(word), "{}: {word}", file.display());
        }
    }
}

#[test]
fn files_stay_small_enough_to_be_one_idea() {
    for folder in ["src", "test-harness/src"] {
        for file in files(folder, "rs") {
            let lines = read(&file).lines().count();
            assert!(lines <= 450, "{}: {lines} lines", file.display());
        }
    }
}

#[test]
fn every_stat_is_documented_and_no_other() {
    let text = read(&root().join("docs/operations.md"));
    for stat in stats::ALL {
        let kind = match stat.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels = stat.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let row = format!("| `{}` | {kind} | {labels} | {} |", stat.name, stat.meaning);
        assert!(text.contains(&row), "docs/operations.md lacks the row\n{row}");
    }
    // The response code details of rejections are no stats.
    let details = ["rate_limited", "circuit_open", "overloaded", "queue_timeout", "invalid_request"];
    for word in text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
        if word.strip_prefix("tidegate_").is_some_and(|rest| !details.contains(&rest)) {
            assert!(
                stats::ALL.iter().any(|stat| stat.name == word),
                "docs/operations.md names the unknown stat {word}"
            );
        }
    }
}

#[test]
fn paths_named_in_documents_exist() {
    for document in documents() {
        let text = read(&document);
        let here = document.parent().unwrap_or(root());
        for path in text.split('`').skip(1).step_by(2).filter(|code| looks_like_a_path(code)) {
            assert!(root().join(path).exists(), "{}: `{path}` does not exist", document.display());
        }
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            let outside = link.contains("://") || link.is_empty();
            assert!(outside || here.join(link).exists(), "{}: the link {link} leads nowhere", document.display());
        }
    }
}

fn looks_like_a_path(code: &str) -> bool {
    let folders = ["src/", "tests/", "benches/", "fuzz/", "envoy/", "test-harness/", "docs/", "scripts/", ".ci/"];
    folders.iter().any(|folder| code.starts_with(folder)) && !code.contains([' ', '*', '<', '{'])
}

#[test]
fn the_version_is_in_the_changelog() {
    let changelog = read(&root().join("CHANGELOG.md"));
    let version = env!("CARGO_PKG_VERSION");
    assert!(changelog.contains("## [Unreleased]") || changelog.contains(&format!("## [{version}]")));
}
