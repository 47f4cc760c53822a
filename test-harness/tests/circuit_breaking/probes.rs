//! Probes: counted over all workers, given back when cancelled, given up when unanswered.

use std::time::Duration;

use serde_json::json;
use tidegate_harness::client::{Call, Cancel, Connection, Ended};
use tidegate_harness::upstream::Behaviour;
use tidegate_harness::{Gate, Step};

use crate::support::{Rig, SOON, until};
use crate::{
    CLOSED, CONNECTIONS, HALF_OPEN, OPEN, all_took_part, breaker, crowd, transitions, trip, trips,
    wait_for_transitions, with_1_2_4_and_8_workers,
};

with_1_2_4_and_8_workers!(
    of_a_thousand_waiting_requests_exactly_the_probes_pass,
    probes_that_are_cancelled_or_never_answered_do_not_hang_it,
);

async fn a_thousand(rig: &Rig) -> tidegate_harness::client::Tally {
    crowd(rig.main(), 1000, CONNECTIONS, "/").await.tally()
}

async fn of_a_thousand_waiting_requests_exactly_the_probes_pass(workers: u32) {
    let rig = crate::guarded(workers, &breaker("1s", 3, "60s")).await;
    let gate = Gate::new();
    trip(&rig).await;
    rig.upstream.always(Behaviour::respond(200).hold(&gate));
    // One thousand after the other, so that one of them is waiting when the open time ends. Only probes are kept.
    let mut volleys = Vec::new();
    until(async || {
        volleys.push(tokio::spawn(crowd(rig.main(), 1000, CONNECTIONS, "/")));
        tokio::time::timeout(Duration::from_millis(400), rig.upstream.wait_for_concurrent(3, SOON))
            .await
            .map(Result::unwrap)
            .map_err(|_| "no probes yet")
    })
    .await;
    let tally = a_thousand(&rig).await;
    assert_eq!(tally.rejected_by("upstreams", "circuit_open"), 1000, "{tally}");
    assert_eq!((rig.upstream.concurrent(), rig.upstream.total()), (3, 13));
    all_took_part(&rig, workers).await;
    rig.wait_for_breaker("upstreams", "upstream", HALF_OPEN).await;
    // Everybody else has been turned away before the probes are answered.
    until(async || match rig.decisions("upstreams", "circuit_open").await {
        rejected if rejected == volleys.len() * 1000 + 1000 - 3 => Ok(()),
        rejected => Err(format!("{rejected} rejected")),
    })
    .await;
    gate.open();
    let (mut admitted, mut rejected) = (0, 0);
    for volley in volleys {
        let tally = volley.await.unwrap().tally();
        admitted += tally.admitted();
        rejected += tally.rejected_by("upstreams", "circuit_open");
    }
    assert_eq!(admitted, 3);
    println!("{workers} workers: 3 of {} passed", admitted + rejected + 1000);
    rig.wait_for_breaker("upstreams", "upstream", CLOSED).await;
    for _ in 0..40 {
        assert_eq!(tidegate_harness::client::get(rig.main(), "/").await.unwrap().status, 200);
    }
    for to in ["open", "half_open", "closed"] {
        assert_eq!(transitions(&rig.envoy, to).await, 1, "to {to}");
    }
}

/// Sends requests whose clients leave after 40 ms, one at a time, until `done`.
async fn impatient<E: std::fmt::Display>(rig: &Rig, mut done: impl AsyncFnMut() -> Result<(), E>) {
    let leaving = Call::get("/").cancel(Cancel::After(Duration::from_millis(40)));
    until(async || {
        let ended = Connection::open(rig.main(), false).await.unwrap().run(leaving.clone()).await.unwrap();
        assert!(
            matches!(&ended, Ended::Cancelled(_)) || matches!(&ended, Ended::Answered(answer) if answer.status == 503)
        );
        done().await
    })
    .await;
    rig.wait_for_idle("upstreams").await;
}

/// Each client left before the timeout, each gave its place to the next, and so the round never ended.
async fn probes_that_are_cancelled_or_never_answered_do_not_hang_it(workers: u32) {
    let rig = crate::guarded(workers, &breaker("0.5s", 2, "2s")).await;
    trip(&rig).await;
    let gate = Gate::new();
    // The control comes first: an upstream that says something good to those who leave is well.
    let talking = vec![Step::Data("event".into()), Step::Hold(gate.clone())];
    rig.upstream.always(Behaviour::respond(200).steps(talking));
    impatient(&rig, async || match transitions(&rig.envoy, "closed").await {
        1 => Ok(()),
        _ => Err(format!("still half-open after {} probes", rig.upstream.total() - 10)),
    })
    .await;
    assert_eq!((transitions(&rig.envoy, "half_open").await, transitions(&rig.envoy, "open").await), (1, 1));

    rig.upstream.always(Behaviour::respond(200));
    trip(&rig).await;
    rig.upstream.always(Behaviour::respond(200).hold(&gate));
    let before = rig.upstream.total();
    impatient(&rig, async || match trips(&rig.envoy, "probe_timeout").await {
        1 => Ok(()),
        _ => Err(format!("still half-open after {} probes", rig.upstream.total() - before)),
    })
    .await;
    let probes = rig.upstream.total() - before;
    println!("{workers} workers: {probes} clients left before it opened again");
    assert!(probes >= 3, "one of them waited for half of the time");
    rig.wait_for_breaker("upstreams", "upstream", OPEN).await;

    // Two stay, and are never answered: without any request that would notice, it opens again.
    let mut waiting = Vec::new();
    until(async || {
        waiting.push(tokio::spawn(crowd(rig.main(), 2, 2, "/")));
        match rig.upstream.concurrent() {
            2 => Ok(()),
            now => Err(format!("{now} probes")),
        }
    })
    .await;
    wait_for_transitions(&rig, "open", 4).await;
    assert_eq!(trips(&rig.envoy, "probe_timeout").await, 2);
    assert_eq!(rig.upstream.concurrent(), 2, "the requests themselves go on");
    // Their answers come too late to mean anything.
    gate.open();
    let mut admitted = 0;
    for waiting in waiting {
        admitted += waiting.await.unwrap().tally().admitted();
    }
    assert_eq!(admitted, 2);
    rig.wait_for_idle("upstreams").await;
    rig.wait_for_breaker("upstreams", "upstream", OPEN).await;
    assert_eq!(transitions(&rig.envoy, "closed").await, 1);

    // The control: probes that are answered close it.
    until(async || {
        crowd(rig.main(), 2, 2, "/").await;
        match transitions(&rig.envoy, "closed").await {
            1 => Ok(()),
            _ => Err("not closed"),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limited_probe_fails_but_a_rate_limited_call_is_no_consecutive_failure() {
    let breaker = json!({
        "consecutive_failures": 5, "failure_rate_threshold": 0, "open_duration": "0.5s",
        "half_open": {"probes": 1, "timeout": "60s"}
    });
    let rig = crate::guarded(2, &breaker).await;
    let answers = |statuses: &[u16]| statuses.iter().map(|status| Behaviour::respond(*status)).collect::<Vec<_>>();
    let send = async |statuses: &[u16]| {
        rig.upstream.enqueue(answers(statuses));
        for status in statuses {
            assert_eq!(tidegate_harness::client::get(rig.main(), "/").await.unwrap().status, *status);
        }
        rig.wait_for_idle("upstreams").await;
    };
    send(&[503, 503, 503, 503, 429, 503, 503, 503, 503]).await;
    assert_eq!(transitions(&rig.envoy, "open").await, 0);
    send(&[503]).await;
    wait_for_transitions(&rig, "open", 1).await;
    assert_eq!(trips(&rig.envoy, "consecutive_failures").await, 1);
    rig.upstream.always(Behaviour::respond(429));
    until(async || {
        let status = tidegate_harness::client::get(rig.main(), "/").await.unwrap().status;
        if status == 429 { Ok(()) } else { Err(format!("{status}")) }
    })
    .await;
    wait_for_transitions(&rig, "open", 2).await;
    assert_eq!(trips(&rig.envoy, "probe_failed").await, 1);
}
