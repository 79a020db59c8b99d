//! How far a run is.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A line at the bottom of the terminal; nothing elsewhere.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{elapsed} [{bar:20}] {pos}/{len} {wide_msg}")
            .expect("the template is a constant");
        bar.set_style(style.progress_chars("=> "));
        Self(bar)
    }

    pub(super) fn says(&self, what: String) {
        self.0.set_message(what);
        self.0.tick();
    }

    pub(super) fn is_at(&self, load: &str, done: u64, of: u64) {
        self.0.set_length(of);
        self.0.set_position(done);
        self.0.set_message(load.to_owned());
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
