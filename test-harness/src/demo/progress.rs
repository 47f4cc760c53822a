//! What the terminal shows while an act is played: one line that changes, or plain lines where there is no terminal.

use std::convert::Infallible;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::report::Fate;

/// The width of one step of the little chart.
const STEP: f64 = 0.25;
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What is known of a run so far.
#[derive(Debug, Default)]
pub(super) struct Live {
    served: usize,
    rejected: usize,
    failed: usize,
    /// Good answers in each step, by the moment they arrived.
    steps: Vec<f64>,
}

/// Shows one run.
#[derive(Debug)]
pub(super) struct Progress {
    run: &'static str,
    seconds: f64,
    /// What fills the little chart, in good answers per second.
    most: f64,
    terminal: bool,
}

impl Live {
    /// Adds one request that ended at this moment of the act.
    pub(super) fn count(&mut self, fate: Fate, ended: Duration) {
        match fate {
            Fate::Served => {
                self.served += 1;
                let step = (ended.as_secs_f64() / STEP) as usize;
                self.steps.resize(self.steps.len().max(step + 1), 0.0);
                self.steps[step] += 1.0 / STEP;
            }
            Fate::RateLimited | Fate::CircuitOpen | Fate::Overloaded => self.rejected += 1,
            Fate::Failed => self.failed += 1,
        }
    }
}

impl Progress {
    /// For a run of so many seconds whose goodput is at most `most` per second.
    pub(super) fn new(run: &'static str, seconds: f64, most: f64) -> Self {
        Self { run, seconds, most, terminal: std::io::stdout().is_terminal() }
    }

    /// Shows the run until it is dropped.
    pub(super) async fn show(&self, live: &Mutex<Live>, start: Instant) -> Infallible {
        let interval = if self.terminal { Duration::from_millis(100) } else { Duration::from_secs(2) };
        let mut ticks = tokio::time::interval(interval);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let now = start.elapsed().as_secs_f64();
            // The last plain line comes with the last answer.
            if self.terminal || now < self.seconds - 0.5 {
                self.print(live, now.min(self.seconds), false);
            }
        }
    }

    /// Leaves the last line standing.
    pub(super) fn finish(&self, live: &Mutex<Live>) {
        self.print(live, self.seconds, true);
    }

    fn print(&self, live: &Mutex<Live>, now: f64, last: bool) {
        let line = self.line(&live.lock().unwrap_or_else(PoisonError::into_inner), now);
        let mut out = std::io::stdout().lock();
        // A terminal that has gone away must not end the run.
        let _ = match (self.terminal, last) {
            (true, false) => write!(out, "\r{line}\x1b[K").and_then(|()| out.flush()),
            (true, true) => writeln!(out, "\r{line}\x1b[K"),
            (false, _) => writeln!(out, "{line}"),
        };
    }

    fn line(&self, live: &Live, now: f64) -> String {
        let all = (self.seconds / STEP).ceil() as usize;
        let past = ((now / STEP) as usize).min(all);
        let bar = |step: usize| {
            let share = live.steps.get(step).copied().unwrap_or(0.0) / self.most;
            BLOCKS[((share * BLOCKS.len() as f64) as usize).min(BLOCKS.len() - 1)]
        };
        let chart: String = (0..all).map(|step| if step < past { bar(step) } else { ' ' }).collect();
        let (run, Live { served, rejected, failed, .. }) = (self.run, live);
        format!("  {run:<8} {chart}│ {now:>4.1} s  served {served:>4}  rejected {rejected:>4}  errors {failed:>4}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_little_chart_grows_with_time_and_shows_goodput() {
        let progress = Progress { run: "with", seconds: 1.0, most: 8.0, terminal: false };
        let mut live = Live::default();
        for at in [0, 10, 300] {
            live.count(Fate::Served, Duration::from_millis(at));
        }
        live.count(Fate::Overloaded, Duration::ZERO);
        assert_eq!(progress.line(&live, 0.8), "  with     █▅▁ │  0.8 s  served    3  rejected    1  errors    0");
        assert_eq!(progress.line(&live, 1.0), "  with     █▅▁▁│  1.0 s  served    3  rejected    1  errors    0");
    }
}
