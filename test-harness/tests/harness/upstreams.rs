//! The upstream: each behaviour, as a client behind Envoy sees it, and as the records tell it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tidegate_harness::client::{self, Call, Cancel, Connection, Load, Schedule};
use tidegate_harness::envoy::{Cluster, Envoy, Listener};
use tidegate_harness::upstream::{Behaviour, End, Model, Upstream};
use tidegate_harness::{Gate, Step};

use crate::{SOON, plain, plain_http2};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_script_the_queue_and_a_failure_decide_in_turn() {
    let upstream = Upstream::start().await.unwrap();
    let envoy = plain(&upstream).await;
    upstream.script(|asked| Behaviour::respond(if asked.path == "/teapot" { 418 } else { 200 }));
    upstream.enqueue([Behaviour::respond(201)]);
    let mut statuses = Vec::new();
    for path in ["/teapot", "/teapot", "/"] {
        statuses.push(client::get(envoy.listener(), path).await.unwrap().status);
    }
    upstream.fail(Behaviour::respond(500));
    statuses.push(client::get(envoy.listener(), "/").await.unwrap().status);
    upstream.recover();
    statuses.push(client::get(envoy.listener(), "/").await.unwrap().status);
    assert_eq!(statuses, [201, 418, 200, 500, 200]);
}

/// A test that waited for the fortieth request and then changed the script saw the fortieth answered by the new one, on a
/// busy machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_counted_when_it_has_been_decided_about() {
    let upstream = Arc::new(Upstream::start().await.unwrap());
    let counted = Arc::new(Mutex::new(Vec::new()));
    upstream.script({
        let (upstream, counted) = (Arc::downgrade(&upstream), counted.clone());
        move |asked| {
            let upstream = upstream.upgrade().unwrap();
            counted.lock().unwrap().push((asked.index, upstream.total(), upstream.concurrent()));
            Behaviour::default()
        }
    });
    for _ in 0..2 {
        assert_eq!(client::get(upstream.address(), "/").await.unwrap().status, 200);
        upstream.wait_for_concurrent(0, SOON).await.unwrap();
    }
    assert_eq!(*counted.lock().unwrap(), [(0, 0, 0), (1, 1, 0)]);
    assert_eq!(upstream.total(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_reach_the_client_as_envoy_answers_for_them() {
    let upstream = Upstream::start().await.unwrap();
    for http2 in [false, true] {
        let cluster = Cluster::new("upstream", upstream.address());
        let cluster = if http2 { cluster.http2() } else { cluster };
        // How long Envoy holds on to a connection it has given up.
        let listener = Listener::new("main").raw(json!({"delayed_close_timeout": "0.02s"}));
        let envoy = Envoy::builder().cluster(cluster).listener(listener).start().await.unwrap();
        upstream.enqueue([Behaviour::reset(), Behaviour::reset_in_body("half"), Behaviour::default()]);
        let reset = client::get(envoy.listener(), "/").await.unwrap();
        assert_eq!(reset.status, 503, "{}", reset.text());
        let mut connection = Connection::open(envoy.listener(), false).await.unwrap();
        let error = connection.send(Call::get("/")).await.unwrap_err();
        assert!(format!("{error:#}").contains("the response broke off"), "{error:#}");
        assert_eq!(client::get(envoy.listener(), "/").await.unwrap().status, 200);
    }
    let ends: Vec<_> = upstream.seen().into_iter().filter_map(|seen| Some(seen.end?.0)).collect();
    assert_eq!(ends, [End::Aborted, End::Aborted, End::Completed(200)].repeat(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_requests_are_answered_when_the_test_lets_them_go() {
    let upstream = Upstream::start().await.unwrap();
    let envoy = plain(&upstream).await;
    let gate = Gate::new();
    upstream.always(Behaviour::default().hold(&gate));
    let asking: Vec<_> = (0..3).map(|_| tokio::spawn(client::get(envoy.listener(), "/"))).collect();
    upstream.wait_for_concurrent(3, SOON).await.unwrap();
    gate.open();
    for asking in asking {
        assert_eq!(asking.await.unwrap().unwrap().status, 200);
    }
    assert_eq!(upstream.max_concurrent(), 3);
    upstream.wait_for_concurrent(0, SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_request_is_seen_as_cancelled() {
    let upstream = Upstream::start().await.unwrap();
    let envoy = plain(&upstream).await;
    for http2 in [false, true] {
        upstream.enqueue([Behaviour::never()]);
        let call = Call::get("/");
        let mut connection = Connection::open(envoy.listener(), http2).await.unwrap();
        let asking = tokio::spawn(async move { connection.send(call).await });
        upstream.wait_for_concurrent(1, SOON).await.unwrap();
        asking.abort();
        upstream.wait_for_concurrent(0, SOON).await.unwrap();
    }
    // In the middle of a body that never ends.
    upstream.enqueue([Behaviour::respond(200).steps(vec![Step::Data("begin".into()), Step::Hold(Gate::new())])]);
    let call = Call::get("/").cancel(Cancel::InBody(5));
    client::send(envoy.listener(), call).await.unwrap_err();
    upstream.wait_for_concurrent(0, SOON).await.unwrap();
    assert_eq!(upstream.seen().iter().filter(|seen| seen.cancelled()).count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_answers_keep_their_trailers() {
    let upstream = Upstream::start().await.unwrap();
    let envoy = plain_http2(&upstream).await;
    upstream.enqueue([Behaviour::grpc(0, b"hello"), Behaviour::grpc_trailers_only(14)]);
    let answered = client::send(envoy.listener(), Call::grpc("/s/M", b"hi")).await.unwrap();
    assert_eq!((answered.grpc_status(), answered.trailers.len()), (Some(0), 1));
    assert_eq!(&answered.body[..], b"\0\0\0\0\x05hello");
    let refused = client::send(envoy.listener(), Call::grpc("/s/M", b"hi")).await.unwrap();
    assert_eq!((refused.grpc_status(), refused.trailers.len(), refused.status), (Some(14), 0, 200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_echoed_and_slow_ones_take_their_time() {
    let upstream = Upstream::start().await.unwrap();
    let envoy = plain(&upstream).await;
    upstream.enqueue([Behaviour::echo(), Behaviour::default().slow_body(3, 10, Duration::from_millis(20))]);
    let steps = vec![Step::Data("a".into()), Step::Pause(Duration::from_millis(5)), Step::Data("b".into())];
    let echo = client::send(envoy.listener(), Call::new("POST", "/").body_steps(steps)).await.unwrap();
    assert_eq!(echo.text(), "ab");
    let start = std::time::Instant::now();
    assert_eq!(client::get(envoy.listener(), "/").await.unwrap().body.len(), 30);
    assert!(start.elapsed() >= Duration::from_millis(60));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_may_come_before_the_request_is_complete_and_may_close_the_connection() {
    let upstream = Upstream::start().await.unwrap();
    let envoy = plain(&upstream).await;
    upstream.enqueue([Behaviour::respond(413).early()]);
    let endless = vec![Step::Data("a".into()), Step::Hold(Gate::new())];
    let early = client::send(envoy.listener(), Call::new("POST", "/").body_steps(endless)).await.unwrap();
    assert_eq!(early.status, 413);

    let before = upstream.connections();
    upstream.enqueue([Behaviour::default().close(), Behaviour::default().close(), Behaviour::default()]);
    for _ in 0..3 {
        assert_eq!(client::get(upstream.address(), "/").await.unwrap().text(), "ok\n");
    }
    assert_eq!(upstream.connections() - before, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_upstream_refuses_connections_and_comes_back_at_its_port() {
    let upstream = Upstream::start().await.unwrap();
    let envoy = plain(&upstream).await;
    assert_eq!(client::get(envoy.listener(), "/").await.unwrap().status, 200);
    upstream.kill().await.unwrap();
    assert!(client::get(upstream.address(), "/").await.is_err());
    assert_eq!(client::get(envoy.listener(), "/").await.unwrap().status, 503);
    upstream.revive().unwrap();
    assert_eq!(client::get(envoy.listener(), "/").await.unwrap().status, 200);
    assert_eq!(upstream.total(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_serves_so_many_at_a_time_and_lets_all_go_when_it_is_taken_away() {
    let upstream = Upstream::start().await.unwrap();
    let service = Duration::from_millis(40);
    upstream.model(Some(Model::new(2, service)));
    let start = std::time::Instant::now();
    let asking: Vec<_> = (0..6).map(|_| tokio::spawn(client::get(upstream.address(), "/"))).collect();
    for asking in asking {
        asking.await.unwrap().unwrap();
    }
    assert!(start.elapsed() >= 3 * service, "six requests are three rounds of two");
    assert_eq!(upstream.max_concurrent(), 6);

    upstream.model(Some(Model::new(1, SOON)));
    let asking: Vec<_> = (0..3).map(|_| tokio::spawn(client::get(upstream.address(), "/"))).collect();
    upstream.wait_for_concurrent(3, SOON).await.unwrap();
    upstream.model(None);
    upstream.wait_for_concurrent(1, SOON).await.unwrap();
    for asking in asking {
        asking.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_carries_its_capacity_and_a_queue_grows_beyond_it() {
    let upstream = Upstream::start().await.unwrap();
    let model = Model::new(2, Duration::from_millis(5));
    upstream.model(Some(model));
    // Half as much again as it can carry, for half a second: the last one waits a quarter of a second.
    let schedule = Schedule::constant(1.5 * model.capacity(), Duration::from_millis(500));
    let outcomes = Load::new(upstream.address(), schedule).run().await;
    let latencies = outcomes.latencies(|_| true);
    assert_eq!(latencies.count(), 300);
    assert!(latencies.percentile(100.0) >= Duration::from_millis(240), "{latencies}");
    assert!(upstream.max_concurrent() >= 90, "{} were there at a time", upstream.max_concurrent());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_go_when_they_are_idle_and_come_at_once_and_nobody_who_waits_is_let_go() {
    let upstream = Upstream::start().await.unwrap();
    let service = Duration::from_millis(100);
    // Rounds that eight requests take, and that they would take if slots stayed, or did not come.
    let cases: [(usize, &[usize], u32, u32); 4] =
        [(4, &[2], 3, 8), (4, &[1], 5, 8), (1, &[8], 1, 8), (4, &[1, 4], 2, 5)];
    for (slots, changes, least, less) in cases {
        upstream.model(Some(Model::new(slots, service)));
        let start = std::time::Instant::now();
        let asking: Vec<_> = (0..8).map(|_| tokio::spawn(client::get(upstream.address(), "/"))).collect();
        upstream.wait_for_concurrent(8, SOON).await.unwrap();
        changes.iter().for_each(|slots| upstream.slots(*slots));
        for asking in asking {
            asking.await.unwrap().unwrap();
        }
        let took = start.elapsed();
        assert!((least * service..less * service).contains(&took), "{slots} slots, then {changes:?}: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_can_go_on_serving_whom_nobody_waits_for() {
    let upstream = Upstream::start().await.unwrap();
    let service = Duration::from_millis(200);
    upstream.model(Some(Model { serves_the_gone: true, ..Model::new(1, service) }));
    let gone = Call::get("/").cancel(Cancel::After(Duration::from_millis(50)));
    client::send(upstream.address(), gone).await.unwrap_err();
    let start = std::time::Instant::now();
    client::get(upstream.address(), "/").await.unwrap();
    assert!(start.elapsed() > service + Duration::from_millis(50), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_cancelled_streams_do_not_end_an_http2_connection() {
    let upstream = Upstream::start().await.unwrap();
    let envoy = plain_http2(&upstream).await;
    let gate = Gate::new();
    upstream.always(Behaviour::default().hold(&gate));
    let cancel = Cancel::After(Duration::from_millis(300));
    // Envoy itself closes a client's connection once 250 of its streams were reset within a second.
    let load = Load::new(envoy.listener(), Schedule::burst(200)).http2(1);
    let outcomes = load.calls(move |_, _| Call::get("/").cancel(cancel)).run().await;
    assert_eq!(outcomes.tally().cancelled, 200, "{}", outcomes.tally());
    upstream.wait_for_concurrent(0, SOON).await.unwrap();
    gate.open();
    assert_eq!(client::get(envoy.listener(), "/").await.unwrap().status, 200);
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resetting_all_connections_ends_what_is_on_them_and_nothing_else() {
    let upstream = Upstream::start().await.unwrap();
    let envoy = plain(&upstream).await;
    upstream.enqueue([Behaviour::never()]);
    let asking = tokio::spawn(client::get(envoy.listener(), "/"));
    upstream.wait_for_concurrent(1, SOON).await.unwrap();
    upstream.reset_connections();
    assert_eq!(asking.await.unwrap().unwrap().status, 503);
    assert_eq!(client::get(envoy.listener(), "/").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgraded_connection_echoes_bytes() {
    let upstream = Upstream::start().await.unwrap();
    let listener = Listener::new("main").upgrade("websocket");
    let cluster = Cluster::new("upstream", upstream.address());
    let envoy = Envoy::builder().cluster(cluster).listener(listener).start().await.unwrap();
    upstream.enqueue([Behaviour::upgrade()]);
    let bytes = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nping";
    let answer = client::raw(envoy.listener(), bytes, Duration::from_secs(1)).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.ends_with("\r\n\r\nping"), "{answer}");
    upstream.wait_for_concurrent(0, SOON).await.unwrap();
}
