//! Requests that are held until they conform.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate_harness::Gate;
use tidegate_harness::client::{self, Call, Cancel, Ending, Load, Outcomes, Schedule};
use tidegate_harness::envoy::{Cluster, Envoy, Route};
use tidegate_harness::ledger::Ledgers;
use tidegate_harness::upstream::{Behaviour, Upstream};

use crate::support::{SOON, all_took_part, client, decisions, limits, start, tidegate, volley, wait_for_stat};
use crate::with_1_2_4_and_8_workers;

/// A worker wakes at most a millisecond late; the rest is of a machine busy with other things, beyond what the control shows
/// of that.
const LATE: Duration = Duration::from_millis(60);
const INTERVAL: Duration = Duration::from_millis(100);

fn paced(max_wait: &str) -> Value {
    limits(json!([{"name": "r", "rate": "10/s", "burst": 1, "pace": {"max_wait": max_wait}}]))
}

with_1_2_4_and_8_workers!(
    ten_requests_at_once_reach_the_upstream_an_interval_apart,
    held_requests_go_on_in_the_order_in_which_they_came,
    who_leaves_while_held_is_never_sent_upstream,
    what_is_held_is_decided_by_the_other_controls_when_it_goes_on,
    two_thousand_held_requests_all_go_on_in_time,
    those_whose_time_passed_in_a_pause_do_not_go_on_all_at_once,
);

async fn ten_requests_at_once_reach_the_upstream_an_interval_apart(workers: u32) {
    let mut rejecting = limits(json!([{"name": "r", "rate": "10/s", "burst": 1}]));
    rejecting["policies"][0]["name"] = json!("control");
    let (upstream, envoy) = start(workers, [tidegate("main", &paced("2s")), tidegate("control", &rejecting)]).await;
    let before = envoy.stats().await.unwrap();
    // What the proxy answers at once meanwhile shows how long the machine takes.
    let meanwhile =
        Load::new(envoy.address("control"), Schedule::constant(50.0, INTERVAL * 10)).name("meanwhile").run();
    let (outcomes, meanwhile) = tokio::join!(volley(envoy.address("main"), 10, |_| Call::get("/")), meanwhile);
    let tally = outcomes.tally();
    assert_eq!(tally.admitted(), 10, "{tally}");
    let machine = meanwhile.all.iter().map(|outcome| outcome.latency).max().unwrap();
    // Counted from before the first was decided, none can be early. How late they are is the machine's; half of them show
    // whether a timer of milliseconds was at work.
    let mut latencies: Vec<_> = outcomes.all.iter().map(|outcome| outcome.latency).collect();
    latencies.sort_unstable();
    println!("{workers} workers: answered after {latencies:?}, where none is held after {machine:?} at most");
    let due = (0..).map(|number| INTERVAL * number);
    assert!(latencies.iter().zip(due.clone()).all(|(at, due)| *at >= due), "{latencies:?}");
    let mut late: Vec<_> = latencies.iter().zip(due).map(|(at, due)| at.saturating_sub(due)).collect();
    late.sort_unstable();
    assert!(late[5] <= LATE + machine, "{latencies:?}, {machine:?}");
    Ledgers::of_clients([&outcomes, &meanwhile]).and_upstream(&upstream).check_upstream().unwrap();
    let ledgers = Ledgers::of_clients([&outcomes]);
    ledgers.check_stats("p", &envoy.stats().await.unwrap().since(&before)).unwrap();
    wait_for_stat(&envoy, "tidegate_queue_length", "p", 0).await;

    let tally = volley(envoy.address("control"), 10, |_| Call::get("/")).await.tally();
    assert!(tally.admitted() < 10, "{tally}");
    all_took_part(&envoy, workers, &["main"]).await;
}

async fn held_requests_go_on_in_the_order_in_which_they_came(workers: u32) {
    const BURST: u32 = 8;
    let config = limits(json!([{"name": "r", "rate": "1/s", "burst": BURST, "pace": {"max_wait": "30s"},
        "cost": {"header": "x-cost"}}]));
    let (upstream, envoy) = start(workers, [tidegate("main", &config)]).await;
    let at = envoy.address("main");
    // One at each worker at least.
    let last = workers.max(4);
    // The first takes all there is and the next waits for as much, eight seconds: time for the others to come one by one.
    let call = |place: u32| client(place.to_string()).header("x-cost", if place <= 1 { BURST } else { 1 }.to_string());
    assert_eq!(client::send(at, call(0)).await.unwrap().status, 200);
    let mut held = Vec::new();
    for place in 1..=last {
        held.push(tokio::spawn(client::send(at, call(place))));
        wait_for_stat(&envoy, "tidegate_queue_length", "p", place).await;
    }
    for answer in held {
        assert_eq!(answer.await.unwrap().unwrap().status, 200);
    }
    let order: Vec<u32> =
        upstream.seen().iter().map(|seen| seen.header("x-client").unwrap().parse().unwrap()).collect();
    assert_eq!(order, (0..=last).collect::<Vec<_>>());
    all_took_part(&envoy, workers, &["main"]).await;
}

fn cancelled(outcomes: &Outcomes) -> usize {
    outcomes.all.iter().filter(|outcome| matches!(outcome.ending, Ending::Cancelled(_))).count()
}

async fn who_leaves_while_held_is_never_sent_upstream(workers: u32) {
    for http2 in [false, true] {
        let (upstream, envoy) = start(workers, [tidegate("main", &paced("10s"))]).await;
        let at = envoy.address("main");
        assert_eq!(client::get(at, "/").await.unwrap().status, 200);
        let leave = move |_: usize| {
            let call = Call::get("/").cancel(Cancel::After(Duration::from_millis(300)));
            if http2 { call.http2() } else { call }
        };
        let load = Load::new(at, Schedule::burst(30)).calls(move |index, _| leave(index));
        let load = if http2 { load.http2(30) } else { load };
        let outcomes = load.run().await;
        let (left, tally) = (cancelled(&outcomes), outcomes.tally());
        assert!(left >= 10, "{tally}");
        wait_for_stat(&envoy, "tidegate_queue_length", "p", 0).await;
        // Nobody is in line any more, so nobody is sent upstream later either.
        // One that goes on as its client leaves may be counted, and may be seen.
        let admitted = decisions(&envoy, "p", "admitted").await;
        assert!((1 + tally.admitted()..=21).contains(&admitted), "{admitted}: {tally}");
        assert!(upstream.total() <= admitted, "{} of {admitted}", upstream.total());
        all_took_part(&envoy, workers, &["main"]).await;
    }
}

async fn what_is_held_is_decided_by_the_other_controls_when_it_goes_on(workers: u32) {
    const INTERVAL: Duration = Duration::from_secs(2);
    let mut config = limits(json!([{"name": "r", "rate": "30/m", "burst": 1, "pace": {"max_wait": "10s"}}]));
    config["policies"][0]["load_shedding"] = json!({"limit": {"algorithm": "fixed", "limit": 1}});
    let (upstream, envoy) = start(workers, [tidegate("main", &config)]).await;
    let gate = Gate::new();
    upstream.always(Behaviour::respond(200).hold(&gate));
    let at = envoy.address("main");
    // The first takes the only place; those due after one and two intervals find none; that after three does. The first is
    // there before the others come: one that comes with it may find the token before it is taken, and no place.
    let begun = Instant::now();
    let first = tokio::spawn(async move { client::get(at, "/").await });
    upstream.wait_for_concurrent(1, SOON).await.unwrap();
    let later = begun.elapsed();
    let others = tokio::spawn(volley(at, 3, |_| Call::get("/")));
    let rejected = [("policy", "p"), ("decision", "overloaded")];
    let waited = envoy.wait_for_stats(SOON, |stats| match stats.count("tidegate_requests_total", &rejected) {
        2.0 => Ok(()),
        number => Err(format!("{number} of 2 rejected")),
    });
    waited.await.unwrap();
    gate.open();
    assert_eq!(first.await.unwrap().unwrap().status, 200);
    let outcomes = others.await.unwrap();
    let tally = outcomes.tally();
    assert_eq!((tally.admitted(), tally.rejected_by("p", "overloaded")), (1, 2), "{tally}");
    let rejected = outcomes.all.iter().filter(|outcome| matches!(outcome.ending, Ending::Rejected { status: 503, .. }));
    let mut rejected: Vec<_> = rejected.map(|outcome| outcome.latency).collect();
    rejected.sort_unstable();
    assert_eq!(rejected.len(), 2);
    // Not before their time, but for what it took to begin.
    let slack = INTERVAL / 4;
    assert!(rejected[0] + later + slack >= INTERVAL, "{rejected:?} after {later:?}");
    assert!(rejected[1] + later + slack >= 2 * INTERVAL, "{rejected:?} after {later:?}");
    wait_for_stat(&envoy, "tidegate_inflight", "p", 0).await;
    wait_for_stat(&envoy, "tidegate_queue_length", "p", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_and_grpc_calls_are_held_too_and_an_upstream_that_died_meanwhile_is_told_to_their_clients() {
    let upstream = Upstream::start().await.unwrap();
    let cluster = Cluster::new("upstream", upstream.address()).http2();
    let mut slow = limits(json!([{"name": "r", "rate": "1/s", "burst": 1, "pace": {"max_wait": "10s"}}]));
    slow["policies"][0]["name"] = json!("slow");
    let builder = Envoy::builder().concurrency(2).cluster(cluster);
    let builder = builder.listener(tidegate("main", &paced("5s"))).listener(tidegate("slow", &slow));
    let envoy = builder.start().await.unwrap();
    let at = envoy.address("main");
    let body = vec![b'x'; 200_000];
    for _ in 0..3 {
        let sent = body.clone();
        upstream.always(Behaviour::echo());
        let response = client::send(at, Call::new("POST", "/").body(sent)).await.unwrap();
        assert_eq!((response.status, response.body.len()), (200, body.len()));
    }
    upstream.always(Behaviour::grpc(0, b"pong"));
    let response = client::send(at, Call::grpc("/s/m", b"ping")).await.unwrap();
    assert_eq!(response.grpc_status(), Some(0), "{response:?}");
    // A second apart, so that the upstream is gone before most of them go on.
    let slow = envoy.address("slow");
    assert_eq!(client::send(slow, Call::grpc("/s/m", b"ping")).await.unwrap().grpc_status(), Some(0));
    let held = tokio::spawn(volley(slow, 3, |_| Call::get("/")));
    wait_for_stat(&envoy, "tidegate_queue_length", "slow", 3).await;
    upstream.kill().await.unwrap();
    let tally = held.await.unwrap().tally();
    assert!(tally.local.get(&503).is_some_and(|gone| *gone >= 2), "{tally}");
    wait_for_stat(&envoy, "tidegate_queue_length", "slow", 0).await;
    // The worker serves on.
    upstream.revive().unwrap();
    upstream.always(Behaviour::respond(200));
    assert_eq!(client::get(at, "/").await.unwrap().status, 200);
}

/// So many requests that are all due at the same moment: within what time the last of them is answered after the first.
async fn spread(envoy: &Envoy, requests: usize) -> Duration {
    const BEFORE: usize = 8;
    let at = envoy.address("main");
    // Each of these uses up a window, which is a second: those behind them are for the window after the last.
    let before = tokio::spawn(volley(at, BEFORE, |_| Call::get("/").header("x-cost", b"4000")));
    let held = async |number: usize| {
        let held = envoy.wait_for_stats(SOON, |stats| match stats.count("tidegate_queue_length", &[("policy", "p")]) {
            now if now >= number as f64 => Ok(()),
            now => Err(format!("{now} of {number} are held")),
        });
        held.await.unwrap();
    };
    // The first may have gone on at once, and more when a window ended.
    held(BEFORE - 2).await;
    let load = Load::new(at, Schedule::burst(requests)).http2(20).calls(|_, _| Call::get("/"));
    let outcomes = tokio::spawn(load.run());
    held(requests).await;
    let outcomes = outcomes.await.unwrap();
    let before = before.await.unwrap().tally();
    assert_eq!(before.admitted() + before.local.get(&200).copied().unwrap_or(0), BEFORE, "{before}");
    let tally = outcomes.tally();
    assert_eq!(tally.admitted() + tally.local.get(&200).copied().unwrap_or(0), requests, "{tally}");
    let answered: Vec<_> = outcomes.all.iter().map(|outcome| outcome.intended + outcome.latency).collect();
    wait_for_stat(envoy, "tidegate_queue_length", "p", 0).await;
    *answered.iter().max().unwrap() - *answered.iter().min().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_thousand_that_are_due_at_once_go_on_together_and_the_vm_bears_it() {
    let limit = json!({"name": "r", "rate": "4000/s", "algorithm": "fixed_window", "pace": {"max_wait": "30s"},
        "cost": {"header": "x-cost", "max": 4000}});
    let config = limits(json!([limit]));
    for workers in [1, 4] {
        let (_upstream, envoy) = start(workers, [tidegate("main", &config)]).await;
        let upstream = spread(&envoy, 3000).await;
        // Answered by the proxy itself, each within the resumption of the one before.
        let itself = Envoy::builder().concurrency(workers).listener(tidegate("main", &config)).start().await.unwrap();
        let nested = spread(&itself, 3000).await;
        println!(
            "3000 held until the same moment, {workers} workers: all within {upstream:?}, of the proxy's own {nested:?}"
        );
        for envoy in [envoy, itself] {
            let stats = envoy.stats().await.unwrap();
            assert_eq!(stats.count("tidegate_errors_total", &[]), 0.0);
            assert!(!envoy.log().contains("RangeError"), "{}", envoy.log());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn six_hundred_in_a_queue_that_the_proxy_answers_itself_do_not_exhaust_the_stack() {
    // One place: whoever goes on is answered at once, gives the place back, and so lets the next one go on.
    let config = json!({"policies": [{"name": "p", "load_shedding": {
        "limit": {"algorithm": "fixed", "limit": 1}, "queue": {"max_length": 1000, "max_wait": "1m", "order": "fifo"}}}]});
    let upstream = Upstream::start().await.unwrap();
    let listener = tidegate("main", &config).route(Route::prefix("/slow", "upstream")).route(Route::respond("/", 200));
    let builder = Envoy::builder().concurrency(1).cluster(Cluster::new("upstream", upstream.address()));
    let envoy = builder.listener(listener).start().await.unwrap();
    let gate = Gate::new();
    upstream.always(Behaviour::respond(200).hold(&gate));
    let at = envoy.address("main");
    let slow = tokio::spawn(async move { client::get(at, "/slow").await });
    upstream.wait_for_concurrent(1, SOON).await.unwrap();
    let load = Load::new(at, Schedule::burst(600)).http2(8).calls(|_, _| Call::get("/"));
    let waiting = tokio::spawn(load.run());
    wait_for_stat(&envoy, "tidegate_queue_length", "p", 600).await;
    gate.open();
    let tally = waiting.await.unwrap().tally();
    assert_eq!(tally.local.get(&200), Some(&600), "{tally}\n{}", envoy.log());
    assert_eq!(slow.await.unwrap().unwrap().status, 200);
}

async fn two_thousand_held_requests_all_go_on_in_time(workers: u32) {
    // 1000 a second: a worker resumes several at a time, more than one callback is allowed to.
    let config = limits(json!([{"name": "r", "rate": "1000/s", "burst": 1, "pace": {"max_wait": "10s"}}]));
    let (_upstream, envoy) = start(workers, [tidegate("main", &config)]).await;
    let load = Load::new(envoy.address("main"), Schedule::burst(2000)).http2(20).calls(|_, _| Call::get("/"));
    let outcomes = load.run().await;
    let tally = outcomes.tally();
    assert_eq!(tally.admitted(), 2000, "{tally}");
    let last = outcomes.all.iter().map(|outcome| outcome.latency).max().unwrap();
    println!("2000 at 1000/s, {workers} workers: the last answered after {last:?}");
    assert!(last >= Duration::from_millis(1_999), "{last:?}");
    // Thrice that, where the machine is busy: no token was lost over and over.
    assert!(last <= Duration::from_secs(6), "{last:?}");
    all_took_part(&envoy, workers, &["main"]).await;
}

async fn those_whose_time_passed_in_a_pause_do_not_go_on_all_at_once(workers: u32) {
    const HELD: usize = 30;
    const RATE: f64 = 20.0;
    // Longer than the last of them has to wait, by more than a busy worker is late.
    const PAUSE: Duration = Duration::from_secs(3);
    let config = |name: &str, burst: usize| {
        let mut config = limits(json!([{"name": "r", "rate": "20/s", "burst": burst, "pace": {"max_wait": "10s"}}]));
        config["policies"][0]["name"] = json!(name);
        tidegate(name, &config)
    };
    // The control's bucket is full again after the pause, and holds as many as were held.
    let bursts = [("main", 1), ("control", HELD)];
    let (_upstream, envoy) = start(workers, bursts.map(|(name, burst)| config(name, burst))).await;
    let begun = Instant::now();
    let volleys =
        bursts.map(|(name, burst)| tokio::spawn(volley(envoy.address(name), burst + HELD, |_| Call::get("/"))));
    // Enough to see: the first of them go on meanwhile.
    let held = envoy.wait_for_stats(SOON, |stats| {
        let held = |policy| stats.count("tidegate_queue_length", &[("policy", policy)]);
        match (held("main"), held("control")) {
            (main, control) if main.min(control) >= 20.0 => Ok(()),
            held => Err(format!("held: {held:?}")),
        }
    });
    held.await.unwrap();
    envoy.pause().await.unwrap();
    tokio::time::sleep(PAUSE).await;
    let resumed = begun.elapsed();
    envoy.unpause().unwrap();
    let mut after = Vec::new();
    for (run, (name, burst)) in volleys.into_iter().zip(bursts) {
        let outcomes = run.await.unwrap();
        let tally = outcomes.tally();
        assert_eq!(tally.admitted(), burst + HELD, "{name}: {tally}");
        let answered = outcomes.all.iter().map(|outcome| outcome.intended + outcome.latency);
        let mut answered: Vec<_> = answered.filter_map(|at| at.checked_sub(resumed)).collect();
        answered.sort_unstable();
        after.push(answered);
    }
    let [main, control] = after.try_into().unwrap();
    println!(
        "pause, {workers} workers: {} of those held went on within {:?} after it, of a burst for all {} within {:?}",
        main.len(),
        main.last(),
        control.len(),
        control.last()
    );
    // The load began a little after the clock.
    let most = |time: Duration| 1 + (RATE * (time + LATE).as_secs_f64()) as usize;
    let within = |answered: &[Duration]| answered.iter().zip(1..).all(|(at, number)| number <= most(*at));
    assert!(main.len() >= 15 && within(&main), "{main:?}");
    assert!(!within(&control), "{control:?}");
    wait_for_stat(&envoy, "tidegate_queue_length", "main", 0).await;
    all_took_part(&envoy, workers, &["main", "control"]).await;
}
