//! Any number of keys in memory that was fixed beforehand.

use std::time::Instant;

use serde_json::{Value, json};
use tidegate_harness::client::{Call, flood};
use tidegate_harness::envoy::{Envoy, HttpFilter};

use crate::support::{InTurn, all_took_part, client, limits, listener, tidegate};
use crate::with_1_2_4_and_8_workers;

with_1_2_4_and_8_workers!(
    fresh_keys_neither_reset_an_exhausted_key_nor_grow_memory,
    keys_of_any_length_and_bytes_have_budgets_of_their_own,
);

/// How many fresh keys come: `TIDEGATE_FRESH_KEYS`, or enough to turn the table over twenty times, and with four workers so many
/// that 21 bytes kept of each would show.
fn fresh_keys(workers: u32) -> usize {
    let default = if workers == 4 { 200_000 } else { 40_000 };
    std::env::var("TIDEGATE_FRESH_KEYS").map_or(default, |text| text.parse().expect("TIDEGATE_FRESH_KEYS is no number"))
}

const MEGABYTE: u64 = 1 << 20;

/// The next token comes after hours, however long the keys take.
fn config() -> Value {
    limits(json!([{"name": "each", "rate": "5/d", "key": [{"header": "x-client"}], "max_keys": 1024}]))
}

async fn fresh_keys_neither_reset_an_exhausted_key_nor_grow_memory(workers: u32) {
    // Envoy itself answers: only the limits are at work.
    let native = HttpFilter::local_buckets_by_header("x-client", 1024, 5, "86400s");
    let builder = Envoy::builder().concurrency(workers).listener(tidegate("main", &config()));
    let envoy = builder.listener(listener("native", native)).start().await.unwrap();
    let keys = fresh_keys(workers);
    for name in ["main", "native"] {
        let at = envoy.address(name);
        let mut all = InTurn::new(&envoy, name, workers).await;
        let mut victim = async || all.send(client("victim")).await.status;
        for _ in 0..5 {
            assert_eq!(victim().await, 200, "{name}");
        }
        assert_eq!(victim().await, 429, "{name}");
        // Warm-up: the table fills, connections open, the allocator takes what it takes.
        flood(at, keys / 4, 8, |number| format!("x-client: warm-{number}")).await.unwrap();
        let warm = envoy.resident_bytes().unwrap();
        let start = Instant::now();
        let statuses = flood(at, keys, 8, |number| format!("x-client: fresh-{number}")).await.unwrap();
        let (took, grown) = (start.elapsed(), envoy.resident_bytes().unwrap().saturating_sub(warm));
        let after = victim().await;
        println!(
            "{keys} fresh keys, {workers} workers, {name}: then the exhausted key gets {after}; memory grew by {:.1} MB \
             of {:.0}; {statuses:?}, {:.0}/s",
            grown as f64 / MEGABYTE as f64,
            warm as f64 / MEGABYTE as f64,
            keys as f64 / took.as_secs_f64(),
        );
        if name == "main" {
            assert_eq!(after, 429, "an exhausted key stays exhausted");
            assert!(grown < 4 * MEGABYTE, "{grown} bytes");
            let stats = envoy.stats().await.unwrap();
            let overflow = stats.count("tidegate_rate_limit_overflow_total", &[("policy", "p"), ("limit", "each")]);
            // The table has room for twice the keys at most.
            assert!(overflow >= (keys + keys / 4 - 2048) as f64, "{overflow}");
        } else {
            // The control forgets whom it has not seen for long, and with him what he has used.
            assert_eq!(after, 200, "a table that forgets the oldest gives a new budget");
        }
    }
    all_took_part(&envoy, workers, &["main", "native"]).await;
}

async fn keys_of_any_length_and_bytes_have_budgets_of_their_own(workers: u32) {
    let envoy = Envoy::builder().concurrency(workers).listener(tidegate("main", &config())).start().await.unwrap();
    let mut all = InTurn::new(&envoy, "main", workers).await;
    let long = |last: &str| "k".repeat(20_000) + last;
    let odd: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"a".to_vec(),
        b"a b".to_vec(),
        b"\xff\xfe\x80".to_vec(),
        b"\xff\xfe\x81".to_vec(),
        long("1").into_bytes(),
        long("2").into_bytes(),
    ];
    for key in &odd {
        let mut statuses = Vec::new();
        for _ in 0..7 {
            let call = Call::get("/").header("x-client", key);
            statuses.push(all.send(call).await.status);
        }
        assert_eq!(statuses, [200, 200, 200, 200, 200, 429, 429], "{:?}", String::from_utf8_lossy(key));
    }
    all_took_part(&envoy, workers, &["main"]).await;
}
