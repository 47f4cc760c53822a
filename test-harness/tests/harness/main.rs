//! The harness tested against itself: a real Envoy, without Tidegate in it.

mod clients;
mod processes;
mod upstreams;

use std::time::Duration;

use tidegate_harness::envoy::{Cluster, Envoy, Listener};
use tidegate_harness::upstream::Upstream;

/// How long a condition may take to come true on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// An Envoy without filters in front of this upstream.
async fn plain(upstream: &Upstream) -> Envoy {
    let builder = Envoy::builder().cluster(Cluster::new("upstream", upstream.address()));
    builder.listener(Listener::new("main")).start().await.unwrap()
}

/// The same, over HTTP/2 to the upstream.
async fn plain_http2(upstream: &Upstream) -> Envoy {
    let builder = Envoy::builder().cluster(Cluster::new("upstream", upstream.address()).http2());
    builder.listener(Listener::new("main")).start().await.unwrap()
}
