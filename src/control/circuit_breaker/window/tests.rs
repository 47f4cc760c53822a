use super::*;

/// Calls put into a time window of ten buckets, and the window's counts after each.
struct Timed {
    window: TimeWindow,
    totals: Totals,
}

impl Timed {
    fn new() -> Self {
        Self { window: TimeWindow::default(), totals: Totals { ok: 1_000, failed: 500, slow: 7 } }
    }

    fn call(&mut self, bucket: u64, failed: bool) -> (u64, u64) {
        self.window.roll(bucket, self.totals);
        self.totals.ok += u64::from(!failed);
        self.totals.failed += u64::from(failed);
        self.read(bucket)
    }

    fn read(&mut self, bucket: u64) -> (u64, u64) {
        self.window.roll(bucket, self.totals);
        let counts = self.totals.since(self.window.base()).unwrap();
        (counts.calls, counts.failures)
    }
}

fn counts(window: &CountWindow) -> (u64, u64, u64) {
    (window.counts.calls, window.counts.failures, window.counts.slow)
}

#[test]
fn a_time_window_counts_only_what_came_after_it_began() {
    assert_eq!(Timed::new().call(0, true), (1, 1));
    assert_eq!(Timed::new().call(u64::MAX, false), (1, 0));
}

/// resilience4j `SlidingTimeWindowMetricsTest.testSlidingTimeWindowMetrics`: a window of 5 s, here in buckets of 0.5 s.
#[test]
fn a_time_window_follows_the_published_sequence() {
    let mut w = Timed::new();
    assert_eq!(w.call(0, true), (1, 1));
    assert_eq!(w.call(0, false), (2, 1));
    assert_eq!(w.call(0, false), (3, 1));
    assert_eq!(w.call(2, false), (4, 1));
    assert_eq!(w.call(4, false), (5, 1));
    assert_eq!(w.call(6, true), (6, 2));
    assert_eq!(w.call(8, false), (7, 2));
    assert_eq!(w.call(10, false), (5, 1), "the three of second 0 are gone");
    assert_eq!(w.call(12, false), (5, 1));
    assert_eq!(w.call(22, false), (1, 0));
}

/// linkerd `success_rate.rs`: `buckets_roll_and_expire_in_order` and `ratio_recovers_as_failures_expire`.
#[test]
fn a_bucket_leaves_when_ten_have_begun_since() {
    let mut w = Timed::new();
    assert_eq!(w.call(0, true), (1, 1));
    assert_eq!(w.call(5, false), (2, 1));
    assert_eq!(w.read(9), (2, 1));
    assert_eq!(w.call(10, false), (2, 0));
    assert_eq!(w.read(14), (2, 0));
    assert_eq!(w.read(15), (1, 0));
}

/// linkerd `success_rate.rs`: `large_gap_clears_entire_window` and `idle_gap_beyond_u32_steps_does_not_wedge_window`.
#[test]
fn a_gap_of_any_length_empties_a_time_window() {
    for gap in [10, 11, 1_000, u64::from(u32::MAX) + 5, u64::MAX - 3] {
        let mut w = Timed::new();
        w.call(0, true);
        assert_eq!(w.call(gap, false), (1, 0), "gap {gap}");
        assert_eq!(w.call(gap + 1, true), (2, 1), "gap {gap}");
        assert_eq!(w.call(gap + 2, false), (3, 1), "gap {gap}");
    }
}

#[test]
fn a_clock_that_is_behind_does_not_roll_a_time_window_back() {
    let mut w = Timed::new();
    w.call(7, true);
    assert_eq!(w.call(6, true), (2, 2));
    assert_eq!(w.call(7, false), (3, 2));
    assert_eq!(w.read(16), (3, 2));
    assert_eq!(w.read(17), (0, 0));
}

#[test]
fn totals_of_which_any_was_reset_from_outside_give_no_counts() {
    let base = Totals { ok: 100, failed: 50, slow: 20 };
    assert_eq!(base.since(base), Some(Counts::default()));
    for reset in [Totals { ok: 99, ..base }, Totals { failed: 49, ..base }, Totals { slow: 19, ..base }] {
        assert_eq!(reset.since(base), None);
    }
}

/// resilience4j `FixedSizeSlidingWindowMetricsTest.testSlidingWindowMetrics`.
#[test]
fn a_count_window_holds_the_last_calls() {
    let mut w = CountWindow::new(4);
    let mut record = |failed| {
        w.record(4, failed, false);
        counts(&w)
    };
    assert_eq!(record(true), (1, 1, 0));
    assert_eq!(record(false), (2, 1, 0));
    assert_eq!(record(false), (3, 1, 0));
    assert_eq!(record(false), (4, 1, 0));
    assert_eq!(record(false), (4, 0, 0));
}

/// resilience4j `FixedSizeSlidingWindowMetricsTest.testSlidingWindowMetricsWithSlowCalls`.
#[test]
fn a_count_window_forgets_slow_calls_like_failed_ones() {
    let mut w = CountWindow::new(2);
    let mut record = |failed, slow| {
        w.record(2, failed, slow);
        counts(&w)
    };
    assert_eq!(record(true, true), (1, 1, 1));
    assert_eq!(record(false, true), (2, 1, 2));
    assert_eq!(record(false, false), (2, 0, 1));
    assert_eq!(record(false, false), (2, 0, 0));
    assert_eq!(record(false, false), (2, 0, 0));
}

#[test]
fn a_count_window_of_any_length_equals_a_list_of_its_last_calls() {
    for length in [1_u32, 2, 3, 4, 5, 7, 8, 100, 101] {
        let mut w = CountWindow::new(length);
        let mut list: Vec<(bool, bool)> = Vec::new();
        for i in 0..length * 3 + 1 {
            let call = (i % 3 == 0, i % 5 == 1);
            w.record(length, call.0, call.1);
            list.push(call);
            let last = &list[list.len().saturating_sub(length as usize)..];
            let failures = last.iter().filter(|call| call.0).count() as u64;
            let slow = last.iter().filter(|call| call.1).count() as u64;
            assert_eq!(counts(&w), (last.len() as u64, failures, slow), "length {length}, call {i}");
        }
    }
}

#[test]
fn a_rate_reaches_its_threshold_exactly() {
    assert!(reaches(50, 100, 5_000));
    assert!(!reaches(49, 100, 5_000));
    assert!(!reaches(4_999_999, 10_000_000, 5_000), "no rounding hides the last call");
    assert!(reaches(1, 3, 3_333));
    assert!(!reaches(1, 3, 3_334));
    assert!(!reaches(100, 100, 0), "0 is off");
    assert!(reaches(u64::MAX, u64::MAX, 10_000));
}

#[test]
fn rates_are_not_judged_before_the_minimum() {
    let settings = Settings { minimum_calls: 5, ..Settings::default() };
    assert_eq!(judge(&settings, Counts { calls: 4, failures: 4, slow: 0 }), None);
    assert_eq!(judge(&settings, Counts { calls: 5, failures: 5, slow: 0 }), Some(TripReason::FailureRate));
}

#[test]
fn slow_calls_are_judged_only_when_a_duration_says_what_is_slow() {
    let slow = Counts { calls: 20, failures: 0, slow: 20 };
    assert_eq!(judge(&Settings::default(), slow), None);
    let settings = Settings { slow_call_duration: Some(1), ..Settings::default() };
    assert_eq!(judge(&settings, slow), Some(TripReason::SlowCallRate));
    assert_eq!(judge(&settings, Counts { slow: 19, ..slow }), None);
}
