//! The exhaustive search by several threads: each goes depth first through a part, and gives away of it what others want.
//!
//! Every thread has a machine of its own. States are the same if their fingerprints are, whichever machine is in them, and a path leads to the
//! same state on each. So a part of the search is a path and some choices at its end. Whatever is visited, is visited once by one
//! of the threads: the number of states is that of one thread alone. Which violation is met first is a matter of chance; the shortest is looked for by
//! the leader alone, as ever, so the trace is not.

use crate::agent::Attending;
use crate::choice::Choice;
use crate::core::Stop;
use crate::explore::{CLOCK_EVERY, Ended, Explorer, Found};
use crate::limits::{Limit, Phase};
use crate::team::{Seat, Sum, Work};
use crate::verdict::{MisuseKind, Report};

/// In place of a choice that was given away.
const GIVEN: Choice = Choice::NONE;

impl Explorer<'_, '_> {
    /// Explores with the others of a team. The leader says what was found.
    pub(crate) fn run_with(mut self, seat: &Seat<'_>) -> Option<Report> {
        let attending = Attending::new(self.core_pointer());
        if seat.meet() {
            self.core().quiet.begin();
            seat.publish(self.core().quiet.known());
        }
        let mut report = None;
        loop {
            let leads = seat.meet();
            let is_same = seat.published().is_some_and(|known| self.core().quiet.share(&known));
            self.start();
            if leads {
                let mut choices = Vec::new();
                self.core().choices(&mut choices);
                seat.begin(self.core().fingerprint(), Work { path: Vec::new(), choices });
            }
            seat.meet();
            let mut part = Report::empty();
            let ended = if !is_same {
                self.core().misuse(
                    MisuseKind::HiddenState,
                    "the labs of a team were not built alike: their arenas differ in size",
                );
                Err(Ended::Found(Found { path: Vec::new() }))
            } else if self.core().stop.is_some() {
                Err(Ended::Found(Found { path: Vec::new() }))
            } else {
                self.share(seat, &mut part)
            };
            let transitions = self.transitions;
            seat.finish(ended, part, transitions);
            if seat.meet() {
                let (ended, sum) = seat.outcome();
                let verdict = self.verdict_of(ended);
                self.core().undo_all();
                let again = self.core().quiet.is_wrong();
                if again {
                    self.core().quiet.begin_again();
                } else {
                    let Sum { states, transitions, depth, ends, observations } = sum;
                    report = Some(Report {
                        verdict,
                        states,
                        transitions,
                        depth,
                        ends,
                        observations,
                        elapsed: self.elapsed(),
                        ..Report::empty()
                    });
                }
                seat.decide(again);
            } else {
                self.core().undo_all();
            }
            seat.meet();
            if !seat.begins_again() {
                break;
            }
        }
        drop(attending);
        report
    }

    /// This member's share of a search.
    fn share(&mut self, seat: &Seat<'_>, report: &mut Report) -> Result<(), Ended> {
        let mut search = Share { seat, base: Vec::new(), choices: Vec::new(), frames: Vec::new(), counted: (0, 0) };
        while let Some(work) = seat.work() {
            self.rewind();
            let before = self.transitions;
            for &choice in &work.path {
                if !self.apply(choice) {
                    break;
                }
            }
            self.transitions = before;
            if self.core().quiet.is_wrong() {
                return Err(Ended::WrongAssumption);
            }
            if self.core().stop.is_some() {
                self.core().stop = Some(Stop::Misuse(
                    MisuseKind::HiddenState,
                    "steps that one thread took cannot be taken by another: code keeps state outside the arena"
                        .to_owned(),
                ));
                return Err(Ended::Found(Found { path: work.path }));
            }
            search.base = work.path;
            search.choices = work.choices;
            search.frames.clear();
            if search.choices.is_empty() && self.end(report).is_err() {
                return Err(Ended::Found(Found { path: search.base }));
            }
            search.frames.push((0, 0));
            search.depth_first(self, report)?;
        }
        Ok(())
    }
}

/// A part of the search.
struct Share<'s, 't> {
    seat: &'s Seat<'t>,
    /// The way to where it begins.
    base: Vec<Choice>,
    /// The untried choices of all states on the path from there; of each state, where its own begin and which is next.
    choices: Vec<Choice>,
    frames: Vec<(usize, usize)>,
    /// States and steps that the team knows of.
    counted: (u64, u64),
}

impl Share<'_, '_> {
    fn depth_first(&mut self, explorer: &mut Explorer<'_, '_>, report: &mut Report) -> Result<(), Ended> {
        while let Some((first, next)) = self.frames.last_mut() {
            if *next == self.choices.len() {
                self.choices.truncate(*first);
                self.frames.pop();
                if !self.frames.is_empty() {
                    explorer.core().undo();
                }
                continue;
            }
            let choice = self.choices[*next];
            *next += 1;
            if choice == GIVEN {
                continue;
            }
            if !explorer.apply(choice) {
                return Err(if explorer.core().quiet.is_wrong() { Ended::WrongAssumption } else { self.found() });
            }
            if explorer.transitions.is_multiple_of(CLOCK_EVERY) {
                self.look_around(explorer, report)?;
            }
            if !self.seat.insert(explorer.core().fingerprint()) {
                if explorer.core().quiet.is_wrong() {
                    return Err(Ended::WrongAssumption);
                }
                explorer.core().undo();
                continue;
            }
            report.states += 1;
            report.depth = report.depth.max(explorer.core().depth() as u64);
            let first = self.choices.len();
            explorer.core().choices(&mut self.choices);
            if self.choices.len() == first && explorer.end(report).is_err() {
                return Err(self.found());
            }
            self.frames.push((first, first));
            if report.depth > explorer.limits.depth {
                return Err(Ended::Limit(Limit::Depth));
            }
            if self.seat.is_wanted() {
                self.give();
            }
            if self.seat.stops() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The clock, the counts of all, and memory.
    fn look_around(&mut self, explorer: &mut Explorer<'_, '_>, report: &Report) -> Result<(), Ended> {
        let (states, transitions) = self.counted;
        self.counted = (report.states, explorer.transitions);
        let all = self.seat.count(report.states - states, explorer.transitions - transitions);
        explorer.look_at_clock(Phase::Exploring, all.0, all.1)?;
        if all.0 > explorer.limits.states {
            return Err(Ended::Limit(Limit::States));
        }
        explorer.look_at_memory(self.seat.bytes() + self.choices.len() * size_of::<Choice>())
    }

    /// Gives away half of what is untried in the state nearest to the beginning: the most work there is.
    fn give(&mut self) {
        let mut path = self.base.clone();
        for index in 0..self.frames.len() {
            let next = self.frames[index].1;
            let end = self.frames.get(index + 1).map_or(self.choices.len(), |later| later.0);
            let untried = self.choices[next..end].iter().filter(|choice| **choice != GIVEN).count();
            if untried != 0 {
                let mut choices = Vec::new();
                for place in self.choices[next..end].iter_mut().rev() {
                    if *place != GIVEN && choices.len() * 2 < untried {
                        choices.push(std::mem::replace(place, GIVEN));
                    }
                }
                self.seat.give(Work { path, choices });
                return;
            }
            if next > self.frames[index].0 {
                path.push(self.choices[next - 1]);
            }
        }
    }

    fn found(&self) -> Ended {
        let taken = self.frames.iter().map(|&(_, next)| self.choices[next - 1]);
        Ended::Found(Found { path: self.base.iter().copied().chain(taken).collect() })
    }
}
