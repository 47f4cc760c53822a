//! Updates of the configuration: what did not change keeps its balances, what did leaves no pages behind.

use std::time::Instant;

use serde_json::{Value, json};
use tidegate_harness::client;
use tidegate_harness::envoy::{Envoy, Tidegate};

use crate::support::{self, InTurn, SOON, all_took_part, client, limits, tidegate, volley};
use crate::with_1_2_4_and_8_workers;

with_1_2_4_and_8_workers!(
    an_update_keeps_the_balances_of_limits_that_did_not_change,
    listeners_that_share_a_name_count_each_update_once,
);

const MEGABYTE: u64 = 1 << 20;

async fn envoy(workers: u32, config: &Value) -> Envoy {
    Envoy::builder().concurrency(workers).dynamic_listeners().listener(tidegate("main", config)).start().await.unwrap()
}

/// What each worker answers this client.
async fn statuses(envoy: &Envoy, workers: u32, who: &str) -> Vec<u16> {
    let mut all = InTurn::new(envoy, "main", workers).await;
    let mut statuses = Vec::new();
    for _ in 0..workers {
        statuses.push(all.send(client(who)).await.status);
    }
    statuses
}

async fn status(envoy: &Envoy, who: &str) -> u16 {
    client::send(envoy.address("main"), client(who)).await.unwrap().status
}

async fn an_update_keeps_the_balances_of_limits_that_did_not_change(workers: u32) {
    let config = |rate: &str, cost: u32, other: &str| {
        let mut config = limits(json!([
            {"name": "each", "rate": rate, "burst": 4, "cost": cost, "key": [{"header": "x-client"}]}]));
        config["policies"].as_array_mut().unwrap().push(json!({"name": "other", "match": {"path": other}}));
        config
    };
    let mut envoy = envoy(workers, &config("4/h", 1, "/a")).await;
    let mut all = InTurn::new(&envoy, "main", workers).await;
    for expected in [200, 200, 200, 200, 429] {
        assert_eq!(all.send(client("a")).await.status, expected);
    }
    let update = async |envoy: &mut Envoy, config: &Value| {
        envoy.update_listeners(&[tidegate("main", config)]).await.unwrap();
    };
    let rejected = vec![429; workers as usize];
    update(&mut envoy, &config("4/h", 1, "/b")).await;
    assert_eq!(statuses(&envoy, workers, "a").await, rejected, "another policy changed");
    update(&mut envoy, &config("4/h", 2, "/b")).await;
    assert_eq!(
        statuses(&envoy, workers, "a").await,
        rejected,
        "what a request costs changed, and not what a balance means"
    );
    assert_eq!(status(&envoy, "b").await, 200);
    // The control: another rate is another bucket.
    update(&mut envoy, &config("5/h", 2, "/b")).await;
    assert_eq!(status(&envoy, "a").await, 200);
    // Taken back at once, it finds its balances as they were.
    update(&mut envoy, &config("4/h", 2, "/b")).await;
    assert_eq!(statuses(&envoy, workers, "a").await, rejected);
    all_took_part(&envoy, workers, &["main"]).await;
}

async fn listeners_that_share_a_name_count_each_update_once(workers: u32) {
    let named = |listener: &str, rate: &str| {
        let config = limits(json!([{"name": "all", "rate": rate}]));
        support::listener(listener, Tidegate::new(&config).unwrap().name("same"))
    };
    let builder = Envoy::builder().concurrency(workers).dynamic_listeners();
    let builder = builder.listener(named("one", "100/h")).listener(named("two", "200/h"));
    let mut envoy = builder.start().await.unwrap();
    for (rates, updates) in [(["100/h", "200/h"], 2), (["100/h", "300/h"], 3), (["400/h", "500/h"], 5)] {
        if updates > 2 {
            envoy.update_listeners(&[named("one", rates[0]), named("two", rates[1])]).await.unwrap();
        }
        for (listener, rate) in ["one", "two"].into_iter().zip(rates) {
            let told = format!("\"all\";q={};w=3600", rate.trim_end_matches("/h"));
            // Many connections, so that each worker has taken it.
            let tally = volley(envoy.address(listener), 40, |_| client("a")).await.tally();
            assert_eq!(tally.local.get(&200), Some(&40), "{listener}: {tally}");
            let response = client::send(envoy.address(listener), client("a")).await.unwrap();
            assert_eq!(response.header("ratelimit-policy"), Some(told.as_str()));
        }
        let stats = envoy.stats().await.unwrap();
        assert_eq!(stats.stat("tidegate_config_updates_total", &[("result", "accepted")]), Some(f64::from(updates)));
        let times = usize::try_from(updates).unwrap();
        all_took_part(&envoy, workers, &["one", "two"]).await;
        let log = envoy.wait_for_log("configured: 1 policies", times, SOON).await.unwrap();
        assert_eq!(log.matches("configured: 1 policies").count(), times, "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nine_listeners_of_one_name_with_nine_settings_each_keep_their_own_budget() {
    // There was room for eight settings: the ninth took a place that was in use, and there nothing was limited any more.
    let named = |number: u32, mode: &str| {
        let mut config = limits(json!([{"name": "all", "rate": "2/h", "max_keys": number}]));
        config["mode"] = mode.into();
        support::listener(&format!("{mode}-{number}"), Tidegate::new(&config).unwrap().name("same"))
    };
    let listeners = (1..=9).map(|number| named(number, "enforce")).chain([named(10, "off")]);
    let envoy =
        listeners.fold(Envoy::builder().concurrency(4), |envoy, one| envoy.listener(one)).start().await.unwrap();
    let admitted = async |listener: &str| {
        let mut admitted = 0;
        for _ in 0..8 {
            admitted += u32::from(client::send(envoy.address(listener), client("a")).await.unwrap().status == 200);
        }
        admitted
    };
    for budget in [2, 0] {
        for number in 1..=9 {
            assert_eq!(admitted(&format!("enforce-{number}")).await, budget, "listener {number}");
        }
        // The control: without its limit everything passes.
        assert_eq!(admitted("off-10").await, 8);
    }
    let errors = envoy.stats().await.unwrap().count("tidegate_errors_total", &[("kind", "rate_limit")]);
    assert!(errors == 0.0, "{errors} errors");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_that_is_said_at_start_is_what_the_tables_take() {
    let start = async |keys: u32| {
        let limit = |name: &str, scope: &str, keys: u32| json!({"name": name, "rate": "100/s", "key": [{"header": "x-client"}], "scope": scope, "max_keys": keys});
        let config = limits(json!([limit("all", "proxy", keys), limit("own", "worker", 64)]));
        Envoy::builder().concurrency(2).listener(tidegate("main", &config)).start().await.unwrap()
    };
    let (small, large) = (start(1).await, start(1_000_000).await);
    // Pages of 64 slots of two words and a header of four, for 32 keys each, and one for the overflow budget.
    const PAGE: u64 = (64 * 2 + 4) * 8;
    let bound = (1_000_000_u64.div_ceil(32) + 1) * PAGE;
    let said =
        format!("2 rate limits, which keep at most {bound} bytes for all workers and {} bytes in each", 2 * PAGE);
    let log = large.wait_for_log(&said, 1, SOON).await.unwrap();
    assert_eq!(log.matches(&said).count(), 1, "{log}");
    let taken = large.resident_bytes().unwrap().saturating_sub(small.resident_bytes().unwrap());
    let overhead = (taken as f64 - bound as f64) / (bound / PAGE) as f64;
    println!("memory: {taken} bytes for a bound of {bound}: {overhead:.0} bytes more for each page");
    // What else the two processes take differs by a little.
    let least = bound - 4 * MEGABYTE;
    assert!((least..bound + bound / 2).contains(&taken), "{taken} for {bound}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_changes_of_a_large_limit_take_no_pages_beyond_its_places() {
    // 65 536 keys are about 2.5 MB of pages: forty changes more than there are places would leave 100 MB behind.
    let config = |change: u32| {
        limits(json!([{"name": "each", "rate": "1/h", "key": [{"header": "x-client"}], "max_keys": 65_536 - change}]))
    };
    let mut envoy = envoy(2, &config(1)).await;
    let update = async |envoy: &mut Envoy, change: u32| {
        envoy.update_listeners(&[tidegate("main", &config(change))]).await.unwrap();
        // Where changes come faster than those before are drained, the workers have no place in common for a while.
        let begun = Instant::now();
        for attempt in 0.. {
            let statuses = statuses(envoy, 2, &format!("{change}/{attempt}")).await;
            if statuses.iter().filter(|status| **status == 200).count() == 1 {
                return;
            }
            assert!(begun.elapsed() < SOON, "change {change}, attempt {attempt}: {statuses:?}");
        }
    };
    // A limit has 16 places; what the proxy itself keeps of an update is there by then too.
    for change in 2..=20 {
        update(&mut envoy, change).await;
    }
    let before = envoy.resident_bytes().unwrap();
    for change in 21..=60 {
        update(&mut envoy, change).await;
    }
    let grown = envoy.resident_bytes().unwrap().saturating_sub(before);
    println!("reload: 40 changes of a limit of 65 536 keys: {:.1} MB more", grown as f64 / MEGABYTE as f64);
    assert!(grown < 40 * MEGABYTE, "{grown} bytes");
}
