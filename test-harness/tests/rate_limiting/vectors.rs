//! What others have published of these algorithms, asked of a real Envoy.
//!
//! A test cannot tell when a proxy decides, only that it is between sending the request and having the answer. So each step
//! is judged by the source's own formula at both of these moments. Where they disagree, as on a machine that stood still for
//! a while, either answer is right. How many steps came out as published, with no other answer possible, is printed.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tidegate_harness::client::{self, Call, Load, Outcome, Response, Schedule};
use tidegate_harness::envoy::Envoy;

use crate::support::{InTurn, all_took_part, limits, passed, start, tidegate};
use crate::with_1_2_4_and_8_workers;

with_1_2_4_and_8_workers!(
    published_sequences_come_out_as_published,
    ten_at_once_come_out_of_a_leaky_bucket_as_published
);

/// Seconds on the clock that windows are aligned to, which is the proxy's too.
fn now() -> f64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

async fn sleep_until(moment: f64) {
    tokio::time::sleep(Duration::from_secs_f64((moment - now()).max(0.0))).await;
}

/// A request that was decided after `from` and before `to`.
struct Answer {
    from: f64,
    to: f64,
    response: Response,
}

impl Answer {
    fn admitted(&self) -> bool {
        self.response.status == 200
    }

    /// `;r=` of its only limit.
    fn left(&self) -> f64 {
        let told = self.response.header("ratelimit").and_then(|field| field.split(";r=").nth(1));
        told.and_then(|rest| rest.split(';').next()).unwrap().parse().unwrap()
    }
}

/// Asks every worker in turn.
struct Asker {
    workers: InTurn,
    asked: usize,
    certain: usize,
}

impl Asker {
    async fn new(envoy: &Envoy, workers: u32) -> Self {
        Self { workers: InTurn::new(envoy, "main", workers).await, asked: 0, certain: 0 }
    }

    async fn ask(&mut self, path: &str, cost: u32) -> Answer {
        self.asked += 1;
        let call = Call::get(path).header("x-cost", cost.to_string());
        let from = now();
        let response = self.workers.send(call).await;
        Answer { from, to: now(), response }
    }
}

/// A policy for this path whose only limit is this one.
fn policy(name: &str, limit: Value) -> Value {
    let mut full = json!({"name": "r", "cost": {"header": "x-cost"}});
    full.as_object_mut().unwrap().extend(limit.as_object().unwrap().clone());
    json!({"name": name, "match": {"path": format!("/{name}")}, "rate_limits": [full]})
}

/// A bucket of `most` tokens that gains one every `interval` seconds, as GCRA has it: from when on it is full again is all
/// there is to know of it, and here that is known to lie between two moments.
struct Bucket {
    path: &'static str,
    most: u32,
    interval: f64,
    full: (f64, f64),
}

impl Bucket {
    /// Takes `cost`, and holds what comes of it against the formula.
    async fn take(&mut self, asker: &mut Asker, cost: u32) -> (Answer, Option<bool>) {
        let answer = asker.ask(self.path, cost).await;
        let (earliest, latest) = self.full;
        let says = format!("{cost} of {}: {:?}, full between {:?}", self.path, answer.response, self.full);
        // How long it has to wait until what is missing has come.
        let missing = (f64::from(cost) - f64::from(self.most)) * self.interval;
        let wait = (earliest + missing - answer.to, latest + missing - answer.from);
        let certain = if cost > self.most || wait.0 > 0.0 {
            Some(false)
        } else if wait.1 <= 0.0 {
            Some(true)
        } else {
            None
        };
        assert!(certain.is_none_or(|admitted| admitted == answer.admitted()), "{says}");
        let was_full = latest <= answer.from;
        if answer.admitted() {
            let took = f64::from(cost) * self.interval;
            self.full = (earliest.max(answer.from) + took, latest.max(answer.to) + took);
            if was_full {
                assert_eq!(answer.left(), f64::from(self.most - cost), "{says}");
            }
        } else {
            let retry: Option<f64> = answer.response.header("retry-after").map(|seconds| seconds.parse().unwrap());
            match retry {
                None => assert!(cost > self.most, "{says}"),
                Some(retry) => assert!(wait.0.ceil() <= retry && retry <= wait.1.ceil(), "{wait:?}: {says}"),
            }
        }
        let left = |full: f64, at: f64| (f64::from(self.most) - (full - at).max(0.0) / self.interval).max(0.0).floor();
        let (least, most) = (left(self.full.1, answer.from), left(self.full.0, answer.to));
        assert!(least <= answer.left() && answer.left() <= most, "{least} to {most}: {says}");
        (answer, certain)
    }

    /// Plays steps of seconds since the first that was admitted, what is taken, and whether that is published to pass.
    async fn play(mut self, mut asker: Asker, steps: &[(f64, u32, bool)]) -> Asker {
        let mut begin = None;
        for (at, cost, published) in steps {
            if let Some(begin) = begin {
                sleep_until(begin + at).await;
            }
            let (answer, certain) = self.take(&mut asker, *cost).await;
            // One that came too late to be published is right by the formula alone.
            asker.certain += usize::from(certain == Some(*published));
            if answer.admitted() {
                begin.get_or_insert(answer.to);
            }
        }
        asker
    }
}

/// Token buckets of Envoy's own unit tests (`token_bucket_impl_test.cc`). What is to come too early comes a tenth of a second
/// before its time and not a millisecond, so that the answer is there in time too.
async fn token_buckets(envoy: &Envoy, workers: u32) -> (usize, usize) {
    let play = async |path, most, interval, steps: &[(f64, u32, bool)]| {
        let bucket = Bucket { path, most, interval, full: (0.0, 0.0) };
        bucket.play(Asker::new(envoy, workers).await, steps).await
    };
    let (one, three, ten, half, five) = tokio::join!(
        play("/one", 1, 3600.0, &[(0.0, 1, true), (0.0, 1, false)]),
        play("/three", 3, 1.0, &[(0.0, 3, true), (6.0, 4, false), (6.0, 3, true)]),
        play(
            "/ten",
            10,
            1.0,
            &[
                (0.0, 20, false),
                (0.0, 9, true),
                (0.0, 1, true),
                (0.9, 1, false),
                (5.9, 6, false),
                (6.0, 6, true),
                (6.0, 1, false)
            ]
        ),
        play("/half", 1, 2.0, &[(0.0, 1, true), (0.5, 1, false), (1.5, 1, false), (2.0, 1, true)]),
        play("/five", 10, 0.2, &[(0.0, 10, true), (0.1, 1, false), (0.2, 1, true)]),
    );
    let all = [one, three, ten, half, five];
    (all.iter().map(|asker| asker.certain).sum(), all.iter().map(|asker| asker.asked).sum())
}

/// Cloudflare's example: of 50, 42 in the window before and 18 in this one, a quarter of which has passed, are 49.5: one more
/// passes. Beside it the same requests in windows that forget. A window is a second here and not a minute.
async fn windows(envoy: &Envoy, workers: u32) -> (usize, usize) {
    let mut asker = Asker::new(envoy, workers).await;
    let sliding =
        |before: u32, counted: u32, elapsed: f64| (f64::from(before) * (1.0 - elapsed)).floor() + f64::from(counted);
    let fixed = |_: u32, counted: u32, _: f64| f64::from(counted);
    let mut judge = async |path: &str, count: &dyn Fn(u32, u32, f64) -> f64| {
        let begin = now().floor() + 1.0;
        let mut counts = [0_u32; 2];
        for (window, at, cost) in [(0, 0.1, 42), (1, 0.05, 10), (1, 0.15, 4), (1, 0.22, 4), (1, 0.25, 1), (1, 0.26, 30)]
        {
            let start = begin + f64::from(window);
            sleep_until(start + at).await;
            let answer = asker.ask(path, cost).await;
            if answer.to >= start + 1.0 {
                // So late that nobody knows in which window it counts.
                return;
            }
            let before = if window == 1 { counts[0] } else { 0 };
            let here = &mut counts[usize::from(window == 1)];
            let taken = |elapsed: f64| count(before, *here + cost, elapsed) <= 50.0;
            let (early, late) = (taken(answer.from - start), taken(answer.to - start));
            let says = format!("{path}: {cost} at {at}: {:?} after {before} and {here}", answer.response);
            if early == late {
                asker.certain += 1;
                assert_eq!(answer.admitted(), early, "{says}");
            }
            *here += if answer.admitted() { cost } else { 0 };
            let left = |elapsed: f64| (50.0 - count(before, *here, elapsed)).max(0.0);
            let (least, most) = (left(answer.from - start), left(answer.to - start));
            assert!(least <= answer.left() && answer.left() <= most, "{least} to {most}: {says}");
        }
    };
    for _ in 0..2 {
        judge("/sliding", &sliding).await;
        judge("/fixed", &fixed).await;
    }
    (asker.certain, asker.asked)
}

/// Of 1200 tokens that four threads ask for, three hundred each and more, 1200 are granted.
async fn threads(envoy: &Envoy) {
    let load = Load::new(envoy.address("main"), Schedule::burst(1600)).http2(16);
    let tally = load.calls(|_, _| Call::get("/threads")).run().await.tally();
    assert_eq!((passed(&tally), tally.rejected_by("threads", "rate_limited")), (1200, 400), "{tally}");
}

async fn published_sequences_come_out_as_published(workers: u32) {
    let bucket = |name: &str, rate: &str, burst: u32| policy(name, json!({"rate": rate, "burst": burst}));
    let window = |name: &str| policy(name, json!({"rate": "50/s", "algorithm": format!("{name}_window")}));
    let policies = json!([
        bucket("one", "1/h", 1),
        bucket("three", "1/s", 3),
        bucket("ten", "1/s", 10),
        bucket("half", "30/m", 1),
        bucket("five", "5/s", 10),
        bucket("threads", "1/h", 1200),
        window("sliding"),
        window("fixed"),
    ]);
    let config = |mode: &str| json!({"mode": mode, "policies": policies});
    let (_upstream, envoy) =
        start(workers, [tidegate("main", &config("enforce")), tidegate("control", &config("off"))]).await;
    threads(&envoy).await;
    let (buckets, windows) = tokio::join!(token_buckets(&envoy, workers), windows(&envoy, workers));
    println!(
        "published sequences, {workers} workers: certain of {} of {} steps of buckets, {} of {} of windows",
        buckets.0, buckets.1, windows.0, windows.1
    );
    assert!(buckets.0 * 2 > buckets.1 && windows.0 * 4 >= windows.1, "too few were certain: {buckets:?}, {windows:?}");
    all_took_part(&envoy, workers, &["main"]).await;
    // The control: nothing bounds it.
    let all = client::send(envoy.address("control"), Call::get("/ten").header("x-cost", "20")).await.unwrap();
    assert_eq!(all.status, 200);
}

/// nginx's `limit_req`, five a second with a burst of five: of ten at once one passes, five are delayed by 200 to 1000 ms, and
/// four are rejected.
async fn ten_at_once_come_out_of_a_leaky_bucket_as_published(workers: u32) {
    let limit = |pace: Value| {
        let mut limit = json!({"name": "r", "rate": "5/s", "burst": 1});
        limit.as_object_mut().unwrap().extend(pace.as_object().unwrap().clone());
        limits(json!([limit]))
    };
    let paced = limit(json!({"pace": {"max_wait": "1s"}}));
    let (_upstream, envoy) = start(workers, [tidegate("main", &paced), tidegate("control", &limit(json!({})))]).await;
    let ten = async |name: &str| Load::new(envoy.address(name), Schedule::burst(10)).http2(8).run().await;
    let outcomes = ten("main").await;
    let tally = outcomes.tally();
    let (mut passed, rejected): (Vec<&Outcome>, Vec<&Outcome>) =
        outcomes.all.iter().partition(|outcome| outcome.header("retry-after").is_none());
    passed.sort_by_key(|outcome| outcome.latency);
    println!("a leaky bucket, {workers} workers: {:?}", passed.iter().map(|one| one.latency).collect::<Vec<_>>());
    // One that is decided so late that others have gone on finds room again; that it did not come earlier, its place shows.
    assert!(passed.len() >= 6, "{tally}");
    for (place, outcome) in (0..).zip(&passed) {
        assert!(outcome.latency >= Duration::from_millis(200) * place, "{place}: {:?}", outcome.latency);
    }
    for outcome in rejected {
        assert_eq!(
            outcome.header("retry-after"),
            Some("2"),
            "more than the second that it may wait, and 1.2 s at most"
        );
    }
    all_took_part(&envoy, workers, &["main"]).await;
    // The control: without the delay there is room for one, and for those that come later.
    let control = ten("control").await;
    let last = control.all.iter().map(|outcome| outcome.latency).max().unwrap();
    let admitted = control.tally().admitted();
    assert!((1..=1 + (last.as_millis() / 200) as usize).contains(&admitted), "{admitted} within {last:?}");
}
