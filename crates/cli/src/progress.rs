//! How far the work is, on standard error, if that is a terminal.

use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use lab::{Phase, Progress};
use races::ShowProgress;

use crate::show::number::Count;

/// What is done sooner than this needs no news.
const PATIENCE: Duration = Duration::from_millis(500);
const UPDATES_PER_SECOND: u8 = 10;

/// A line at the bottom of the terminal; nothing elsewhere.
pub(crate) struct Line(ProgressBar);

impl Line {
    /// Hidden until the work turns out to be long.
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template("{elapsed} [{bar:20}] {pos}/{len} {wide_msg}")
            .expect("the template is a constant");
        bar.set_style(style.progress_chars("=> "));
        Self(bar)
    }

    /// What the search calls now and then.
    pub(crate) fn callback(&self) -> ShowProgress {
        let bar = self.0.clone();
        let start = Instant::now();
        Arc::new(move |progress| {
            if bar.is_hidden() && start.elapsed() > PATIENCE {
                bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(UPDATES_PER_SECOND));
            }
            bar.set_length(progress.total as u64);
            bar.set_position(progress.done as u64);
            let variant = progress.variant.as_deref().unwrap_or("");
            bar.set_message(format!("{} {variant}  {}", progress.race, in_words(&progress.search)));
        })
    }

    /// Prints something without the line in its way.
    pub(crate) fn suspended<R>(&self, print: impl FnOnce() -> R) -> R {
        self.0.suspend(print)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// States, rate, depth, memory, and how much is done.
fn in_words(search: &Progress) -> String {
    let rate = search.transitions as f64 / search.elapsed.as_secs_f64().max(1e-3);
    let memory = HumanBytes(search.memory);
    let counted = format!("{} states, {:.1} M steps/s", Count(search.states), rate / 1e6);
    let share = match search.share {
        Some(share) if search.phase == Phase::Exploring => format!(", about {:.1} % done", 100.0 * share),
        _ => String::new(),
    };
    match search.phase {
        Phase::Exploring => format!("{counted}, depth {}, {memory}{share}", Count(search.depth)),
        Phase::Sampling => format!("{} runs", Count(search.states)),
        Phase::Shortening => format!("shortest run: {counted}, depth {}", Count(search.depth)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_a_long_search_is_at() {
        let search = Progress {
            phase: Phase::Exploring,
            states: 1_500_000,
            transitions: 6_000_000,
            depth: 1200,
            memory: 64 << 20,
            share: Some(0.125),
            elapsed: Duration::from_secs(3),
        };
        let line = in_words(&search);
        assert_eq!(line, "1 500 000 states, 2.0 M steps/s, depth 1 200, 64.00 MiB, about 12.5 % done");
        let shortening = Progress { phase: Phase::Shortening, ..search };
        assert_eq!(in_words(&shortening), "shortest run: 1 500 000 states, 2.0 M steps/s, depth 1 200");
    }
}
