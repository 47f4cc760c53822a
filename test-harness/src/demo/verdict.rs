//! Whether an act showed what it promises, and the sentence that says so with the measured figures.

use super::acts::{FAILING_DELAY, Key, PATIENCE, Script, upstream};
use crate::report::{BreakerState, Comparison, Figures, Group, Performance, milliseconds};

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
    milliseconds(figures.latency_ms(99.0))
}

fn p50(figures: &Figures) -> String {
    milliseconds(figures.latency_ms(50.0))
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
        "With nothing wrong Tidegate stays out of the way: it rejected {} of {} requests, and the median latency is {} \
         ({} without).",
        on.rejected(),
        on.sent,
        p50(&on),
        p50(&off)
    );
    verdict.expect(
        off.served_percent() >= 99.0,
        format!("without Tidegate 99 % are served, but it was {}", percent(&off)),
    );
    verdict.expect(on.served_percent() >= 99.0, format!("with Tidegate 99 % are served, but it was {}", percent(&on)));
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
    verdict.expect(
        on.served_percent() >= 98.0,
        format!("with Tidegate 98 % of the others are served, but it was {}", percent(&on)),
    );
    verdict.expect(
        on.latency_ms(99.0).is_some_and(|ms| ms < 250.0),
        format!("with Tidegate the others' p99 is below 250 ms, but it was {}", p99(&on)),
    );
    let admitted = with.figures(Some(Group::Greedy), script.seconds()).admitted();
    // Requests arrive a little later than they were meant to leave: a tenth of a second's worth.
    let most = budget.burst + budget.per_second * (to - from + 0.1);
    verdict.expect(
        admitted as f64 <= most && one(with).rate_limited > 0,
        format!("the greedy client gets its burst and rate, {most:.0} requests at most, but it was {admitted}"),
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
    verdict.compare("slow errors seen by clients meanwhile", |figures| figures.failed.to_string(), (&off, &on));
    verdict.compare("served in the last second", percent, (&at_the_end(without), &at_the_end(with)));
    let transitions = with.transitions;
    verdict.claim = format!(
        "Without Tidegate {reached_off} requests ran into the failing upstream and waited {} ms for their error; with it \
         {reached_on} did, the breaker opened {} times, probed {} times and closed again.",
        FAILING_DELAY.as_millis() + upstream().service_time.as_millis(),
        transitions.open,
        transitions.half_open
    );
    verdict.expect(
        off.failed as f64 >= 0.9 * off.sent as f64,
        format!("without Tidegate all fail meanwhile, but it was {} of {}", off.failed, off.sent),
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
    for (run, name) in [(without, "without"), (with, "with")] {
        let end = percent(&at_the_end(run));
        verdict.expect(
            at_the_end(run).served_percent() >= 98.0,
            format!("{name} Tidegate 98 % are served at the end, but it was {end}"),
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
    verdict.compare("goodput, from the third second of overload", goodput, (&off, &on));
    verdict.compare("p99 latency of the served", p99, (&off, &on));
    verdict.compare("served in the four seconds after", percent, (&after(without), &after(with)));
    verdict.claim = format!(
        "At twice its capacity of {:.0}/s the upstream's goodput fell to {} without Tidegate and stayed at {} with it, p99 {}; \
         in the four seconds after, {} and {} were served.",
        upstream().capacity(),
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
    verdict.expect(
        on.latency_ms(99.0).is_some_and(|ms| ms < 0.4 * PATIENCE.as_secs_f64() * 1000.0),
        format!("with Tidegate p99 stays below 400 ms, but it was {}", p99(&on)),
    );
    verdict.expect(
        after(with).served_percent() >= 97.0,
        format!("with Tidegate 97 % are served afterwards, but it was {}", percent(&after(with))),
    );
    verdict
}
