//! An Envoy to play with.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use tidegate_harness::demo::{EnvoyYaml, free_or_any};
use tidegate_harness::envoy::Envoy;
use tidegate_harness::upstream::Upstream;

use super::{stop, upstream};

/// Run Envoy with envoy/envoy.yaml in front of a sample upstream, until Ctrl-C.
///
/// It listens where the file says; where a port is taken, on another, which is printed.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// Envoy's worker threads
    #[arg(long, default_value_t = 2)]
    workers: u32,
}

pub(super) async fn run(arguments: Arguments) -> Result<ExitCode> {
    tokio::select! {
        ended = keep(arguments) => ended,
        // Dropping the run ends its Envoy. To be stopped is how it is meant to end.
        asked = stop::asked_to() => asked.map(|_| ExitCode::SUCCESS),
    }
}

async fn keep(arguments: Arguments) -> Result<ExitCode> {
    let mut yaml = EnvoyYaml::read()?;
    take_free(yaml.listener()?, "listener");
    take_free(yaml.admin()?, "admin interface");
    let port = &mut yaml.upstream()?["port_value"];
    take_free(port, "upstream");
    let port = port.as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(0);
    let upstream = upstream::start(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), None).await?;
    yaml.forward_to(upstream.address())?;
    let mut envoy = yaml.builder().concurrency(arguments.workers).start().await?;
    print!("{}", guide(&envoy, &upstream));
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        if let Some(status) = envoy.exited()? {
            eprintln!("Envoy ended: {status}");
            return Ok(ExitCode::FAILURE);
        }
    }
}

/// Asks for any port where this one is taken.
fn take_free(port: &mut Value, what: &str) {
    let wanted = port.as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(0);
    if free_or_any(wanted) == 0 {
        println!("Port {wanted} is taken: the {what} gets another.");
        *port = json!(0);
    }
}

fn guide(envoy: &Envoy, upstream: &Upstream) -> String {
    let (proxy, admin, upstream) = (envoy.listener(), envoy.admin(), upstream.address());
    let log = envoy.log_file();
    let log = log.display();
    format!(
        r#"
Envoy listens on http://{proxy}, its admin interface on http://{admin}, the sample upstream on {upstream}.
The policy is the one in envoy/envoy.yaml: 100 requests a second and client address, bursts of 200; a breaker for 5 s when
half of the calls fail; at most 200 in flight. Access log: tail -f {log}

A request that is admitted: 200, and what is left of the client's budget in the header ratelimit.
  curl -i http://{proxy}/

The upstream begins to fail: about 20 times its own 503, and then 503 by Tidegate, with x-tidegate-reason: circuit_open.
  curl http://{upstream}/-/fail
  curl -sD - -o /dev/null 'http://{proxy}/?n=[1-100]' | grep -iE '^(http|x-tidegate)' | sort | uniq -c

The state of the breaker: 0 closed, 1 open, 2 half-open. Now 1.
  curl -s http://{admin}/stats/prometheus | grep '^tidegate_circuit_breaker_state'

The upstream is well again: after its 5 s the breaker admits 5 probes and closes. 20 times 200, and 0.
  curl http://{upstream}/-/recover
  sleep 6; curl -s -o /dev/null -w '%{{http_code}}\n' 'http://{proxy}/?n=[1-20]' | sort | uniq -c
  curl -s http://{admin}/stats/prometheus | grep '^tidegate_circuit_breaker_state'

A client that is too fast: 200 for its burst of 200 and a few more, then 429 with retry-after.
  curl -s -o /dev/null -w '%{{http_code}}\n' 'http://{proxy}/?n=[1-1000]' | sort | uniq -c
  curl -si 'http://{proxy}/?n=[1-400]' | tail -n 12

What Tidegate counted: tidegate_requests_total by decision, and the rest. Or open http://{admin}/stats/prometheus
  curl -s 'http://{admin}/stats/prometheus?filter=tidegate_' | grep '^tidegate_'

Ctrl-C ends all of it.
"#
    )
}
