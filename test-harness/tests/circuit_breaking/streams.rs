//! Streams and tunnels: answered is what has good headers, and what ends a tunnel says nothing.

use std::time::Duration;

use tidegate_harness::client::{Call, Cancel, Connection};
use tidegate_harness::upstream::Behaviour;
use tidegate_harness::{Gate, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Rig, SOON, main_listener, until};
use crate::{CLOSED, HALF_OPEN, OPEN, breaker, config, transitions, trip};

const WEBSOCKET: &[u8] =
    b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nx-upstream-fault: upgrade\r\n\r\n";

/// Opens a websocket; none while it is refused.
async fn websocket(rig: &Rig) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(rig.main()).await.unwrap();
    stream.write_all(WEBSOCKET).await.unwrap();
    let mut head = [0; 12];
    tokio::time::timeout(SOON, stream.read_exact(&mut head)).await.expect("nothing comes").unwrap();
    head.ends_with(b"101").then_some(stream)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_that_stands_is_a_probe_answered_well() {
    let rig = Rig::with(2, [main_listener(&config(&breaker("0.5s", 2, "60s"))).upgrade("websocket")]).await;
    trip(&rig).await;
    let mut tunnels = Vec::new();
    until(async || {
        tunnels.extend(websocket(&rig).await);
        match tunnels.len() {
            2 => Ok(()),
            open => Err(format!("{open} tunnels")),
        }
    })
    .await;
    // Both stand, and will for long: the breaker does not wait for their end.
    rig.wait_for_breaker("upstreams", "upstream", CLOSED).await;
    while tunnels.len() < 20 {
        tunnels.push(websocket(&rig).await.expect("closed"));
    }
    rig.wait_for_stat("tidegate_inflight", &[("policy", "upstreams")], 20).await;
    drop(tunnels);
    rig.wait_for_idle("upstreams").await;
    assert_eq!(transitions(&rig.envoy, "open").await, 1, "the end of twenty tunnels trips nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_outlives_the_probes_timeout_closes_and_one_that_breaks_off_before_does_not() {
    let rig = crate::guarded(2, &breaker("0.5s", 1, "2s")).await;
    trip(&rig).await;
    let endless = Gate::new();
    let stream = Behaviour::respond(200).steps(vec![Step::Data("event".into()), Step::Hold(endless.clone())]);
    rig.upstream.always(Behaviour::reset_in_body("event"));
    until(async || {
        // A probe has no whole answer; others are rejected.
        let _ = tidegate_harness::client::get(rig.main(), "/").await;
        match rig.upstream.total() {
            10 => Err("no probe yet"),
            _ => Ok(()),
        }
    })
    .await;
    crate::wait_for_transitions(&rig, "open", 2).await;
    rig.upstream.always(stream);
    let client = tokio::spawn({
        let at = rig.main();
        async move {
            loop {
                let mut connection = Connection::open(at, false).await.unwrap();
                let response = connection.start(Call::get("/")).await.unwrap();
                if response.status() == 200 {
                    return (connection, response);
                }
            }
        }
    });
    let held = client.await.unwrap();
    rig.wait_for_breaker("upstreams", "upstream", HALF_OPEN).await;
    // Nothing more comes of it and nobody asks: when its time is over it counts as good.
    rig.wait_for_breaker("upstreams", "upstream", CLOSED).await;
    drop(held);
    rig.wait_for_idle("upstreams").await;
    assert_eq!(transitions(&rig.envoy, "open").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_a_stream_does_not_count_and_a_good_answer_of_another_filter_neither() {
    let fault = serde_json::json!({
        "name": "envoy.filters.http.fault",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
            "abort": {"header_abort": {}, "percentage": {"numerator": 100, "denominator": "HUNDRED"}}
        }
    });
    let rig = Rig::with(2, [main_listener(&config(&breaker("60s", 2, "60s"))).filter(fault)]).await;
    rig.upstream.always(Behaviour::respond(200).slow_body(1000, 10, Duration::from_millis(10)));
    for _ in 0..10 {
        let leaving = Call::get("/").cancel(Cancel::InBody(20));
        Connection::open(rig.main(), false).await.unwrap().run(leaving).await.unwrap();
        let local = Call::get("/").header("x-envoy-fault-abort-request", "200");
        assert_eq!(tidegate_harness::client::send(rig.main(), local).await.unwrap().status, 200);
    }
    rig.wait_for_idle("upstreams").await;
    // Were they successes, ten failures would be but a third.
    trip(&rig).await;
    rig.wait_for_breaker("upstreams", "upstream", OPEN).await;
}
