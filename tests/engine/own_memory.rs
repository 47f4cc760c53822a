//! What limits keep in each worker has a bound: a VM has only so much memory, and where it ends the VM ends.

use tidegate::config;
use tidegate::engine::stats::Registry;
use tidegate::engine::{Engine, Env, MOST_OWN_BYTES, SplitMix64};
use tidegate::share::Memory;

use super::nothing::Nothing;
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Configures a worker that has this memory of its own.
fn configure(own: &Memory, limits: &str) -> Result<(u64, u64), String> {
    configure_all(own, &format!(r#"{{"policies": [{{"name": "p", "rate_limits": [{limits}]}}]}}"#))
        .map(|(rates, _)| rates)
}

/// What its rate limits keep, and its bulkheads.
fn configure_all(own: &Memory, text: &str) -> Result<((u64, u64), u64), String> {
    let config = config::read(text.as_bytes()).expect("a valid configuration");
    let (share, stats, mut random) = (Memory::lazy(), Registry::default(), SplitMix64::new(1));
    let mut env = Env {
        now: 1,
        share: &share,
        own,
        random: &mut random,
        metrics: &Nothing,
        stats: &stats,
        may_wait: true,
        hash_key: (1, 2),
    };
    Engine::new(&config, &[], "test", &mut env).map(|engine| (engine.rate_limit_bytes(), engine.bulkhead_bytes()))
}

/// The largest limit there is.
fn largest(name: &str, rate: &str, scope: &str) -> String {
    format!(
        r#"{{"name": "{name}", "rate": "{rate}", "algorithm": "sliding_window", "key": [{{"header": "x"}}],
            "max_keys": 4194304, "scope": "{scope}"}}"#
    )
}

#[test]
fn what_limits_keep_in_a_worker_has_a_bound_over_all_of_them() {
    // Four of these ended the VM while it was configured: 1.09 GB where a VM has 1 GiB.
    let four = |scope: &str| ["a", "b", "c", "d"].map(|name| largest(name, "9/s", scope)).join(",");
    let refused = configure(&Memory::lazy(), &four("worker")).expect_err("more than there is");
    for part in ["policy p", "rate limit b", "`max_keys` 4194304", "402653184"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    // Any one fits, and what all workers share together is not theirs to keep.
    let (shared, own) = configure(&Memory::lazy(), &largest("a", "9/s", "worker")).expect("it fits");
    assert!(shared == 0 && own > 272_000_000 && own <= MOST_OWN_BYTES, "{own}");
    assert_eq!(configure(&Memory::lazy(), &four("proxy")), Ok((4 * own, 0)));
}

#[test]
fn settings_that_are_changed_while_those_before_drain_cannot_fill_the_memory_of_a_worker() {
    let own = Memory::lazy_within(2 * MOST_OWN_BYTES);
    for rate in ["1/s", "2/s"] {
        configure(&own, &largest("a", rate, "worker")).expect("the one before and the next");
    }
    // The third would be 818 MB once all keys are there.
    let refused = configure(&own, &largest("a", "3/s", "worker")).expect_err("no room");
    assert!(refused.contains("policy p") && refused.contains("rate limit"), "{refused}");
    configure(&own, &largest("a", "2/s", "worker")).expect("these are there already");
    // The control: without an end there is room for it.
    let endless = Memory::lazy();
    for rate in ["1/s", "2/s", "3/s"] {
        configure(&endless, &largest("a", rate, "worker")).expect("no end");
    }
}

/// A bulkhead for each of so many tenants, with all that a key can cost.
fn bulkheads(name: &str, max_keys: u32, levels: usize) -> String {
    let level = |level: usize| format!(r#"{{"name": "l{level}", "match": {{"method": "GET"}}}}"#);
    let levels: Vec<_> = (0..levels).map(level).collect();
    format!(
        r#"{{"name": "{name}", "load_shedding": {{"key": [{{"header": "x"}}], "max_keys": {max_keys}, "queue": {{}},
            "priority": {{"levels": [{}]}}}}}}"#,
        levels.join(",")
    )
}

#[test]
fn what_bulkheads_keep_in_a_worker_has_the_same_bound() {
    let policies =
        |policies: &[String]| configure_all(&Memory::lazy(), &format!(r#"{{"policies": [{}]}}"#, policies.join(",")));
    // Whatever one policy may ask for fits, and so do the usual ones, many of them.
    let (_, most_of_one) = policies(&[bulkheads("p", 65_536, 16)]).expect("it fits");
    assert!(most_of_one > MOST_OWN_BYTES / 2 && most_of_one <= MOST_OWN_BYTES, "{most_of_one}");
    let usual: Vec<_> = (0..100).map(|policy| bulkheads(&format!("p{policy}"), 1024, 4)).collect();
    let (_, hundred) = policies(&usual).expect("they fit");
    assert!(hundred <= MOST_OWN_BYTES, "{hundred}");
    // Two of the largest ended the VM once all keys had been seen and somebody had waited at each.
    let refused = policies(&[bulkheads("p", 65_536, 16), bulkheads("q", 65_536, 16)]).expect_err("more than there is");
    let (bytes, sum, most) = (most_of_one, 2 * most_of_one, MOST_OWN_BYTES);
    assert_eq!(
        refused,
        format!(
            "policy q: load shedding: with its {bytes} bytes for `max_keys` 65536 the limits keep {sum} bytes in each worker, and \
             the most is {most}"
        )
    );
    // Rate limits of which each worker keeps its own count with them.
    let rates = format!(r#"{{"name": "r", "rate_limits": [{}]}}"#, largest("a", "9/s", "worker"));
    let refused = policies(&[rates.clone(), bulkheads("p", 65_536, 16)]).expect_err("together they are too much");
    assert!(refused.starts_with("policy p: load shedding: "), "{refused}");
    policies(&[rates, bulkheads("p", 1024, 16)]).expect("these fit");
    // Off, it keeps nothing; and without a key there is one limit, whatever `max_keys` says.
    let off = bulkheads("q", 65_536, 16).replacen(r#""load_shedding""#, r#""mode": "off", "load_shedding""#, 1);
    policies(&[bulkheads("p", 65_536, 16), off]).expect("one is off");
    let keyless = bulkheads("q", 65_536, 16).replacen(r#"[{"header": "x"}]"#, "[]", 1);
    assert_eq!(policies(&[bulkheads("p", 65_536, 16), keyless]).expect("one has no key"), ((0, 0), most_of_one));
}
