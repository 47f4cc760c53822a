//! Which requests a queue that does not drain takes patience from.

use std::collections::HashSet;

use super::workers::{Admitted, Answer, SECOND, Workers};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const MS: u64 = SECOND / 1000;
const CRITICAL: &[(&str, &str)] = &[("x-level", "critical")];

/// Ten places of 20 ms each, for ten seconds. Every 200 ms come so many critical requests at once; batch requests, which may
/// have half of the places, come `batch` a second. How many critical ones are lost, and how many of the others.
fn lost(workers: usize, order: &str, critical: usize, batch: u64) -> (usize, usize) {
    let config = format!(
        r#"{{"policies": [{{"name": "p", "load_shedding": {{"limit": {{"algorithm": "fixed", "limit": 10}},
            "queue": {{"max_wait": "100ms", "max_length": 100, "order": "{order}"}},
            "priority": {{"levels": [
                {{"name": "critical", "match": {{"headers": [{{"name": "x-level", "exact": "critical"}}]}}}},
                {{"name": "batch", "share": 50}}], "default": "batch"}}}}}}]}}"#
    );
    let mut proxy = Workers::new(workers, &config);
    let (mut waiting, mut flying): (Vec<Admitted>, Vec<(u64, Admitted)>) = (Vec::new(), Vec::new());
    let (mut asked, mut criticals, mut lost) = (0, HashSet::new(), (0, 0));
    for ms in 0..10_000 {
        let now = proxy.now;
        let done: Vec<_> = flying.extract_if(.., |(end, _)| *end <= now).map(|(_, done)| done).collect();
        for done in done {
            proxy.answer(done, &Answer::status("200"));
        }
        for worker in 0..workers {
            for (number, what) in proxy.wake(worker, &mut waiting) {
                match what {
                    Ok(entered) => flying.push((now + 20 * MS, entered)),
                    Err(_) if criticals.contains(&number) => lost.0 += 1,
                    Err(_) => lost.1 += 1,
                }
            }
        }
        let batch = usize::from(batch > 0 && ms % (1000 / batch.max(1)) == 0);
        let critical = if ms % 200 == 100 { critical } else { 0 };
        for number in 0..batch + critical {
            asked += 1;
            let is_critical = number >= batch;
            if is_critical {
                criticals.insert(asked);
            }
            match proxy.ask(asked as usize % workers, if is_critical { CRITICAL } else { &[] }) {
                Ok(one) if one.queued => waiting.push(one),
                Ok(one) => flying.push((now + 20 * MS, one)),
                Err(_) if is_critical => lost.0 += 1,
                Err(_) => lost.1 += 1,
            }
        }
        if ms % 500 == 0 {
            proxy.tick();
        }
        proxy.advance(MS);
    }
    lost
}

/// Whether the queue stands was judged by all who wait: batch requests, of which some always do, took the patience of critical
/// ones, of which a fifth was lost.
#[test]
fn what_always_waits_takes_no_patience_from_what_is_more_important() {
    for workers in [1, 2, 4] {
        for batch in [0, 500, 1000] {
            let (critical, others) = lost(workers, "adaptive_lifo", 15, batch);
            println!("{workers} workers, {batch} a second: {critical} critical lost, {others} others");
            assert_eq!((critical, others > 0), (0, batch > 0), "{workers} workers, {batch} a second");
        }
    }
    // The control: of more than are served within the longest wait some are lost.
    assert!(lost(1, "adaptive_lifo", 80, 500).0 > 0);
}
