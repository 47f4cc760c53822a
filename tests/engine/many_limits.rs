//! Many limits with somebody waiting at each: what one look may cost, and who is found all the same.

use super::workers::{Admitted, Answer, Workers};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const TENANTS: usize = 1_000;

/// One place for each tenant, taken at one worker; somebody waits for it at another.
fn proxy() -> (Workers, Vec<Admitted>, Vec<Admitted>) {
    let config = r#"{"policies": [{"name": "p", "load_shedding": {
        "limit": {"algorithm": "fixed", "limit": 1}, "key": [{"header": "x-tenant"}],
        "queue": {"max_wait": "1m", "order": "fifo"}}}]}"#;
    let mut proxy = Workers::new(2, config);
    let names: Vec<_> = (0..TENANTS).map(|tenant| tenant.to_string()).collect();
    let mut ask = |worker| -> Vec<_> {
        names.iter().map(|name| proxy.ask(worker, &[("x-tenant", name.as_str())]).unwrap()).collect()
    };
    let (held, waiting) = (ask(0), ask(1));
    (proxy, held, waiting)
}

/// How many looks it takes until somebody's turn has come; those who had it go on and give their place back.
fn looks(proxy: &mut Workers, waiting: &mut Vec<Admitted>) -> usize {
    for look in 1..=TENANTS {
        let woken = proxy.wake(1, waiting);
        if !woken.is_empty() {
            assert_eq!(woken.len(), 1);
            for (_, entered) in woken {
                proxy.answer(entered.unwrap(), &Answer::status("200"));
            }
            return look;
        }
    }
    panic!("nobody's turn came");
}

#[test]
fn a_look_is_at_so_many_limits_and_all_have_their_turn() {
    let (mut proxy, mut held, mut waiting) = proxy();
    let mut all = Vec::new();
    while held.len() > TENANTS / 2 {
        let given_back = held.swap_remove(held.len() * 7 / 10);
        proxy.answer(given_back, &Answer::status("200"));
        all.push(looks(&mut proxy, &mut waiting));
    }
    assert!(all.iter().all(|looks| *looks <= TENANTS.div_ceil(256) + 1), "{all:?}");
    assert!(all.iter().any(|looks| *looks > 1), "a look is at all limits, however many there are");
}

#[test]
fn a_place_that_is_given_back_here_is_taken_at_once_whoever_else_waits() {
    let (mut proxy, mut held, mut waiting) = proxy();
    // Two more for each of some tenants: when the one goes on the other is next.
    let some: Vec<_> = (0..10).map(|one| (one * 97).to_string()).collect();
    for name in &some {
        waiting.push(proxy.ask(1, &[("x-tenant", name.as_str())]).unwrap());
    }
    for one in (0..10).rev() {
        proxy.answer(held.remove(one * 97), &Answer::status("200"));
        looks(&mut proxy, &mut waiting);
        assert_eq!(looks(&mut proxy, &mut waiting), 1, "its place was given back at this worker");
    }
}
