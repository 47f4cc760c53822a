//! Modes: shadow counts what enforce would reject, off does nothing, and a percentage enforces that share.

use serde_json::{Value, json};
use tidegate_harness::Gate;
use tidegate_harness::client::{self, Call};
use tidegate_harness::envoy::{Listener, Tidegate};
use tidegate_harness::upstream::Behaviour;

use crate::support::{Rig, SOON, count, crowd, until, volley, volley_beside};
use crate::with_one_and_four_workers;

with_one_and_four_workers!(
    shadow_counts_what_enforce_rejects_and_rejects_nothing,
    the_stricter_of_both_modes_holds,
    a_percentage_of_rejections_is_enforced,
);

/// A filter of its own name, since filters of the same name share what their policies have in common.
fn listener(name: &str, config: &Value) -> Listener {
    Listener::new(name).filter(Tidegate::new(config).unwrap().name(name))
}

/// The same controls under names that tell one mode's stats from the other's.
fn config(mode: &str) -> Value {
    let named = |control: &str| format!("{mode}-{control}");
    json!({"mode": mode, "policies": [
        {"name": named("rates"), "match": {"path": "/rates"}, "rate_limits": [{"name": "all", "rate": "1/h", "burst": 20}]},
        {"name": named("places"), "match": {"path": "/places"}, "load_shedding": {"limit": {"algorithm": "fixed", "limit": 5}}},
        {"name": named("breaker"), "match": {"path": "/breaker"}, "circuit_breaker": {"minimum_calls": 10, "open_duration": "60s"}},
        {"name": named("joint"), "match": {"path": "/joint"},
            "rate_limits": [{"name": "all", "rate": "1/h", "burst": 20}],
            "load_shedding": {"limit": {"algorithm": "fixed", "limit": 2}}},
        {"name": named("bounds"), "match": {"path": "/bounds"}, "request_limits": {"max_path_bytes": 10}},
    ]})
}

async fn shadow_counts_what_enforce_rejects_and_rejects_nothing(workers: u32) {
    let rig = Rig::with(workers, ["shadow", "enforce", "off"].map(|mode| listener(mode, &config(mode)))).await;
    for (mode, prefix) in [("shadow", "shadow_"), ("enforce", ""), ("off", "")] {
        let at = rig.envoy.address(mode);
        let rejects = |number: usize| if mode == "enforce" { number } else { 0 };
        let counts = |number: usize| if mode == "off" { 0 } else { number };
        let check = async |control: &str, decision: &str, admitted: usize, rejected: usize| {
            let policy = format!("{mode}-{control}");
            let found = rig.decisions(&policy, &format!("{prefix}{decision}")).await;
            assert_eq!(found, counts(rejected), "{policy}");
            assert_eq!(rig.decisions(&policy, &format!("{prefix}admitted")).await, counts(admitted), "{policy}");
        };

        let tally = volley(at, 100, |_| Call::get("/rates")).await.tally();
        assert_eq!((tally.admitted(), tally.rejections()), (100 - rejects(80), rejects(80)), "{mode}: {tally}");
        check("rates", "rate_limited", 20, 80).await;

        let gate = Gate::new();
        rig.upstream.always(Behaviour::respond(200).hold(&gate));
        let held = volley_beside(at, 12, |_| Call::get("/places"));
        rig.upstream.wait_for_concurrent(12 - rejects(7), SOON).await.unwrap();
        if mode != "off" {
            rig.wait_for_decisions(&format!("{mode}-places"), &format!("{prefix}overloaded"), 7).await;
        }
        gate.open();
        let tally = held.await.unwrap().tally();
        assert_eq!(tally.rejections(), rejects(7), "{mode}: {tally}");
        check("places", "overloaded", 5, 7).await;

        // One control's refusal costs the policy's others nothing, carried out or not.
        let gate = Gate::new();
        rig.upstream.always(Behaviour::respond(200).hold(&gate));
        let held = volley_beside(at, 12, |_| Call::get("/joint"));
        rig.upstream.wait_for_concurrent(12 - rejects(10), SOON).await.unwrap();
        if mode != "off" {
            rig.wait_for_decisions(&format!("{mode}-joint"), &format!("{prefix}overloaded"), 10).await;
        }
        gate.open();
        assert_eq!(held.await.unwrap().tally().rejections(), rejects(10), "{mode}");
        if mode != "off" {
            rig.wait_for_idle(&format!("{mode}-joint")).await;
        }
        for _ in 0..19 {
            client::get(at, "/joint").await.unwrap();
        }
        check("joint", "overloaded", 20, 10).await;
        check("joint", "rate_limited", 20, 1).await;

        rig.upstream.always(Behaviour::respond(503));
        for _ in 0..10 {
            client::get(at, "/breaker").await.unwrap();
        }
        if mode != "off" {
            rig.wait_for_breaker(&format!("{mode}-breaker"), "upstream", 1).await;
        }
        let tally = volley(at, 30, |_| Call::get("/breaker")).await.tally();
        assert_eq!(tally.rejections(), rejects(30), "{mode}: {tally}");
        check("breaker", "circuit_open", 10, 30).await;

        rig.upstream.always(Behaviour::respond(200));
        let response = client::get(at, "/bounds?too=long").await.unwrap();
        assert_eq!(response.status, if mode == "enforce" { 414 } else { 200 }, "{mode}");
        check("bounds", "invalid_request", 0, 1).await;
        if mode != "enforce" {
            assert_eq!(response.reason(), None);
        }
    }
}

async fn the_stricter_of_both_modes_holds(workers: u32) {
    let settings = [
        ("enforce", "enforce", "rate_limited"),
        ("enforce", "shadow", "shadow_rate_limited"),
        ("enforce", "off", ""),
        ("shadow", "enforce", "shadow_rate_limited"),
        ("shadow", "off", ""),
        ("off", "enforce", ""),
    ];
    let name = |top: &str, own: &str| format!("{top}-{own}");
    let listeners = settings.map(|(top, own, _)| {
        let limits = json!([{"name": "all", "rate": "1/h"}]);
        let policy = json!({"name": name(top, own), "mode": own, "rate_limits": limits});
        listener(&name(top, own), &json!({"mode": top, "policies": [policy]}))
    });
    let rig = Rig::with(workers, listeners).await;
    for (top, own, decision) in settings {
        let name = name(top, own);
        let statuses = [(); 2].map(|()| client::get(rig.envoy.address(&name), "/"));
        let [first, second] = statuses;
        let first = first.await.unwrap();
        let second = second.await.unwrap();
        let expected = if decision == "rate_limited" { 429 } else { 200 };
        assert_eq!((first.status, second.status), (200, expected), "{name}");
        for possible in ["rate_limited", "shadow_rate_limited"] {
            let counted = rig.decisions(&name, possible).await;
            assert_eq!(counted, usize::from(possible == decision), "{name}: {possible}");
        }
    }
}

async fn a_percentage_of_rejections_is_enforced(workers: u32) {
    let limits = json!([{"name": "all", "rate": "1/h"}]);
    let policy = |percent: u32| {
        let name = format!("p{percent}");
        json!({"name": name, "match": {"path": format!("/{name}")}, "enforce_percent": percent, "rate_limits": limits})
    };
    let rig = Rig::new(workers, &json!({"policies": [policy(0), policy(50), policy(100)]})).await;
    let sent = 2001;
    for (percent, least, most) in [(0, 0, 0), (50, 840, 1160), (100, 2000, 2000)] {
        let name = format!("p{percent}");
        let path = format!("/{name}");
        let decisions = crowd(rig.main(), sent, move |_| Call::get(path.as_str())).await;
        // A half of 2000 has a standard deviation of 22.4: these bounds are more than seven of them away.
        let rejected = count(&decisions, "rate_limited");
        assert_eq!(count(&decisions, "admitted") + rejected, sent);
        assert!((least..=most).contains(&rejected), "{percent} %: {rejected} of {sent}");
        until(async || {
            let counted = [
                rig.decisions(&name, "admitted").await,
                rig.decisions(&name, "rate_limited").await,
                rig.decisions(&name, "shadow_rate_limited").await,
            ];
            let expected = [1, rejected, 2000 - rejected];
            if counted == expected { Ok(()) } else { Err(format!("{percent} %: {counted:?}, not {expected:?}")) }
        })
        .await;
    }
}
