//! The exhaustive search: depth first, undoing steps on the way back.

use crate::choice::{Choice, may_end};
use crate::explore::{Arrival, CLOCK_EVERY, Ended, Explorer, Found, UNKNOWN, Way};
use crate::limits::Phase;
use crate::recording::Recording;
use crate::verdict::Report;
use crate::visited::Visited;

/// Explores all.
pub(crate) fn search(explorer: &mut Explorer<'_, '_>, report: &mut Report) -> Result<(), Ended> {
    let mut visited = Visited::new(explorer.limits.fingerprints);
    // The untried choices of all states on the path; of each state, where its own begin and which is next.
    let mut choices: Vec<Choice> = Vec::new();
    // Where each of them leads. Waiting for memory is most of what is left to do, so there is always more than one state that is waited for.
    let mut leads_to: Vec<u128> = Vec::new();
    let mut frames: Vec<(usize, usize)> = Vec::new();
    let path = |frames: &[(usize, usize)], choices: &[Choice]| Found {
        path: frames.iter().map(|&(_, next)| choices[next - 1]).collect(),
    };
    let mut look_next = CLOCK_EVERY;
    visited.insert(explorer.core().fingerprint());
    report.states = 1;
    explorer.core().choices(&mut choices);
    if may_end(&choices) {
        if explorer.end(report).is_err() {
            return Err(Ended::Found(Found { path: Vec::new() }));
        }
        keep_run(explorer, report, Vec::new);
    }
    frames.push((0, 0));
    while let Some((first, next)) = frames.last_mut() {
        if *next == choices.len() {
            choices.truncate(*first);
            leads_to.truncate(*first);
            frames.pop();
            if !frames.is_empty() {
                explorer.core().undo();
            }
            continue;
        }
        if *next == *first {
            explorer.look_ahead(&choices[*first..], &mut leads_to, |fingerprint| visited.expect(fingerprint));
            // What leads to old states is done with. New states are claimed at once, while what was waited for is there: by the time the last of
            // them is gone on from, it would have to be waited for again.
            claim(explorer, *first, &mut choices, &mut leads_to, |fingerprint| visited.insert(fingerprint));
            if choices.len() == *first {
                // Only at the end of a path: by then it has shown many a written word.
                if explorer.core().quiet.is_wrong() {
                    return Err(Ended::WrongAssumption);
                }
                continue;
            }
        }
        let (choice, fingerprint) = (choices[*next], leads_to[*next]);
        *next += 1;
        let insert = |reached| reached == fingerprint || visited.insert(reached);
        let Some(arrival) = explorer.step(choice, fingerprint, insert) else {
            let found = Ended::Found(path(&frames, &choices));
            return Err(if explorer.core().quiet.is_wrong() { Ended::WrongAssumption } else { found });
        };
        if explorer.transitions >= look_next {
            look_next = explorer.transitions + CLOCK_EVERY;
            explorer.share = Some(share_of(&frames, &choices));
            explorer.look_at_clock(Phase::Exploring, report.states, explorer.transitions)?;
            report.visited_bytes = visited.bytes() as u64;
            explorer.look_at_memory(visited.bytes() + size_of_val(&choices[..]) + size_of_val(&leads_to[..]))?;
        }
        if arrival != Arrival::New {
            // Only at the end of a path: by then it has shown many a written word.
            if explorer.core().quiet.is_wrong() {
                return Err(Ended::WrongAssumption);
            }
            if arrival == Arrival::Old {
                explorer.core().undo();
            }
            continue;
        }
        report.states += 1;
        report.depth = report.depth.max(explorer.core().depth() as u64);
        let first = choices.len();
        explorer.core().choices(&mut choices);
        if may_end(&choices[first..]) {
            if explorer.end(report).is_err() {
                return Err(Ended::Found(path(&frames, &choices)));
            }
            keep_run(explorer, report, || path(&frames, &choices).path);
        }
        frames.push((first, first));
        explorer.look_at_counts(report)?;
    }
    report.visited_bytes = visited.bytes() as u64;
    Ok(())
}

/// Takes away the choices that lead to states that are known to be old, of those from `first` on. `insert` says whether a state is new.
#[inline(always)]
fn claim(
    explorer: &mut Explorer<'_, '_>,
    first: usize,
    choices: &mut Vec<Choice>,
    leads_to: &mut Vec<u128>,
    mut insert: impl FnMut(u128) -> bool,
) {
    let mut kept = first;
    for at in first..choices.len() {
        let (choice, fingerprint) = (choices[at], leads_to[at]);
        if fingerprint != UNKNOWN && !insert(fingerprint) {
            explorer.transitions += 1;
            continue;
        }
        (choices[kept], leads_to[kept]) = (choice, fingerprint);
        kept += 1;
    }
    choices.truncate(kept);
    leads_to.truncate(kept);
}

/// Keeps the run that has come to an end, if runs are kept and nobody has observed the same before. What was known of words is added when all is known.
fn keep_run(explorer: &Explorer<'_, '_>, report: &mut Report, path: impl FnOnce() -> Vec<Choice>) {
    if matches!(explorer.way, Way::Chart) && report.observations.len() > report.runs.len() {
        report.runs.push(Recording { choices: path(), known: Vec::new() });
    }
}

/// What part of the tree of choices lies behind a search that stands here. Of each state on the path: where its choices begin, and which is next.
fn share_of(frames: &[(usize, usize)], choices: &[Choice]) -> f64 {
    let ends = frames.iter().skip(1).map(|&(first, _)| first).chain([choices.len()]);
    let mut done = 0.0;
    let mut weight = 1.0;
    for (&(first, next), end) in frames.iter().zip(ends) {
        if next == first || weight < 1e-9 {
            break;
        }
        let each = weight / (end - first) as f64;
        // The latest is being gone through.
        done += each * (next - first - 1) as f64;
        weight = each;
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_grows_with_each_choice_and_ends_at_the_last() {
        let none = Choice::NONE;
        // Two choices, of which the first is being gone through: it has four, of which the third is being gone through.
        assert!((share_of(&[(0, 1), (2, 5)], &[none; 6]) - 0.25).abs() < 1e-12);
        assert!((share_of(&[(0, 2), (2, 5)], &[none; 6]) - 0.75).abs() < 1e-12);
        assert!(share_of(&[(0, 0)], &[none; 3]).abs() < 1e-12);
        // Deep down it stays a number.
        let frames: Vec<_> = (0..100_000).map(|state| (2 * state, 2 * state + 1)).collect();
        assert!(share_of(&frames, &vec![none; 200_000]) < 1e-9);
    }
}
