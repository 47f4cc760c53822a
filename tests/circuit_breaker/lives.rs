//! Breakers whose settings change and change back, on a host that never forgets a name.

use tidegate::control::circuit_breaker::{CircuitBreakers, Permit, Settings, SlotId, State, Window};
use tidegate::control::{Nanos, Random};
use tidegate::share::{LEASE, Memory, ROWS, SharedState};

use super::counting::Counting;
use super::fleet::{FAILURE, KEY, SECOND, SplitMix, consecutive, half_of};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// One worker's view of the breakers of some settings, and its clock.
struct View<'s> {
    breakers: CircuitBreakers,
    share: &'s dyn SharedState,
    rng: SplitMix,
}

impl<'s> View<'s> {
    fn open(share: &'s dyn SharedState, settings: &Settings, owner: u64, now: Nanos) -> Self {
        let breakers = CircuitBreakers::reusing(settings.clone(), share, "policy", owner, now).unwrap();
        Self { breakers, share, rng: SplitMix(1) }
    }

    fn slot(&mut self, key: u64) -> SlotId {
        self.breakers.slot(self.share, key, key)
    }

    fn ask(&mut self, key: u64, now: Nanos) -> Option<Permit> {
        let slot = self.slot(key);
        self.breakers.acquire(self.share, slot, now, &mut self.rng as &mut dyn Random).ok()
    }

    fn fail(&mut self, key: u64, now: Nanos) {
        let permit = self.ask(key, now).unwrap();
        self.end(permit, now);
    }

    fn end(&mut self, permit: Permit, now: Nanos) {
        self.breakers.settle(self.share, permit, FAILURE, 0, now, &mut self.rng);
    }

    fn state(&mut self, key: u64) -> State {
        let slot = self.slot(key);
        self.breakers.state(self.share, slot)
    }

    fn tick(&mut self, now: Nanos) {
        self.breakers.tick(self.share, now, &mut self.rng);
    }
}

#[test]
fn settings_that_changed_and_changed_back_begin_anew_in_every_way() {
    for settings in [consecutive(2), half_of(2, Window::Count(50)), half_of(2, Window::Time(10 * SECOND))] {
        let share = Memory::new();
        let mut first = View::open(&share, &settings, 1, SECOND);
        let late = [first.ask(KEY, SECOND).unwrap(), first.ask(KEY, SECOND).unwrap()];
        first.slot(KEY + 1);
        first.fail(KEY, SECOND);
        first.fail(KEY, SECOND);
        assert_eq!(first.state(KEY), State::Open);
        let mut other = View::open(&share, &settings, 2, SECOND);
        assert_eq!(other.state(KEY), State::Closed, "other settings");
        first.breakers.release(&share, SECOND);

        let mut back = View::open(&share, &settings, 1, SECOND);
        assert_eq!(back.slot(KEY + 1), SlotId(0), "the keys are forgotten too");
        assert_eq!(back.state(KEY), State::Closed);
        assert!(!back.ask(KEY, SECOND).unwrap().is_probe());
        // What was let through before neither counts nor trips, whoever settles it.
        for permit in late {
            back.end(permit, SECOND);
        }
        assert_eq!([back.state(KEY), back.state(KEY + 1)], [State::Closed; 2], "the place of the first is the other's");
        back.fail(KEY, SECOND);
        assert_eq!(back.state(KEY), State::Closed, "one of two");
        back.fail(KEY, SECOND);
        assert_eq!((back.state(KEY), other.state(KEY)), (State::Open, State::Closed));
        assert_eq!(back.breakers.take_errors() + other.breakers.take_errors(), 0);
    }
}

#[test]
fn breakers_are_kept_while_anybody_says_that_they_are_in_use() {
    let share = Memory::new();
    let settings = consecutive(1);
    let mut first = View::open(&share, &settings, 1, 0);
    first.fail(KEY, 0);
    // As many owners as rows at a time.
    let others = ROWS as u64 - 1;
    let mut now = 0;
    while now < 5 * LEASE {
        now += LEASE / 4;
        first.tick(now);
        let closed: Vec<_> =
            (10..10 + others).map(|owner| View::open(&share, &settings, owner, now).state(KEY)).collect();
        assert!(closed.iter().all(|state| *state == State::Closed), "{closed:?}");
    }
    // Another configuration with the same breakers, or a worker whose VM died.
    assert_eq!(View::open(&share, &settings, 1, now).state(KEY), State::Open);
    // The control: silence for as long as a lease.
    assert_eq!(View::open(&share, &settings, 1, now + LEASE).state(KEY), State::Closed);
}

#[test]
fn a_worker_that_went_on_meanwhile_follows_those_that_began_anew() {
    for at_once in [true, false] {
        let share = Memory::new();
        let settings = consecutive(1);
        let mut old = View::open(&share, &settings, 1, SECOND);
        if !at_once {
            // Its page is another one now.
            old.slot(KEY + 7);
        }
        old.fail(KEY, SECOND);
        old.breakers.release(&share, SECOND);
        let mut new = View::open(&share, &settings, 1, SECOND);
        assert_eq!(new.state(KEY), State::Closed);
        if at_once {
            // Nobody need tell it: it finds what the new one wrote.
            new.fail(KEY, SECOND);
            assert!(old.ask(KEY, SECOND).is_some(), "the request that notices is let through");
            assert!(old.ask(KEY, SECOND).is_none(), "the next is not");
        } else {
            old.tick(2 * SECOND);
            assert!(old.ask(KEY, 2 * SECOND).is_some());
        }
        assert_eq!((old.slot(KEY), new.slot(KEY)), (SlotId(0), SlotId(0)), "and so are its keys");
        assert_eq!(old.breakers.take_errors() + new.breakers.take_errors(), 0);
    }
}

#[test]
fn a_thousand_changes_leave_no_more_behind_than_the_first_few() {
    let share = Counting::default();
    let left = |share: &Counting| (share.cell_count(), share.page_count());
    let mut most = (0, 0);
    for change in 0..1_000 {
        let now = change * LEASE / 4;
        let window = if change % 2 == 0 { Window::Time(SECOND) } else { Window::Count(1 + change as u32 % 200) };
        let mut view = View::open(&share, &half_of(1, window), change, now);
        view.fail(KEY, now);
        assert_eq!(view.state(KEY), State::Open, "change {change} starts anew");
        if change == 8 * ROWS as u64 {
            most = left(&share);
        }
    }
    assert_eq!(left(&share), most);
}

#[test]
fn breakers_in_use_never_lose_their_pages_and_those_too_many_are_each_workers_own_until_there_is_room() {
    let share = Memory::new();
    let settings = consecutive(1);
    let mut others: Vec<_> = (1..=ROWS as u64).map(|owner| View::open(&share, &settings, owner, 0)).collect();
    others.iter_mut().for_each(|other| other.fail(KEY, 0));
    // They used to take the pages of others, which from then on tripped no more.
    let (mut one, mut two) = (View::open(&share, &settings, 0, 1), View::open(&share, &settings, 0, 1));
    assert_eq!((one.breakers.take_news(), two.breakers.take_news()), (Some(true), Some(true)));
    one.fail(KEY, 1);
    assert_eq!((one.state(KEY), two.state(KEY)), (State::Open, State::Closed));
    others.iter_mut().for_each(|other| assert_eq!(other.state(KEY), State::Open));
    one.tick(1);
    assert!(one.breakers.take_errors() > 0, "it looks for room and finds none");
    let gone = others.pop().unwrap();
    gone.breakers.release(&share, 2);
    one.tick(2);
    two.tick(2);
    assert_eq!((one.breakers.take_news(), two.breakers.take_news()), (Some(false), Some(false)));
    let shown = one.breakers.take_met().expect("its gauge is to tell");
    assert_eq!(one.breakers.label(shown), Some(KEY.to_string().as_str()));
    assert_eq!(one.state(KEY), State::Closed);
    two.fail(KEY, 2);
    assert_eq!((one.state(KEY), two.state(KEY)), (State::Open, State::Open));
    assert_eq!(
        one.breakers.take_errors() + others.iter_mut().map(|other| other.breakers.take_errors()).sum::<u64>(),
        0
    );
}

#[test]
fn breakers_that_lost_their_pages_while_the_process_stood_still_begin_anew_at_the_next_tick() {
    let share = Memory::new();
    let settings = consecutive(1);
    let mut lost = View::open(&share, &settings, 0, 0);
    lost.fail(KEY, 0);
    let late = View::open(&share, &settings, 0, 0).ask(KEY + 1, 0).unwrap();
    let mut other = View::open(&share, &settings, 1, LEASE);
    other.fail(KEY, LEASE);
    lost.tick(LEASE);
    assert_eq!((lost.state(KEY), other.state(KEY)), (State::Closed, State::Open));
    lost.end(late, LEASE);
    assert_eq!(lost.state(KEY + 1), State::Closed, "what was let through before does not count");
    lost.fail(KEY, LEASE);
    assert_eq!((lost.state(KEY), lost.breakers.take_errors()), (State::Open, 0));
}
