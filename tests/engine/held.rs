//! Streams that are held: how many there may be, and in which order they go on.

use tidegate::engine::held::{Held, MOST, Waiting};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn number(stream: usize) -> u32 {
    u32::try_from(stream).unwrap()
}

#[test]
fn a_worker_holds_so_many_and_no_more_whatever_they_wait_for() {
    // As the docs say.
    assert_eq!(MOST, 8192);
    let held = |stream: usize| if stream.is_multiple_of(2) { Held::Queued } else { Held::Until(stream as u64) };
    let mut waiting = Waiting::default();
    for stream in 0..MOST {
        assert!(waiting.has_room(), "{stream}");
        waiting.add(held(stream), number(stream));
    }
    assert!(!waiting.has_room());
    // A place of either kind is there again once it is given up.
    for stream in [0, 1] {
        waiting.remove(held(stream), number(stream));
        assert!(waiting.has_room());
        waiting.add(held(stream), number(stream));
        assert!(!waiting.has_room());
    }
}

#[test]
fn those_whose_time_has_come_go_on_by_time_and_then_as_they_came_and_so_many_at_once() {
    let mut waiting = Waiting::default();
    for (until, stream) in [(20, 1), (10, 3), (10, 2), (30, 4)] {
        waiting.add(Held::Until(until), stream);
    }
    assert_eq!(waiting.due(9), None);
    let mut gone = Vec::new();
    while let Some(stream) = waiting.due(20) {
        let until = if stream == 1 { 20 } else { 10 };
        waiting.remove(Held::Until(until), stream);
        gone.push(stream);
    }
    assert_eq!(gone, [2, 3, 1]);
    let at_once = (0..MOST).take_while(|_| waiting.may_go_on().then(|| waiting.goes_on()).is_some()).count();
    assert_eq!(at_once, 64, "as the docs say");
    waiting.unwound();
    assert!(waiting.may_go_on());
}
