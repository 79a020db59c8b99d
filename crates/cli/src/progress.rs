//! How far the work is, on standard error, if that is a terminal.

use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
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
            bar.set_message(format!("{} {variant}  {} states", progress.race, Count(progress.states)));
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
