//! A sample upstream: a server of limited capacity that can be made to fail.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use tidegate_harness::upstream::{Asked, Behaviour, Model, Upstream};

use super::{parse, stop};

/// Run a sample upstream (HTTP/1.1, and HTTP/2 with prior knowledge).
///
/// /status/<code> answers with that status, /delay/<ms> after that time, /echo with the request's body, anything else with 200.
/// /-/fail makes every answer a 503 until /-/recover; /-/stats tells how many requests came. A request may also ask for its own
/// answer: x-upstream-status: 503, x-upstream-delay-ms: 20, x-upstream-fault: reset|reset-in-body|never|close|echo|upgrade.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8080")]
    address: SocketAddr,
    /// How many requests are served at a time; the others queue. 0: all of them
    #[arg(long, default_value_t = 0)]
    slots: usize,
    /// How long one request is served
    #[arg(long, default_value = "10ms", value_parser = parse::duration)]
    service_time: Duration,
}

pub(super) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let model = (arguments.slots > 0).then(|| Model::new(arguments.slots, arguments.service_time));
    let upstream = start(arguments.address, model).await?;
    println!("listening on {}", upstream.address());
    stop::asked_to().await?;
    Ok(ExitCode::SUCCESS)
}

/// Starts the sample upstream.
pub(super) async fn start(address: SocketAddr, model: Option<Model>) -> Result<Arc<Upstream>> {
    let upstream = Arc::new(Upstream::start_at(address, false).await?);
    upstream.model(model);
    let failing = AtomicBool::new(false);
    // Weak: the upstream owns its script.
    let counters = Arc::downgrade(&upstream);
    upstream.script(move |asked| {
        let count = || counters.upgrade().map_or((0, 0), |upstream| (upstream.total(), upstream.concurrent()));
        answer(asked, &failing, count)
    });
    Ok(upstream)
}

fn answer(asked: &Asked<'_>, failing: &AtomicBool, count: impl Fn() -> (usize, usize)) -> Behaviour {
    let path = asked.path.split('?').next().unwrap_or_default();
    let control = |text: String| Behaviour::respond(200).body(text).outside_model();
    match path {
        "/-/fail" | "/-/recover" => {
            failing.store(path == "/-/fail", Ordering::Relaxed);
            return control("ok\n".into());
        }
        "/-/stats" => {
            let (total, concurrent) = count();
            return control(format!("{{\"requests\": {total}, \"concurrent\": {concurrent}}}\n"));
        }
        _ => {}
    }
    if failing.load(Ordering::Relaxed) {
        return Behaviour::respond(503).body("failing\n");
    }
    let wrong = || Behaviour::respond(400).body("expected /status/<200 to 599> or /delay/<ms>\n");
    if let Some(status) = path.strip_prefix("/status/") {
        let status = status.parse().ok().filter(|status| (200..=599).contains(status));
        return status.map_or_else(wrong, Behaviour::respond);
    }
    if let Some(time) = path.strip_prefix("/delay/") {
        let time = time.parse().ok().map(Duration::from_millis);
        return time.map_or_else(wrong, |time| Behaviour::default().delay(time));
    }
    if path == "/echo" { Behaviour::echo() } else { Behaviour::default() }
}
