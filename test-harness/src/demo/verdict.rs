//! Whether an act showed what it promises, and the sentence that says so with the measured figures.

use super::acts::{Key, Script, upstream};
use crate::report::{BreakerState, Comparison, Figures, Group, Performance, milliseconds};

/// What counts as served well, in percent, and as prompt, in milliseconds.
const MOST: f64 = 98.0;
const PROMPT: f64 = 400.0;

/// What a performance is held to. Clients, Envoy and upstream share a machine: while it stalls, nobody is served, and what
/// piled up may then fill the concurrency limit for as long again. The clients know how long the worst stall was, by how
/// late they sent; so much is taken off, once for the stall and once for what follows.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Percent.
    most: f64,
    /// Milliseconds.
    prompt: f64,
}

impl Bounds {
    fn of(run: &Performance, seconds: f64) -> Self {
        let stalled = 2.0 * run.lag.as_secs_f64();
        Self { most: (MOST - 100.0 * stalled / seconds).floor(), prompt: (PROMPT + 1000.0 * stalled).ceil() }
    }
}

/// The budget of one client, as the policy has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    pub(super) per_second: f64,
    pub(super) burst: f64,
}

/// What became of an act.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) claim: String,
    pub(super) comparisons: Vec<Comparison>,
    /// What the act promises and did not show.
    pub(super) missing: Vec<String>,
}

impl Verdict {
    fn compare(&mut self, label: &str, figure: impl Fn(&Figures) -> String, (without, with): (&Figures, &Figures)) {
        self.comparisons.push(Comparison { label: label.into(), without: figure(without), with: figure(with) });
    }

    fn expect(&mut self, holds: bool, promise: impl Into<String>) {
        if !holds {
            self.missing.push(promise.into());
        }
    }
}

/// Judges the two performances of an act.
pub(super) fn judge(script: &Script, without: &Performance, with: &Performance, budget: Budget) -> Verdict {
    match script.key {
        Key::Baseline => baseline(script, without, with),
        Key::Greedy => greedy(script, without, with, budget),
        Key::Failing => failing(script, without, with),
        Key::Overload => overload(script, without, with),
    }
}

fn percent(figures: &Figures) -> String {
    // Rounded down: 99.97 % is not everything.
    format!("{} %", (figures.served_percent() * 10.0).floor() / 10.0)
}

fn p99(figures: &Figures) -> String {
    figures.latency_ms(99.0).map_or("none".into(), |ms| milliseconds(Some(ms)))
}

fn bad_news(figures: &Figures) -> String {
    milliseconds(figures.refusal_ms(50.0))
}

fn p50(figures: &Figures) -> String {
    milliseconds(figures.latency_ms(50.0))
}

fn times(count: u64) -> String {
    match count {
        0 => "never".into(),
        1 => "once".into(),
        2 => "twice".into(),
        count => format!("{count} times"),
    }
}

fn goodput(figures: &Figures) -> String {
    format!("{:.0}/s", figures.goodput())
}

fn baseline(script: &Script, without: &Performance, with: &Performance) -> Verdict {
    let mut verdict = Verdict::default();
    let (off, on) = (without.figures(None, script.seconds()), with.figures(None, script.seconds()));
    verdict.compare("requests served", percent, (&off, &on));
    verdict.compare("median latency", p50, (&off, &on));
    verdict.claim = format!(
        "With nothing wrong Tidegate rejected {} of {} requests, and the median latency was {} ({} without).",
        on.rejected(),
        on.sent,
        p50(&on),
        p50(&off)
    );
    for (name, run, figures) in [("without", without, &off), ("with", with, &on)] {
        let Bounds { most, .. } = Bounds::of(run, script.seconds());
        verdict.expect(
            figures.served_percent() >= most,
            format!("{name} Tidegate {most} % are served, but it was {}", percent(figures)),
        );
    }
    verdict.expect(with.transitions.open == 0, "the breaker stays closed");
    verdict
}

fn greedy(script: &Script, without: &Performance, with: &Performance, budget: Budget) -> Verdict {
    let mut verdict = Verdict::default();
    let (from, to) = script.trouble();
    let crowd = |run: &Performance| run.between(Some(Group::Crowd), from, to);
    let one = |run: &Performance| run.between(Some(Group::Greedy), from, to);
    let (off, on) = (crowd(without), crowd(with));
    verdict.compare("of the others served meanwhile", percent, (&off, &on));
    verdict.compare("their p99 latency", p99, (&off, &on));
    verdict.compare("the greedy client gets", goodput, (&one(without), &one(with)));
    verdict.claim = format!(
        "While one client sent 600 requests a second, {} of the others' requests were served within a second without \
         Tidegate, and {} with it, at a p99 of {} instead of {}.",
        percent(&off),
        percent(&on),
        p99(&on),
        p99(&off)
    );
    verdict.expect(
        off.latency_ms(99.0).is_none_or(|ms| ms >= 300.0),
        format!("without Tidegate the others suffer, but their p99 was {}", p99(&off)),
    );
    let Bounds { most, prompt } = Bounds::of(with, to - from);
    verdict.expect(
        on.served_percent() >= most,
        format!("with Tidegate {most} % of the others are served, but it was {}", percent(&on)),
    );
    verdict.expect(
        on.latency_ms(99.0).is_some_and(|ms| ms < prompt),
        format!("with Tidegate the others' p99 is below {prompt} ms, but it was {}", p99(&on)),
    );
    // A request that got no answer may not have come as far as Tidegate: only those answered were surely admitted.
    let served = with.figures(Some(Group::Greedy), script.seconds()).served;
    // Requests arrive later than they were meant to leave, the last one before it had its answer.
    let of_the_one = with.samples.iter().filter(|sample| sample.group == Group::Greedy);
    let end = of_the_one.map(|sample| (sample.intended + sample.latency).as_secs_f64()).fold(to, f64::max);
    let most = budget.burst + budget.per_second * (end - from);
    verdict.expect(
        served as f64 <= most && one(with).rate_limited > 0,
        format!("the greedy client gets its burst and rate, {most:.0} requests at most, but it was {served}"),
    );
    verdict
}

fn failing(script: &Script, without: &Performance, with: &Performance) -> Verdict {
    let mut verdict = Verdict::default();
    let (from, to) = script.trouble();
    let meanwhile = |run: &Performance| run.between(None, from, to);
    let at_the_end = |run: &Performance| run.between(None, script.seconds() - 1.0, script.seconds());
    let (off, on) = (meanwhile(without), meanwhile(with));
    let (reached_off, reached_on) = (without.reached_failing, with.reached_failing);
    verdict.comparisons.push(Comparison {
        label: "requests that reached the failing upstream".into(),
        without: reached_off.to_string(),
        with: reached_on.to_string(),
    });
    verdict.compare("median time until a client had its 503", bad_news, (&off, &on));
    verdict.compare("served in the last second", percent, (&at_the_end(without), &at_the_end(with)));
    let transitions = with.transitions;
    verdict.claim = format!(
        "Without Tidegate {reached_off} requests ran into the failing upstream, and the median client waited {} for a 503; with it \
         {reached_on} did, and the median wait was {}. The breaker opened {}, probed {} and closed {}.",
        bad_news(&off),
        bad_news(&on),
        times(transitions.open),
        times(transitions.half_open),
        times(transitions.closed)
    );
    verdict.expect(
        off.failed as f64 >= 0.9 * off.sent as f64,
        format!("without Tidegate all fail meanwhile, but it was {} of {}", off.failed, off.sent),
    );
    verdict.expect(
        on.refusal_ms(50.0) < off.refusal_ms(50.0),
        format!("with Tidegate clients know sooner, but it was {} and {}", bad_news(&on), bad_news(&off)),
    );
    verdict.expect(transitions.open >= 1, "the breaker opens");
    verdict.expect(transitions.half_open >= 1, "the breaker probes");
    verdict.expect(transitions.closed >= 1, "the breaker closes");
    verdict.expect(
        with.breaker.last().is_some_and(|(_, state)| *state == BreakerState::Closed),
        "the breaker is closed at the end",
    );
    verdict.expect(
        reached_on * 4 <= reached_off,
        format!(
            "with Tidegate a quarter or fewer reach the failing upstream, but it was {reached_on} of {reached_off}"
        ),
    );
    for (name, run) in [("without", without), ("with", with)] {
        let (end, Bounds { most, .. }) = (at_the_end(run), Bounds::of(run, 1.0));
        verdict.expect(
            end.served_percent() >= most,
            format!("{name} Tidegate {most} % are served at the end, but it was {}", percent(&end)),
        );
    }
    verdict
}

fn overload(script: &Script, without: &Performance, with: &Performance) -> Verdict {
    let mut verdict = Verdict::default();
    let (from, to) = script.trouble();
    // Of the overload itself, what comes after the queue is as long as the clients' patience.
    let late = |run: &Performance| run.between(None, from + 2.0, to);
    let after = |run: &Performance| run.between(None, to, script.seconds());
    let (off, on) = (late(without), late(with));
    verdict.compare("goodput from the third second of overload", goodput, (&off, &on));
    verdict.compare("p99 latency of the served", p99, (&off, &on));
    verdict.compare("served in the four seconds after", percent, (&after(without), &after(with)));
    verdict.claim = format!(
        "Offered twice what it can serve, the upstream's goodput was {} without Tidegate and {} with it, at a p99 of {}. \
         In the four seconds after the overload {} and {} were served.",
        goodput(&off),
        goodput(&on),
        p99(&on),
        percent(&after(without)),
        percent(&after(with))
    );
    let capacity = upstream().capacity();
    verdict.expect(
        off.goodput() <= 0.3 * capacity,
        format!("without Tidegate goodput falls below 30 % of the capacity, but it was {}", goodput(&off)),
    );
    verdict.expect(
        on.goodput() >= 0.8 * capacity,
        format!("with Tidegate goodput stays above 80 % of the capacity, but it was {}", goodput(&on)),
    );
    let Bounds { most, prompt } = Bounds::of(with, script.seconds() - to);
    verdict.expect(
        on.latency_ms(99.0).is_some_and(|ms| ms < prompt),
        format!("with Tidegate p99 stays below {prompt} ms, but it was {}", p99(&on)),
    );
    verdict.expect(
        after(with).served_percent() >= most,
        format!("with Tidegate {most} % are served afterwards, but it was {}", percent(&after(with))),
    );
    verdict
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::demo::acts::SCRIPTS;
    use crate::report::{Fate, Sample, Transitions};

    const BUDGET: Budget = Budget { per_second: 40.0, burst: 40.0 };

    fn script(key: Key) -> &'static Script {
        SCRIPTS.iter().find(|script| script.key == key).unwrap()
    }

    /// Requests of one group, whose fates and latencies in milliseconds depend on the second.
    fn run(script: &Script, group: Group, per_second: f64, at: impl Fn(f64) -> (Fate, u64)) -> Performance {
        let moments = (0..(script.seconds() * per_second) as u32).map(|index| f64::from(index) / per_second);
        let sample = |moment| {
            let (fate, latency) = at(moment);
            let (intended, latency) = (Duration::from_secs_f64(moment), Duration::from_millis(latency));
            Sample { intended, latency, group, fate }
        };
        Performance { samples: moments.map(sample).collect(), ..Performance::default() }
    }

    fn outage(moment: f64) -> bool {
        (2.0..6.0).contains(&moment)
    }

    fn failing_pair() -> (Performance, Performance) {
        let script = script(Key::Failing);
        let one = |with: Fate, wait| {
            run(script, Group::Crowd, 100.0, move |at| if outage(at) { (with, wait) } else { (Fate::Served, 20) })
        };
        let without = Performance { reached_failing: 400, ..one(Fate::Failed, 170) };
        let transitions = Transitions { open: 2, half_open: 2, closed: 1 };
        let breaker = vec![(Duration::ZERO, BreakerState::Closed)];
        (without, Performance { reached_failing: 50, transitions, breaker, ..one(Fate::CircuitOpen, 1) })
    }

    #[test]
    fn a_breaker_that_opens_probes_and_closes_is_what_the_act_promises() {
        let (without, with) = failing_pair();
        let verdict = judge(script(Key::Failing), &without, &with, BUDGET);
        assert_eq!(verdict.missing, Vec::<String>::new());
        assert!(
            verdict.claim.contains("400 requests")
                && verdict.claim.contains("opened twice, probed twice and closed once"),
            "{}",
            verdict.claim
        );
    }

    #[test]
    fn a_breaker_that_never_opened_is_missing() {
        let (without, _) = failing_pair();
        let verdict = judge(script(Key::Failing), &without, &without, BUDGET);
        assert!(verdict.missing.iter().any(|missing| missing == "the breaker opens"), "{:?}", verdict.missing);
    }

    #[test]
    fn an_overload_that_did_no_harm_without_tidegate_shows_nothing() {
        let script = script(Key::Overload);
        let fine = run(script, Group::Crowd, 1000.0, |_| (Fate::Served, 20));
        let verdict = judge(script, &fine, &fine, BUDGET);
        assert!(verdict.missing[0].starts_with("without Tidegate goodput falls"), "{:?}", verdict.missing);
    }

    #[test]
    fn a_greedy_client_that_gets_more_than_its_budget_is_missing() {
        let script = script(Key::Greedy);
        let all = run(script, Group::Greedy, 100.0, |_| (Fate::Served, 20));
        let verdict = judge(script, &all, &all, BUDGET);
        let found = verdict.missing.iter().any(|missing| missing.contains("280 requests at most, but it was 800"));
        assert!(found, "{:?}", verdict.missing);
    }

    #[test]
    fn what_is_served_is_held_against_tidegate_but_for_a_stall_that_the_clients_saw() {
        let script = script(Key::Baseline);
        let late = |at: f64| if at < 0.2 { (Fate::Failed, 1000) } else { (Fate::Served, 20) };
        let smooth = run(script, Group::Crowd, 100.0, late);
        let verdict = judge(script, &smooth, &smooth, BUDGET);
        assert_eq!(verdict.missing.len(), 2, "{:?}", verdict.missing);
        assert!(
            verdict.missing[1].starts_with("with Tidegate 98 % are served, but it was 96"),
            "{:?}",
            verdict.missing
        );
        let stalled = Performance { lag: Duration::from_millis(150), ..smooth };
        assert_eq!(judge(script, &stalled, &stalled, BUDGET).missing, Vec::<String>::new());
    }

    #[test]
    fn shares_are_never_rounded_up_to_everything() {
        let script = script(Key::Baseline);
        let all_but_one =
            run(script, Group::Crowd, 100.0, |at| if at == 0.0 { (Fate::Failed, 1) } else { (Fate::Served, 1) });
        assert_eq!(percent(&all_but_one.figures(None, script.seconds())), "99.8 %");
    }
}
