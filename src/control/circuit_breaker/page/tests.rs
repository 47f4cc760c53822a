use proptest::prelude::*;

use super::*;

fn settings(count: bool) -> Settings {
    let window = if count { Window::Count(13) } else { Window::Time(1_000) };
    Settings { window, probes: 4, ..Settings::default() }.bounded()
}

fn reasons() -> impl Strategy<Value = TripReason> {
    prop::sample::select(vec![
        TripReason::FailureRate,
        TripReason::SlowCallRate,
        TripReason::ConsecutiveFailures,
        TripReason::ProbeFailed,
        TripReason::ProbeTimeout,
    ])
}

fn closed(count: bool) -> impl Strategy<Value = Phase> {
    let rings = any::<([[u64; 3]; BUCKETS], Option<u64>, [u8; 4], u32)>();
    (any::<(Option<u64>, u64, u32, u64)>(), rings).prop_map(move |((since, asked_until, run, run_ok), ring)| {
        let begins = ring.0.map(|[ok, failed, slow]| Totals { ok, failed, slow });
        let [calls, failures, slow] = ring.0[0];
        let calls = if count {
            Calls::Count(CountWindow { next: ring.3, counts: Counts { calls, failures, slow }, ring: ring.2.to_vec() })
        } else {
            Calls::Time(TimeWindow { bucket: ring.1, begins })
        };
        Phase::Closed(Box::new(Closed { since, asked_until, run, run_ok, calls }))
    })
}

fn open() -> impl Strategy<Value = Phase> {
    (any::<(u64, u32, [u64; 3])>(), reasons()).prop_map(|((until, round, [calls, failures, slow]), reason)| {
        Phase::Open(Open { until, round, reason, counts: Counts { calls, failures, slow } })
    })
}

fn half_open() -> impl Strategy<Value = Phase> {
    let heard = prop::sample::select(vec![Heard::Nothing, Heard::Good, Heard::Slow]);
    let probe = (any::<u64>(), heard).prop_map(|(at, heard)| Probe { at, heard });
    (any::<[u32; 3]>(), reasons(), prop::collection::vec(probe, 0..=4))
        .prop_map(|([round, good, slow], reason, out)| Phase::HalfOpen(HalfOpen { round, reason, good, slow, out }))
}

proptest! {
    #[test]
    fn a_record_comes_back_from_its_page(
        generation in any::<u64>(),
        (count, phase) in any::<bool>().prop_flat_map(|count| (Just(count), prop_oneof![closed(count), open(), half_open()])),
    ) {
        let settings = settings(count);
        let record = Record { generation, phase };
        let bytes = encode(&record, length(&settings));
        prop_assert_eq!(bytes.len(), length(&settings));
        prop_assert_eq!(decode(&bytes, &settings), Some(record));
    }

    #[test]
    fn no_bytes_bring_the_reader_down(count in any::<bool>(), bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode(&bytes, &settings(count));
    }
}

#[test]
fn a_page_of_zeros_is_a_breaker_nobody_has_used() {
    for settings in [settings(true), settings(false)] {
        assert_eq!(decode(&vec![0; length(&settings)], &settings), Some(Record::new(&settings)));
    }
}

#[test]
fn an_unknown_state_or_reason_is_no_record() {
    let settings = settings(false);
    let mut bytes = vec![0; length(&settings)];
    bytes[8] = 3;
    assert_eq!(decode(&bytes, &settings), None);
    bytes[8] = 1;
    bytes[9 + 12] = 5;
    assert_eq!(decode(&bytes, &settings), None);
}

#[test]
fn a_count_of_probes_beyond_the_page_is_no_record() {
    let settings = settings(false);
    let mut bytes = vec![0; length(&settings)];
    bytes[8] = 2;
    bytes[9 + 12..9 + 16].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(decode(&bytes, &settings), None);
}
