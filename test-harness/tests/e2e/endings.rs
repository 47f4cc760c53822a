//! However a request ends, what it held comes back: nothing is in flight when traffic stops.

use std::net::SocketAddr;
use std::time::Duration;

use rand::RngExt;
use serde_json::{Value, json};
use tidegate_harness::client::{self, Call, Cancel, Load, Schedule};
use tidegate_harness::envoy::{Cluster, HttpFilter, Listener, Route, Tidegate};
use tidegate_harness::upstream::Behaviour;
use tidegate_harness::{Gate, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Rig, SOON, main_listener, seed, until};
use crate::with_one_and_four_workers;

with_one_and_four_workers!(
    clients_that_leave_at_any_moment_leave_nothing_in_flight,
    every_way_a_stream_can_end_gives_its_place_back,
    tunnels_are_in_flight_as_long_as_they_last,
);

fn config() -> Value {
    json!({"policies": [{"name": "flight", "load_shedding": {"limit": {"algorithm": "fixed", "limit": 100_000}}}]})
}

async fn clients_that_leave_at_any_moment_leave_nothing_in_flight(workers: u32) {
    let seed = seed();
    let rig = Rig::new(workers, &config()).await;
    rig.upstream.script(|asked| {
        let slow = Behaviour::respond(200).slow_body(20, 100, Duration::from_millis(2));
        match asked.index % 4 {
            0 => slow,
            1 => slow.delay(Duration::from_millis(20)),
            2 => Behaviour::reset_in_body("half"),
            _ => Behaviour::default(),
        }
    });
    in_flight_is_counted(&rig, "/").await;
    let load = |name: &str, seed: u64, http2: bool| {
        let load = Load::new(rig.main(), Schedule::constant(300.0, Duration::from_secs(1)).poisson());
        let load = load.name(name).seed(seed).calls(move |_, random| {
            let call = Call::new("POST", "/").body(vec![b'x'; random.random_range(0..20_000)]);
            call.cancel(match random.random_range(0..5) {
                0 if !http2 => Cancel::InHead,
                1 => Cancel::AtHeaders,
                2 => Cancel::InBody(random.random_range(1..1500)),
                _ => Cancel::After(Duration::from_millis(random.random_range(0..60))),
            })
        });
        if http2 { load.http2(8) } else { load }
    };
    let (one, two) = tokio::join!(load("one", seed, false).run(), load("two", seed + 1, true).run());
    let cancelled = one.tally().cancelled + two.tally().cancelled;
    assert!(cancelled >= 200, "{}\n{}", one.tally(), two.tally());
    rig.wait_for_idle("flight").await;
    assert_eq!(rig.decisions("flight", "admitted").await, rig.decided().await, "all were decided, none refused");
    in_flight_is_counted(&rig, "/").await;
}

/// Envoy's fault filter, which answers what asks it to.
fn fault(name: &str) -> HttpFilter {
    let matching = json!([{"name": "x-abort", "string_match": {"exact": name}}]);
    json!({
        "name": "envoy.filters.http.fault",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
            "abort": {"http_status": 418, "percentage": {"numerator": 100, "denominator": "HUNDRED"}},
            "headers": matching
        }
    })
    .into()
}

/// An upstream that says this to whoever connects and sends something.
async fn scripted(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(bytes).await;
            });
        }
    });
    address
}

async fn every_way_a_stream_can_end_gives_its_place_back(workers: u32) {
    let hints =
        scripted(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let garbage = scripted(b"this is not HTTP\r\n\r\n").await;
    let rig = Rig::built(workers, |builder, upstream| {
        let main = Listener::new("main")
            .filter(fault("before"))
            .filter(Tidegate::new(&config()).unwrap())
            .filter(fault("after"))
            .route(Route::prefix("/timeout", "upstream").timeout("0.1s"))
            .route(Route::prefix("/hints", "hints"))
            .route(Route::prefix("/garbage", "garbage"))
            .route(Route::prefix("/grpc", "grpc"))
            .route(Route::respond("/direct", 204))
            .route(Route::prefix("/route", "upstream"));
        builder
            .cluster(Cluster::new("upstream", upstream.address()))
            .cluster(Cluster::new("grpc", upstream.address()).http2())
            .cluster(Cluster::new("hints", hints))
            .cluster(Cluster::new("garbage", garbage))
            .listener(main)
    })
    .await;
    rig.upstream.script(|asked| match asked.path {
        "/grpc/ok" => Behaviour::grpc(0, b"fine"),
        "/grpc/error" => Behaviour::grpc(13, b"half"),
        "/grpc/only" => Behaviour::grpc_trailers_only(14),
        _ => Behaviour::default(),
    });
    in_flight_is_counted(&rig, "/route").await;
    let fault = |fault: &str| Call::get("/route").header("x-upstream-fault", fault);
    let post = |size: usize| Call::new("POST", "/route").body(vec![b'x'; size]).header("x-upstream-fault", "echo");
    let trickle = vec![Step::Data("a".into()), Step::Pause(Duration::from_millis(20)), Step::Data("b".into())];
    let http: Vec<(&str, Call, Option<u16>)> = vec![
        ("answered", Call::get("/route"), Some(200)),
        ("upstream reset", fault("reset"), Some(503)),
        ("upstream reset in the body", fault("reset-in-body"), None),
        ("upstream closes", fault("close"), Some(200)),
        ("timeout", Call::get("/timeout").header("x-upstream-fault", "never"), Some(504)),
        ("local reply of a filter before", Call::get("/route").header("x-abort", "before"), Some(418)),
        ("local reply of a filter after", Call::get("/route").header("x-abort", "after"), Some(418)),
        ("direct response", Call::get("/direct"), Some(204)),
        ("no route", Call::get("/elsewhere"), Some(404)),
        ("early hints", Call::get("/hints"), Some(200)),
        ("protocol error", Call::get("/garbage"), Some(502)),
        ("large body", post(3_000_000), Some(200)),
        ("trickling body", Call::new("POST", "/route").body_steps(trickle.clone()), Some(200)),
        ("head", Call::new("HEAD", "/route"), Some(200)),
    ];
    let grpc = |path: &str| Call::grpc(path, b"hello");
    let grpc = [
        ("gRPC", grpc("/grpc/ok"), Some(200)),
        ("gRPC error", grpc("/grpc/error"), Some(200)),
        ("gRPC trailers-only", grpc("/grpc/only"), Some(200)),
    ];
    let http2 = http.iter().map(|(name, call, status)| (*name, call.clone().http2(), *status));
    for (name, call, status) in http.iter().cloned().chain(http2).chain(grpc) {
        let answer = client::send(rig.main(), call.clone()).await;
        match status {
            Some(status) => assert_eq!(answer.unwrap().status, status, "{name}"),
            None => assert!(answer.is_err(), "{name}"),
        }
        rig.wait_for_idle("flight").await;
    }
    half_closed(rig.main()).await;
    rig.wait_for_idle("flight").await;
    let expects =
        b"POST /route HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
    let continued = client::raw(rig.main(), expects, SOON).await.unwrap();
    let continued = String::from_utf8(continued).unwrap();
    assert!(continued.starts_with("HTTP/1.1 100") && continued.contains("HTTP/1.1 200"), "{continued}");
    rig.wait_for_idle("flight").await;
    in_flight_is_counted(&rig, "/route").await;
}

/// In-flight is 1 while a request is held: it is counted at all, and comes back.
async fn in_flight_is_counted(rig: &Rig, path: &'static str) {
    let gate = Gate::new();
    rig.upstream.enqueue([Behaviour::respond(200).hold(&gate)]);
    let at = rig.main();
    let held = tokio::spawn(async move { client::get(at, path).await });
    rig.wait_for_stat("tidegate_inflight", &[("policy", "flight")], 1).await;
    gate.open();
    assert_eq!(held.await.unwrap().unwrap().status, 200);
    rig.wait_for_idle("flight").await;
}

/// Sends a request and says that no more will come on the connection. Envoy may take that for the client's leaving, or answer.
async fn half_closed(at: SocketAddr) {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(b"GET /route HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let _ = stream.read_to_string(&mut String::new()).await;
}

async fn tunnels_are_in_flight_as_long_as_they_last(workers: u32) {
    let echo = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let echo_address = echo.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = echo.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    let connect = Route::prefix("/", "echo").raw(json!({
        "match": {"prefix": null, "connect_matcher": {}},
        "route": {"upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]}
    }));
    let rig = Rig::built(workers, |builder, upstream| {
        let main = main_listener(&config()).upgrade("websocket").upgrade("CONNECT");
        builder
            .cluster(Cluster::new("upstream", upstream.address()))
            .cluster(Cluster::new("echo", echo_address))
            .listener(main.route(connect).route(Route::prefix("/", "upstream")))
    })
    .await;
    let websocket =
        "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nx-upstream-fault: upgrade\r\n\r\n";
    let connect = "CONNECT a.test:80 HTTP/1.1\r\nhost: a.test:80\r\n\r\n";
    for (request, accepted) in [(websocket, "HTTP/1.1 101"), (connect, "HTTP/1.1 200")] {
        for client_leaves in [true, false] {
            let mut stream = TcpStream::connect(rig.main()).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let head = read_until(&mut stream, "\r\n\r\n").await;
            assert!(head.starts_with(accepted), "{head}");
            stream.write_all(b"through the tunnel.").await.unwrap();
            assert_eq!(read_until(&mut stream, ".").await, "through the tunnel.");
            // The control of what follows: while it is there it is counted.
            rig.wait_for_stat("tidegate_inflight", &[("policy", "flight")], 1).await;
            if client_leaves {
                drop(stream);
            } else {
                stream.shutdown().await.unwrap();
                until(async || match stream.read(&mut [0; 64]).await {
                    Ok(0) | Err(_) => Ok(()),
                    Ok(_) => Err("more bytes"),
                })
                .await;
            }
            rig.wait_for_idle("flight").await;
        }
    }
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        let mut byte = [0];
        match tokio::time::timeout(SOON, stream.read(&mut byte)).await.expect("nothing comes").unwrap() {
            0 => break,
            _ => read.push(byte[0]),
        }
    }
    String::from_utf8(read).unwrap()
}
