//! How wide the output is, and folding text to that.

use std::io::{stderr, stdout};

use terminal_size::{Width, terminal_size_of};
use textwrap::{Options, WordSplitter};

/// What a pipe or a file gets: three columns that a mail can still quote.
const ELSEWHERE: usize = 100;
/// Wider lines tire the eye.
const MOST: usize = 160;
/// Narrower terminals wrap by themselves.
const LEAST: usize = 20;

/// Columns of standard output: the terminal's, else `COLUMNS`, else 100.
pub(crate) fn of_stdout() -> usize {
    choose(terminal_size_of(stdout()).map(|(Width(width), _)| width))
}

/// Columns of standard error, in the same way.
pub(crate) fn of_stderr() -> usize {
    choose(terminal_size_of(stderr()).map(|(Width(width), _)| width))
}

/// Columns of the terminal that standard output is, or of one that `COLUMNS` pretends it to be. A pipe has no end.
pub(crate) fn of_terminal() -> Option<usize> {
    let is_known = terminal_size_of(stdout()).is_some() || std::env::var_os("COLUMNS").is_some();
    is_known.then(of_stdout)
}

/// Folds text at blanks, and inside a word only where it is too long for a line: names with hyphens stay whole.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let options = Options::new(width.max(1)).word_splitter(WordSplitter::NoHyphenation);
    textwrap::wrap(text, options).into_iter().map(|line| line.trim_end().to_owned()).collect()
}

fn choose(terminal: Option<u16>) -> usize {
    let named = || std::env::var("COLUMNS").ok().and_then(|columns| columns.parse::<usize>().ok());
    terminal.map(usize::from).filter(|width| *width > 0).or_else(named).unwrap_or(ELSEWHERE).clamp(LEAST, MOST)
}
