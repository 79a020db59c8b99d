//! Ways to states, on their way to another member.

use crate::choice::Choice;

/// The way to a state, told after another: it begins as that one does.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Way {
    /// So many choices are those of the way before.
    pub(crate) shared: u32,
    /// The choices after these.
    pub(crate) rest: Vec<u32>,
}

/// Leaves out of each way what is as in the one before.
pub(crate) fn shorten(paths: &[Vec<Choice>]) -> Vec<Way> {
    let mut before: &[Choice] = &[];
    let mut ways = Vec::with_capacity(paths.len());
    for path in paths {
        let shared = before.iter().zip(path).take_while(|(one, other)| one == other).count();
        ways.push(Way { shared: shared as u32, rest: path[shared..].iter().map(|choice| choice.bits()).collect() });
        before = path;
    }
    ways
}
