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
        Closed { since, asked_until, run, run_ok, calls }.into()
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
    (any::<([u32; 3], u64)>(), reasons(), prop::collection::vec(probe, 0..=4)).prop_map(
        |(([round, good, slow], silence), reason, out)| {
            Phase::HalfOpen(HalfOpen { round, reason, good, slow, silence, out })
        },
    )
}

proptest! {
    #[test]
    fn a_record_comes_back_from_its_page_in_its_epoch_only(
        generation in any::<u64>(),
        epoch in 1..u64::MAX,
        (count, phase) in any::<bool>().prop_flat_map(|count| (Just(count), prop_oneof![closed(count), open(), half_open()])),
    ) {
        let settings = settings(count);
        let record = Record { generation, phase };
        let bytes = write(&record, epoch, length(&settings));
        prop_assert_eq!(bytes.len(), length(&settings));
        prop_assert_eq!(read(&bytes, epoch, &settings), Some(Content::Record(record)));
        prop_assert_eq!(read(&bytes, epoch + 1, &settings), Some(Content::Nothing));
        prop_assert_eq!(read(&bytes, epoch - 1, &settings), Some(Content::Later));
    }

    #[test]
    fn no_bytes_bring_the_reader_down(count in any::<bool>(), bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let epoch = bytes.first_chunk().map_or(0, |epoch| u64::from_le_bytes(*epoch));
        let _ = read(&bytes, epoch, &settings(count));
    }
}

#[test]
fn a_page_of_zeros_is_a_breaker_nobody_has_used() {
    for settings in [settings(true), settings(false)] {
        let zeros = vec![0; length(&settings)];
        assert_eq!(read(&zeros, 0, &settings), Some(Content::Record(Record::new(&settings))));
        assert_eq!(read(&zeros, 1, &settings), Some(Content::Nothing));
    }
}

#[test]
fn an_unknown_state_or_reason_is_no_record() {
    let settings = settings(false);
    let mut bytes = vec![0; length(&settings)];
    bytes[16] = 3;
    assert_eq!(read(&bytes, 0, &settings), None);
    bytes[16] = 1;
    bytes[17 + 12] = 5;
    assert_eq!(read(&bytes, 0, &settings), None);
}

#[test]
fn a_count_of_probes_beyond_the_page_is_no_record() {
    let settings = settings(false);
    let mut bytes = vec![0; length(&settings)];
    bytes[16] = 2;
    bytes[17 + 12..17 + 16].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(read(&bytes, 0, &settings), None);
}

#[test]
fn windows_have_pages_of_few_lengths() {
    let windows = [Window::Time(1), Window::Count(1), Window::Count(100), Window::Count(10_000)];
    let lengths = windows.map(|window| length(&Settings { window, ..settings(true) }));
    assert_eq!(lengths, [512, 512, 512, 3_072]);
}
