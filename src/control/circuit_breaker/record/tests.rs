use std::marker::PhantomData;

use super::*;

/// A move between two states.
struct Move<F, T>(PhantomData<(F, T)>);

impl<F: Variant, T: After<F>> Move<F, T> {
    /// Whether `Record::leave` compiles for it: where there is an [`After`] this is what the name means.
    const COMPILES: bool = true;
}

/// For the other moves the name means this.
trait Otherwise {
    const COMPILES: bool = false;
}

impl<F, T> Otherwise for Move<F, T> {}

#[test]
fn the_four_moves_that_there_are_compile_and_no_other() {
    let compile = [
        ("closed to closed", Move::<Closed, Closed>::COMPILES),
        ("closed to open", Move::<Closed, Open>::COMPILES),
        ("closed to half-open", Move::<Closed, HalfOpen>::COMPILES),
        ("open to closed", Move::<Open, Closed>::COMPILES),
        ("open to open", Move::<Open, Open>::COMPILES),
        ("open to half-open", Move::<Open, HalfOpen>::COMPILES),
        ("half-open to closed", Move::<HalfOpen, Closed>::COMPILES),
        ("half-open to open", Move::<HalfOpen, Open>::COMPILES),
        ("half-open to half-open", Move::<HalfOpen, HalfOpen>::COMPILES),
    ];
    let moves: Vec<_> = compile.into_iter().filter(|(_, compiles)| *compiles).map(|(name, _)| name).collect();
    assert_eq!(moves, ["closed to open", "open to half-open", "half-open to closed", "half-open to open"]);
}

#[test]
fn a_move_from_another_state_than_the_records_changes_nothing() {
    let settings = Settings::default().bounded();
    let fresh = Record::new(&settings);
    let mut record = fresh.clone();
    record.leave(|_: &HalfOpen| Closed::new(&settings, Some(7)));
    assert_eq!(record, fresh);
    // The control: from its own it does.
    let counts = Counts::default();
    record.leave(|_: &Closed| Open { until: 1, round: 0, reason: TripReason::FailureRate, counts });
    assert_eq!((record.generation(), record.state()), (1, State::Open));
}
