//! An outage, seen through a breaker, through Envoy's outlier detection and through neither, side by side.

use std::time::Duration;

use serde_json::json;
use tidegate_harness::client::{Call, Ending, Load, Outcome, Outcomes, Schedule};
use tidegate_harness::envoy::{Cluster, Envoy, Listener, Route};
use tidegate_harness::upstream::{Behaviour, Upstream};

use crate::support::main_listener;
use crate::{config, with_1_2_4_and_8_workers};

with_1_2_4_and_8_workers!(goodput_is_back_within_two_seconds_of_the_probes_success);

const RATE: f64 = 100.0;
const OUTAGE: std::ops::Range<f64> = 1.0..4.2;

/// Failures in a row that trip the breaker, and eject the endpoint.
const FAILURES: usize = 5;

/// What one listener's clients and upstream saw.
struct Account {
    outcomes: Outcomes,
    /// Requests that reached the upstream during the outage.
    wasted: usize,
}

impl Account {
    fn ended(outcome: &Outcome) -> f64 {
        (outcome.intended + outcome.latency).as_secs_f64()
    }

    fn good(outcome: &Outcome) -> bool {
        matches!(outcome.ending, Ending::Answered(200))
    }

    /// Good answers to the requests that were meant to leave in the half second from `from` on.
    fn goodput(&self, from: f64) -> usize {
        let within = |outcome: &&Outcome| (from..from + 0.5).contains(&outcome.intended.as_secs_f64());
        self.outcomes.all.iter().filter(within).filter(|outcome| Self::good(outcome)).count()
    }

    /// From which moment after `after` on as many answers were good as without a filter, less a twentieth. There at least half
    /// must be good.
    fn recovered(&self, control: &Self, after: f64) -> f64 {
        let moments = (0..100).map(|twentieth| after + f64::from(twentieth) * 0.05);
        let is_back = |moment: &f64| {
            let healthy = control.goodput(*moment) as f64;
            healthy >= RATE * 0.5 * 0.5 && self.goodput(*moment) as f64 >= healthy * 0.95
        };
        moments.into_iter().find(is_back).unwrap_or(f64::INFINITY)
    }

    /// Requests that left when a client had had the failures that trip, and failed at the upstream for all that.
    fn in_vain(&self) -> usize {
        let failed = |outcome: &&Outcome| matches!(outcome.ending, Ending::Answered(503));
        let mut known: Vec<_> = self.outcomes.all.iter().filter(failed).map(Self::ended).collect();
        known.sort_by(f64::total_cmp);
        let known = known[FAILURES - 1];
        self.outcomes.all.iter().filter(failed).filter(|outcome| outcome.sent.as_secs_f64() > known).count()
    }

    /// The median time, in milliseconds, to a bad answer during the outage.
    fn median_error(&self) -> f64 {
        let during = |outcome: &Outcome| OUTAGE.contains(&outcome.intended.as_secs_f64()) && !Self::good(outcome);
        self.outcomes.latencies(during).percentile(50.0).as_secs_f64() * 1000.0
    }
}

/// Sends load through a listener to an upstream that takes a fifth of a second to fail, from second 1 to second 4.2.
async fn outage(envoy: &Envoy, listener: &str, upstream: &Upstream) -> Account {
    let schedule = Schedule::constant(RATE, Duration::from_secs(11));
    let load = Load::new(envoy.address(listener), schedule).name(listener).calls(|_, _| Call::get("/")).run();
    let turns = async {
        // The script's own times, not a wait for anything.
        tokio::time::sleep(Duration::from_secs_f64(OUTAGE.start)).await;
        upstream.fail(Behaviour::respond(503).delay(Duration::from_millis(200)));
        let before = upstream.total();
        tokio::time::sleep(Duration::from_secs_f64(OUTAGE.end - OUTAGE.start)).await;
        upstream.recover();
        upstream.total() - before
    };
    let (outcomes, wasted) = tokio::join!(load, turns);
    Account { outcomes, wasted }
}

async fn goodput_is_back_within_two_seconds_of_the_probes_success(workers: u32) {
    let upstreams =
        [Upstream::start().await.unwrap(), Upstream::start().await.unwrap(), Upstream::start().await.unwrap()];
    let breaker =
        json!({"consecutive_failures": FAILURES, "open_duration": "1s", "half_open": {"probes": 3, "timeout": "10s"}});
    let ejecting = json!({
        "outlier_detection": {
            "consecutive_5xx": FAILURES, "interval": "0.5s", "base_ejection_time": "1s", "max_ejection_percent": 100,
            "enforcing_success_rate": 0, "enforcing_failure_percentage": 0
        },
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}}
    });
    let envoy = Envoy::builder()
        .concurrency(workers)
        .cluster(Cluster::new("guarded", upstreams[0].address()))
        .cluster(Cluster::new("ejecting", upstreams[1].address()).raw(ejecting))
        .cluster(Cluster::new("bare", upstreams[2].address()))
        .listener(main_listener(&config(&breaker)).route(Route::prefix("/", "guarded")))
        .listener(Listener::new("ejecting").route(Route::prefix("/", "ejecting")))
        .listener(Listener::new("bare").route(Route::prefix("/", "bare")))
        .start()
        .await
        .unwrap();
    let (guarded, ejecting, bare) = tokio::join!(
        outage(&envoy, "main", &upstreams[0]),
        outage(&envoy, "ejecting", &upstreams[1]),
        outage(&envoy, "bare", &upstreams[2]),
    );
    // The probes' success is the third good answer after the outage's first bad one.
    let bad = guarded.outcomes.all.iter().find(|outcome| !Account::good(outcome)).map(Account::ended).unwrap();
    let mut good: Vec<_> = guarded
        .outcomes
        .all
        .iter()
        .filter(|outcome| Account::good(outcome) && outcome.sent.as_secs_f64() > bad)
        .map(Account::ended)
        .collect();
    good.sort_by(f64::total_cmp);
    let probed = good[2];
    let back = guarded.recovered(&bare, probed) - probed;
    for (name, account) in [("Tidegate", &guarded), ("outlier detection", &ejecting), ("no filter", &bare)] {
        println!(
            "{workers} workers, {name}: {} reached the upstream in the outage, {} of them in vain, \
             errors after {:.0} ms, recovered {:.2} s after the upstream",
            account.wasted,
            account.in_vain(),
            account.median_error(),
            account.recovered(&bare, OUTAGE.end) - OUTAGE.end,
        );
    }
    println!("{workers} workers: 95 % of the control's goodput {back:.2} s after the probes' success");
    assert!(back <= 2.0, "{back} s after the probes' success");
    // The controls: both go on sending what can only fail, the one for ever, the other after each ejection.
    // Only those count that left when it could be known: how many leave before is the machine's doing.
    let [guarded, ejecting, bare] = [guarded, ejecting, bare].map(|account| account.in_vain());
    assert!(guarded * 3 < bare, "{guarded} requests, {bare} without a filter");
    assert!(bare > 100, "{bare} without a filter");
    assert!(guarded < ejecting, "{guarded} against {ejecting}");
}
