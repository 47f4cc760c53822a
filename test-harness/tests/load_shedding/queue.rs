//! Requests that wait for a place.

use std::collections::HashSet;
use std::time::Duration;

use rand::RngExt;
use serde_json::{Value, json};
use tidegate_harness::client::{self, Call, Cancel, Ending, Load, Response, Schedule};
use tidegate_harness::envoy::{Cluster, Envoy, Listener, Tidegate};
use tidegate_harness::ledger::Ledgers;
use tidegate_harness::upstream::{Behaviour, Upstream};
use tidegate_harness::{Gate, Step};
use tokio::task::JoinHandle;

use crate::support::{Rig, SOON, seed, volley, volley_beside};
use crate::{fixed, listener, shedding, with_1_2_and_4_workers};

with_1_2_and_4_workers!(
    forty_at_once_are_served_ten_at_a_time,
    clients_that_leave_while_they_wait_are_never_sent_upstream,
    sixty_that_wait_at_all_workers_go_one_at_a_time,
    bodies_that_come_while_their_requests_wait_are_kept_back_too,
    an_update_lets_those_who_wait_go_on,
);

/// How late somebody may be told on a busy machine. The timer itself is one millisecond late at most.
const LATE: Duration = Duration::from_millis(150);

/// A fixed limit with a queue.
pub fn queue(limit: u32, length: u32, max_wait: &str, order: &str) -> Value {
    let queue = json!({"max_length": length, "max_wait": max_wait, "order": order});
    shedding(json!({"limit": fixed(limit), "queue": queue}))
}

async fn forty_at_once_are_served_ten_at_a_time(workers: u32) {
    let without = shedding(json!({"limit": fixed(10)}));
    let queued = queue(10, 50, "2s", "fifo");
    let listeners = [listener("main", &queued).balanced(), listener("control", &without).balanced()];
    let rig = Rig::with(workers, listeners).await;
    rig.upstream.always(Behaviour::respond(200).delay(Duration::from_millis(100)));
    let before = rig.envoy.stats().await.unwrap();
    let outcomes = volley(rig.main(), 40, |_| Call::get("/")).await;
    let tally = outcomes.tally();
    println!("{workers} workers: {}", outcomes.latencies(|_| true));
    assert_eq!(tally.admitted(), 40, "{tally}");
    assert_eq!((rig.upstream.total(), rig.upstream.max_concurrent()), (40, 10));
    rig.wait_for_idle("p").await;
    rig.wait_for_stat("tidegate_queue_length", &[("policy", "p")], 0).await;
    let grown = rig.envoy.stats().await.unwrap().since(&before);
    let ledgers = Ledgers::of_clients([&outcomes]).and_upstream(&rig.upstream);
    ledgers.check_upstream().unwrap();
    ledgers.check_stats("p", &grown).unwrap();
    assert_eq!(grown.count("tidegate_queue_wait_ms_count", &[]), 30.0, "{}", grown.only("tidegate_"));

    // The control: without a queue ten are served and the others told at once.
    let gate = Gate::new();
    rig.upstream.always(Behaviour::respond(200).hold(&gate));
    let forty = volley_beside(rig.control(), 40, |_| Call::get("/"));
    rig.wait_for_decisions("p", "overloaded", 30).await;
    gate.open();
    let tally = forty.await.unwrap().tally();
    assert_eq!((tally.admitted(), tally.rejected_by("p", "overloaded")), (10, 30), "{tally}");
    assert_eq!((rig.upstream.total(), rig.upstream.max_concurrent()), (50, 10));
    for name in ["main", "control"] {
        assert_eq!(rig.envoy.busy_workers(name).await.unwrap(), workers as usize, "{name}");
    }
}

async fn clients_that_leave_while_they_wait_are_never_sent_upstream(workers: u32) {
    let seed = seed();
    let main = listener("main", &queue(5, 1000, "20s", "fifo"))
        .access_log("%REQ(X-HARNESS-ID)% %FILTER_STATE(wasm.tidegate:PLAIN)%");
    let rig = Rig::with(workers, [main]).await;
    rig.upstream.always(Behaviour::respond(200).delay(Duration::from_millis(10)));
    let load = |name: &str, seed: u64, http2: bool| {
        let load = Load::new(rig.main(), Schedule::constant(1000.0, Duration::from_millis(400)).poisson());
        let load = load.name(name).seed(seed).calls(move |_, random| {
            let call = Call::new("POST", "/").body(vec![b'x'; random.random_range(0..20_000)]);
            if random.random_bool(0.9) {
                call.cancel(Cancel::After(Duration::from_millis(random.random_range(0..150))))
            } else {
                call
            }
        });
        if http2 { load.http2(8) } else { load }
    };
    let (one, two) = tokio::join!(load("one", seed, false).run(), load("two", seed + 1, true).run());
    let cancelled = one.tally().cancelled + two.tally().cancelled;
    assert!(cancelled >= 600, "{}\n{}", one.tally(), two.tally());
    rig.wait_for_stat("tidegate_queue_length", &[("policy", "p")], 0).await;
    rig.wait_for_idle("p").await;
    // Who left before it went on has no decision.
    let lines = rig.envoy.wait_for_access_log("main", rig.decided().await + 300, SOON).await.unwrap();
    let undecided: HashSet<&str> = lines.iter().filter_map(|line| line.strip_suffix(" -")).collect();
    let sent: HashSet<String> =
        rig.upstream.seen().iter().filter_map(|seen| Some(seen.header(client::ID)?.to_owned())).collect();
    println!("{workers} workers: {cancelled} left, {} of them while they waited, {} sent", undecided.len(), sent.len());
    assert!(undecided.len() >= 300, "{} of {}", undecided.len(), lines.len());
    let leaked: Vec<_> = undecided.iter().filter(|id| sent.contains(**id)).collect();
    assert!(leaked.is_empty(), "{leaked:?}");
    assert_eq!(rig.envoy.busy_workers("main").await.unwrap(), workers as usize);
    // Nobody is in the way of those who come now, and there are as many places as ever.
    rig.upstream.wait_for_concurrent(0, SOON).await.unwrap();
    let gate = Gate::new();
    rig.upstream.always(Behaviour::respond(200).hold(&gate));
    let twenty = volley_beside(rig.main(), 20, |_| Call::get("/"));
    rig.wait_for_stat("tidegate_queue_length", &[("policy", "p")], 15).await;
    rig.upstream.wait_for_concurrent(5, SOON).await.unwrap();
    gate.open();
    assert_eq!(twenty.await.unwrap().tally().admitted(), 20);
}

async fn sixty_that_wait_at_all_workers_go_one_at_a_time(workers: u32) {
    const REQUESTS: usize = 60;
    let rig = Rig::with(workers, [listener("main", &queue(1, 100, "20s", "fifo")).balanced()]).await;
    let gate = Gate::new();
    rig.upstream.always(Behaviour::respond(200).hold(&gate));
    let all = volley_beside(rig.main(), REQUESTS, |_| Call::get("/"));
    rig.wait_for_stat("tidegate_queue_length", &[("policy", "p")], REQUESTS as u32 - 1).await;
    gate.open();
    let tally = all.await.unwrap().tally();
    assert_eq!(tally.admitted(), REQUESTS, "{tally}");
    assert_eq!(rig.envoy.busy_workers("main").await.unwrap(), workers as usize);
    assert_eq!((rig.upstream.total(), rig.upstream.max_concurrent()), (REQUESTS, 1));
}

/// Requests that wait one after the other, the first of which holds the only place.
pub async fn line(rig: &Rig, calls: impl IntoIterator<Item = Call>) -> Vec<JoinHandle<anyhow::Result<Response>>> {
    let mut sent = Vec::new();
    let at = rig.main();
    for (number, call) in (0..).zip(calls) {
        sent.push(tokio::spawn(client::send(at, call)));
        if number == 0 {
            rig.wait_for_stat("tidegate_inflight", &[("policy", "p")], 1).await;
        } else {
            rig.wait_for_stat("tidegate_queue_length", &[("policy", "p")], number).await;
        }
    }
    sent
}

/// A request that can be told from others.
pub fn numbered(number: usize) -> Call {
    Call::get("/").header("x-number", number.to_string())
}

/// In which order they went upstream.
pub fn order(upstream: &Upstream) -> Vec<usize> {
    upstream.seen().iter().map(|seen| seen.header("x-number").unwrap().parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_or_the_newest_goes_first() {
    let _machine = crate::MACHINE.read().await;
    for (first, expected) in [("fifo", [0, 1, 2, 3, 4]), ("lifo", [0, 4, 3, 2, 1])] {
        let rig = Rig::with(1, [listener("main", &queue(1, 10, "20s", first))]).await;
        let gate = Gate::new();
        rig.upstream.always(Behaviour::respond(200).hold(&gate));
        let sent = line(&rig, (0..5).map(numbered)).await;
        gate.open();
        for answer in sent {
            assert_eq!(answer.await.unwrap().unwrap().status, 200);
        }
        assert_eq!(order(&rig.upstream), expected, "{first}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_too_long_is_told_so_and_a_queue_that_is_full_says_so_at_once() {
    let _machine = crate::MACHINE.read().await;
    let max_wait = Duration::from_millis(300);
    let rig = Rig::with(2, [listener("main", &queue(1, 3, "300ms", "fifo"))]).await;
    let gate = Gate::new();
    rig.upstream.always(Behaviour::respond(200).hold(&gate));
    let first = line(&rig, [numbered(0)]).await.remove(0);
    let outcomes = volley(rig.main(), 10, |_| Call::get("/")).await;
    let tally = outcomes.tally();
    assert_eq!((tally.rejected_by("p", "queue_timeout"), tally.rejected_by("p", "overloaded")), (3, 7), "{tally}");
    for outcome in &outcomes.all {
        let Ending::Rejected { status, reason } = &outcome.ending else { panic!("{outcome:?}") };
        assert_eq!(*status, 503);
        if reason.decision == "queue_timeout" {
            assert!((max_wait..max_wait + LATE).contains(&outcome.latency), "{outcome:?}");
            assert_eq!(outcome.header("x-tidegate-reason"), Some("queue_timeout;policy=p"));
        } else {
            assert!(outcome.latency < max_wait, "{outcome:?}");
        }
    }
    rig.wait_for_decisions("p", "queue_timeout", 3).await;
    rig.wait_for_stat("tidegate_queue_length", &[("policy", "p")], 0).await;
    gate.open();
    assert_eq!(first.await.unwrap().unwrap().status, 200);
    rig.wait_for_idle("p").await;
    assert_eq!(rig.upstream.total(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_and_grpc_calls_wait_too() {
    let _machine = crate::MACHINE.read().await;
    let upstream = Upstream::start().await.unwrap();
    let cluster = Cluster::new("upstream", upstream.address()).http2();
    let builder = Envoy::builder().concurrency(2).cluster(cluster);
    let envoy = builder.listener(listener("main", &queue(1, 10, "20s", "fifo"))).start().await.unwrap();
    let rig = Rig { upstream, envoy };
    rig.upstream.script(|asked| match asked.path {
        "/s/m" => Behaviour::grpc(0, b"pong"),
        _ => Behaviour::echo(),
    });
    let gate = Gate::new();
    rig.upstream.enqueue([Behaviour::respond(200).hold(&gate)]);
    let body = vec![b'x'; 3_000_000];
    let calls = [Call::get("/"), Call::new("POST", "/").body(body.clone()), Call::grpc("/s/m", b"ping")];
    let mut sent = line(&rig, calls).await;
    gate.open();
    let mut next = async || sent.remove(0).await.unwrap().unwrap();
    assert_eq!(next().await.status, 200);
    assert_eq!(next().await.body, body);
    assert_eq!(next().await.grpc_status(), Some(0));
    rig.wait_for_idle("p").await;

    // Rejected, a gRPC call is told in its own way.
    let config = queue(1, 10, "50ms", "fifo");
    let rig = Rig::with(1, [listener("main", &config)]).await;
    let gate = Gate::new();
    rig.upstream.always(Behaviour::respond(200).hold(&gate));
    let _first = line(&rig, [numbered(0)]).await;
    let late = client::send(rig.main(), Call::grpc("/s/m", b"ping")).await.unwrap();
    assert_eq!((late.status, late.grpc_status()), (200, Some(14)), "{late:?}");
    gate.open();
}

/// Where Envoy hands bodies over while the headers are held, each of them let its request go on, past the queue.
async fn bodies_that_come_while_their_requests_wait_are_kept_back_too(workers: u32) {
    const MOST: usize = 200_000;
    let config = json!({"policies": [{
        "name": "p", "request_limits": {"max_body_bytes": MOST},
        "load_shedding": {
            "limit": fixed(1), "queue": {"max_length": 10, "max_wait": "20s", "order": "fifo"}
        }
    }]});
    let body =
        |bytes: usize| vec![Step::Data(vec![b'x'; bytes / 2].into()), Step::Data(vec![b'x'; bytes - bytes / 2].into())];
    for stops_headers_only in [true, false] {
        let tidegate = Tidegate::new(&config).unwrap();
        let tidegate = if stops_headers_only { tidegate.stops_headers_only() } else { tidegate };
        let rig = Rig::with(workers, [Listener::new("main").filter(tidegate)]).await;
        rig.upstream.always(Behaviour::echo());
        let gate = Gate::new();
        rig.upstream.enqueue([Behaviour::respond(200).hold(&gate)]);
        let post = |steps: Vec<Step>| Call::new("POST", "/").http2().body_steps(steps);
        let calls = [numbered(0), post(body(100_000)), post(body(50_000)), post(body(2))];
        let sent = line(&rig, calls).await;
        // The control: as Envoy has it by default, what is too long is not read before its turn comes.
        let long = tokio::spawn(client::send(rig.main(), post(body(MOST + 1))));
        if stops_headers_only {
            assert_eq!(long.await.unwrap().unwrap().status, 413);
            rig.wait_for_stat("tidegate_queue_length", &[("policy", "p")], 3).await;
        } else {
            rig.wait_for_stat("tidegate_queue_length", &[("policy", "p")], 4).await;
        }
        gate.open();
        for (answer, bytes) in sent.into_iter().zip([0, 100_000, 50_000, 2]) {
            let answer = answer.await.unwrap().unwrap();
            assert_eq!((answer.status, answer.body.len()), (200, bytes));
        }
        rig.wait_for_idle("p").await;
        rig.wait_for_decisions("p", "admitted", 4).await;
        rig.wait_for_decisions("p", "invalid_request", 1).await;
        // On another worker the one that is too long may go before others. It is cut off on its way, and the upstream may learn of
        // that after the next one has come.
        let most = if stops_headers_only || workers == 1 { 1 } else { 2 };
        let together = rig.upstream.max_concurrent();
        assert!((1..=most).contains(&together), "{together}");
    }
}

async fn an_update_lets_those_who_wait_go_on(workers: u32) {
    let upstream = Upstream::start().await.unwrap();
    let builder = Envoy::builder().concurrency(workers).cluster(Cluster::new("upstream", upstream.address()));
    let builder = builder.dynamic_listeners().drain_time(Duration::from_secs(60));
    let envoy = builder.listener(listener("main", &queue(2, 50, "30s", "fifo"))).start().await.unwrap();
    let mut rig = Rig { upstream, envoy };
    let gate = Gate::new();
    rig.upstream.always(Behaviour::respond(200).hold(&gate));
    let before = volley_beside(rig.main(), 22, |_| Call::get("/"));
    rig.wait_for_stat("tidegate_queue_length", &[("policy", "p")], 20).await;
    // Another queue; the limit is the same, and what is in flight counts on.
    rig.envoy.update_listeners(&[listener("main", &queue(2, 60, "30s", "fifo"))]).await.unwrap();
    let after = volley_beside(rig.main(), 10, |_| Call::get("/"));
    rig.wait_for_stat("tidegate_queue_length", &[("policy", "p")], 30).await;
    gate.open();
    assert_eq!(before.await.unwrap().tally().admitted(), 22);
    assert_eq!(after.await.unwrap().tally().admitted(), 10);
    assert_eq!(rig.upstream.max_concurrent(), 2);
    rig.wait_for_idle("p").await;
    rig.wait_for_stat("tidegate_queue_length", &[("policy", "p")], 0).await;
}
