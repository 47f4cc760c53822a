//! Bounds on a request's body: by its length if it says that, else by counting what passes.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tidegate_harness::client::{self, Call, Connection, Response};
use tidegate_harness::envoy::{Cluster, Envoy, Listener};
use tidegate_harness::upstream::{Behaviour, Upstream};
use tidegate_harness::{Gate, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Rig, SOON};
use crate::{fixed, listener, with_1_2_and_4_workers};

with_1_2_and_4_workers!(
    a_body_may_have_as_many_bytes_as_its_bound_and_not_one_more,
    what_a_body_beyond_its_bound_held_is_free_again,
    an_answer_that_has_begun_is_cut_off_and_nothing_is_sent_twice,
);

const MOST: usize = 100_000;

fn bounded() -> Value {
    json!({"policies": [{
        "name": "p",
        "request_limits": {"max_body_bytes": MOST},
        "load_shedding": {"limit": fixed(100)}
    }]})
}

/// A body without a length, in chunks of this size.
fn chunked(bytes: usize, size: usize) -> Vec<Step> {
    let mut steps: Vec<_> = (0..bytes / size).map(|_| Step::Data(vec![b'x'; size].into())).collect();
    steps.push(Step::Data(vec![b'x'; bytes % size].into()));
    // Without it one chunk would be a whole body, with a length.
    steps.push(Step::Pause(Duration::ZERO));
    steps
}

async fn rig(workers: u32) -> Rig {
    let main = listener("main", &bounded()).access_log("%RESPONSE_CODE% %FILTER_STATE(wasm.tidegate:PLAIN)%");
    let rig = Rig::with(workers, [main, Listener::new("control")]).await;
    rig.upstream.always(Behaviour::echo());
    rig
}

fn assert_too_long(response: &Response) {
    assert_eq!(response.status, 413, "{response:?}");
    assert_eq!(response.header("x-tidegate-reason"), Some("invalid_request;policy=p"));
    let body: Value = serde_json::from_slice(&response.body).unwrap();
    let expected = json!({"type": "about:blank", "title": "Request body too large", "status": 413, "policy": "p"});
    assert_eq!(body, expected);
}

async fn a_body_may_have_as_many_bytes_as_its_bound_and_not_one_more(workers: u32) {
    let rig = rig(workers).await;
    let mut rejected = 0;
    for http2 in [false, true] {
        let call = || if http2 { Call::new("POST", "/").http2() } else { Call::new("POST", "/") };
        // With its length: nothing of what is too long reaches the upstream.
        let good = client::send(rig.main(), call().body(vec![b'x'; MOST])).await.unwrap();
        assert_eq!((good.status, good.body.len()), (200, MOST));
        let before = rig.upstream.total();
        assert_too_long(&client::send(rig.main(), call().body(vec![b'x'; MOST + 1])).await.unwrap());
        assert_eq!(rig.upstream.total(), before);
        rejected += 1;
        // Without.
        for size in [1000, 16_384, MOST] {
            let good = client::send(rig.main(), call().body_steps(chunked(MOST, size))).await.unwrap();
            assert_eq!((good.status, good.body.len()), (200, MOST), "{size}");
            assert_too_long(&client::send(rig.main(), call().body_steps(chunked(MOST + 1, size))).await.unwrap());
            rejected += 1;
            // The control: Envoy lets it pass.
            let passed = client::send(rig.control(), call().body_steps(chunked(MOST + 1, size))).await.unwrap();
            assert_eq!((passed.status, passed.body.len()), (200, MOST + 1));
        }
    }
    rig.wait_for_decisions("p", "invalid_request", rejected).await;
    rig.wait_for_idle("p").await;
    assert!(rig.upstream.seen().iter().filter(|seen| seen.cancelled()).count() <= 6, "those that were counted");
    let lines = rig.envoy.wait_for_access_log("main", 2 * rejected as usize, SOON).await.unwrap();
    assert_eq!(lines.iter().filter(|line| *line == "413 invalid_request;policy=p").count(), rejected as usize);
    assert_eq!(lines.iter().filter(|line| *line == "200 admitted").count(), rejected as usize);
    let stats = rig.envoy.stats().await.unwrap();
    assert_eq!(stats.count("tidegate_errors_total", &[]), 0.0, "{}", stats.only("tidegate_"));
}

async fn what_a_body_beyond_its_bound_held_is_free_again(workers: u32) {
    let one = json!({"policies": [{
        "name": "p",
        "request_limits": {"max_body_bytes": MOST},
        "rate_limits": [{"name": "r", "rate": "1000/h"}],
        "circuit_breaker": {"minimum_calls": 1},
        "load_shedding": {"limit": fixed(1), "queue": {"max_wait": "20s", "order": "fifo"}}
    }]});
    let rig = Rig::with(workers, [listener("main", &one)]).await;
    let gate = Gate::new();
    rig.upstream.enqueue([Behaviour::respond(200).hold(&gate)]);
    // The only place is held by one who sends on and on; the second, as long, waits for it and is read when it goes on.
    let (half, last) = (Gate::new(), Gate::new());
    let slowly = vec![
        Step::Data(vec![b'x'; MOST].into()),
        Step::Hold(half.clone()),
        Step::Data(Bytes::from_static(b"x")),
        Step::Hold(last.clone()),
    ];
    let at = rig.main();
    let first = tokio::spawn(client::send(at, Call::new("POST", "/").body_steps(slowly)));
    rig.wait_for_stat("tidegate_inflight", &[("policy", "p")], 1).await;
    let second = tokio::spawn(client::send(at, Call::new("POST", "/").body_steps(chunked(MOST + 1, 10_000))));
    let third = tokio::spawn(client::send(at, Call::get("/")));
    rig.wait_for_stat("tidegate_queue_length", &[("policy", "p")], 2).await;
    half.open();
    assert_too_long(&first.await.unwrap().unwrap());
    assert_too_long(&second.await.unwrap().unwrap());
    assert_eq!(third.await.unwrap().unwrap().status, 200);
    rig.wait_for_idle("p").await;
    assert_eq!(rig.decisions("p", "invalid_request").await, 2);
    assert_eq!(rig.decisions("p", "circuit_open").await, 0, "who was cut off says nothing of the upstream");
    last.open();
    gate.open();
}

async fn an_answer_that_has_begun_is_cut_off_and_nothing_is_sent_twice(workers: u32) {
    let rig = rig(workers).await;
    for (number, http2) in [(1, false), (2, true)] {
        let (begun, more, never) = (Gate::new(), Gate::new(), Gate::new());
        let answer = vec![
            Step::Data(Bytes::from_static(b"begun")),
            Step::Hold(more.clone()),
            Step::Data(Bytes::from_static(b"more")),
            Step::Hold(never.clone()),
        ];
        rig.upstream.always(Behaviour::respond(200).early().steps(answer));
        let sends = |beyond: usize| {
            let steps = vec![
                Step::Data(vec![b'x'; MOST].into()),
                Step::Hold(begun.clone()),
                Step::Data(vec![b'x'; beyond].into()),
                Step::Hold(never.clone()),
            ];
            let call = Call::new("POST", "/").body_steps(steps);
            if http2 { call.http2() } else { call }
        };
        let mut connection = Connection::open(rig.main(), http2).await.unwrap();
        let response = connection.start(sends(1)).await.unwrap();
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(&first[..], b"begun");
        begun.open();
        // It breaks off: neither another byte nor a good end.
        match tokio::time::timeout(SOON, body.frame()).await.unwrap() {
            Some(Err(_)) => {}
            other => panic!("{other:?}"),
        }
        rig.wait_for_decisions("p", "invalid_request", number).await;
        rig.wait_for_idle("p").await;
        // The control: within its bound it goes on.
        let mut connection = Connection::open(rig.main(), http2).await.unwrap();
        let mut body = connection.start(sends(0)).await.unwrap().into_body();
        assert_eq!(&body.frame().await.unwrap().unwrap().into_data().unwrap()[..], b"begun");
        more.open();
        assert_eq!(&body.frame().await.unwrap().unwrap().into_data().unwrap()[..], b"more");
        // Over HTTP/2 its own body, which goes on, keeps the stream open.
        drop((connection, body));
        never.open();
        rig.wait_for_idle("p").await;
        assert_eq!(rig.decisions("p", "invalid_request").await, number as usize);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grpc_stream_is_told_in_its_own_way() {
    let _machine = crate::MACHINE.read().await;
    let upstream = Upstream::start().await.unwrap();
    let cluster = Cluster::new("upstream", upstream.address()).http2();
    let envoy = Envoy::builder().concurrency(2).cluster(cluster).listener(listener("main", &bounded()));
    let rig = Rig { upstream, envoy: envoy.start().await.unwrap() };
    rig.upstream.always(Behaviour::grpc(0, b"pong"));
    let call = |bytes: usize| Call::grpc("/s/m", b"ping").body_steps(chunked(bytes, 10_000));
    let good = client::send(rig.main(), call(MOST)).await.unwrap();
    assert_eq!((good.status, good.grpc_status()), (200, Some(0)));
    let cut = client::send(rig.main(), call(MOST + 1)).await.unwrap();
    assert_eq!((cut.status, cut.grpc_status()), (200, Some(14)), "{cut:?}");
    rig.wait_for_decisions("p", "invalid_request", 1).await;
    rig.wait_for_idle("p").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_through_a_tunnel_is_no_body() {
    let _machine = crate::MACHINE.read().await;
    let rig = Rig::with(2, [listener("main", &bounded()).upgrade("websocket")]).await;
    rig.upstream.always(Behaviour::upgrade());
    let mut stream = TcpStream::connect(rig.main()).await.unwrap();
    let head = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    let (mut reads, mut writes) = stream.into_split();
    let sent = tokio::spawn(async move { writes.write_all(&vec![b'x'; 3 * MOST]).await.map(|()| writes) });
    let mut back = vec![0; 3 * MOST];
    reads.read_exact(&mut back).await.unwrap();
    drop(sent.await.unwrap().unwrap());
    assert_eq!(rig.decisions("p", "invalid_request").await, 0);
    // The control: before the tunnel is there it is one.
    let long = [&head[..], &[b'x'; 3 * MOST]].concat();
    rig.upstream.always(Behaviour::never());
    let _ = client::raw(rig.main(), &long, Duration::from_secs(2)).await;
    rig.wait_for_decisions("p", "invalid_request", 1).await;
}
