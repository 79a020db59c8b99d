//! Which colour means what. `anstream` drops them where nobody would see them.

use anstyle::{AnsiColor, Style};

pub(crate) const HEADING: Style = Style::new().bold();
pub(crate) const SAFE: Style = AnsiColor::Green.on_default();
pub(crate) const BROKEN: Style = AnsiColor::Red.on_default().bold();
pub(crate) const UNDECIDED: Style = AnsiColor::Yellow.on_default();
pub(crate) const ASIDE: Style = Style::new().dimmed();
pub(crate) const SAID: Style = AnsiColor::Cyan.on_default();
