//! How far the work is, on standard error, if that is a terminal.

use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use races::ShowProgress;

use crate::show::number::Count;

/// A line at the bottom of the terminal; nothing elsewhere.
pub(crate) struct Line(ProgressBar);

impl Line {
    /// Shows the line from the first report on.
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{elapsed} [{bar:20}] {pos}/{len} {wide_msg}")
            .expect("the template is a constant");
        bar.set_style(style.progress_chars("=> "));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// What the search calls now and then.
    pub(crate) fn callback(&self) -> ShowProgress {
        let bar = self.0.clone();
        Arc::new(move |progress| {
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
