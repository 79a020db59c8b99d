//! The exhaustive search by several threads: each goes depth first through a part, and gives away of it what others want.
//!
//! Every thread has a machine of its own. States are the same if their fingerprints are, whichever machine is in them, and a path leads to the
//! same state on each. So a part of the search is a path and some choices at its end. Whatever is visited, is visited once by one
//! of the threads: the number of states is that of one thread alone. Which violation is met first is a matter of chance; the shortest is looked for by
//! the leader alone, as ever, so the trace is not.

use std::time::Duration;

use crate::agent::Attending;
use crate::choice::{Choice, may_end};
use crate::core::Stop;
use crate::explore::{Arrival, CLOCK_EVERY, Ended, Explorer, Found, UNKNOWN};
use crate::limits::{Limit, Phase};
use crate::team::{Next, Part, Saver, Seat, Sum};
use crate::trace::Trace;
use crate::verdict::{Misuse, MisuseKind, Report, Verdict};

/// In place of a choice that was given away.
const GIVEN: Choice = Choice::NONE;

impl Explorer<'_, '_> {
    /// Explores with the others of a team. The leader says what was found.
    pub(crate) fn run_with(mut self, seat: &Seat<'_>) -> Option<Report> {
        let attending = Attending::new(self.core_pointer());
        let mut earlier = Duration::ZERO;
        let mut checkpoint = None;
        if seat.meet() {
            checkpoint = seat.checkpoint();
            earlier = checkpoint.as_ref().map_or(Duration::ZERO, |checkpoint| checkpoint.elapsed);
            match &checkpoint {
                Some(checkpoint) if !self.core().quiet.restore(&checkpoint.quiet) => self.refuse(OTHER_MEMORY),
                Some(_) => {}
                None => self.core().quiet.begin(),
            }
            seat.publish(self.core().quiet.known());
        }
        let refused = self.core().stop.take();
        let mut report = None;
        let mut next = Next::Again;
        while next == Next::Again {
            let leads = seat.meet();
            let is_same = seat.published().is_some_and(|known| self.core().quiet.share(&known));
            self.start();
            let root = self.core().fingerprint();
            if leads {
                let mut choices = Vec::new();
                self.core().choices(&mut choices);
                let fingerprints =
                    checkpoint.as_ref().map_or(self.limits.fingerprints, |checkpoint| checkpoint.fingerprints);
                seat.begin(root, Part::new(Vec::new(), choices), fingerprints);
                match checkpoint.take() {
                    Some(checkpoint) if checkpoint.root != root => self.refuse(OTHER_START),
                    Some(checkpoint) => seat.restore(checkpoint),
                    None => {}
                }
            }
            if let Some(refused) = &refused {
                self.core().stop = Some(refused.clone());
            }
            if !is_same {
                self.core().misuse(
                    MisuseKind::HiddenState,
                    "the labs of a team were not built alike: their arenas differ in size",
                );
            }
            seat.meet();
            next = Next::GoOn;
            while next == Next::GoOn {
                let before = self.transitions;
                let mut part = Report::empty();
                let ended = if self.core().stop.is_some() {
                    Err(Ended::Found(Found { path: Vec::new() }))
                } else {
                    let shared = self.share(seat, &mut part);
                    // Who leads, perhaps another member, shows the run once more: this one cannot be.
                    match (shared, &self.core().stop) {
                        (Err(Ended::Found(_)), Some(Stop::Misuse(MisuseKind::HiddenState, sentence))) => {
                            Err(Ended::Hidden(sentence.clone()))
                        }
                        (shared, _) => shared,
                    }
                };
                seat.finish(ended, part, self.transitions - before);
                if seat.meet() {
                    let elapsed = earlier + self.elapsed();
                    if seat.is_paused()
                        && seat.saver().is_none_or(|saver| seat.snapshot(root, elapsed, |it| saver.save(it)).is_ok())
                    {
                        seat.go_on();
                        seat.decide(Next::GoOn);
                    } else {
                        let concluded = self.conclude(seat, root, elapsed);
                        seat.decide(if concluded.is_some() { Next::Over } else { Next::Again });
                        report = concluded;
                    }
                }
                seat.meet();
                next = seat.next();
            }
            self.core().undo_all();
        }
        drop(attending);
        report
    }

    /// The leader's: what the search has come to; `None` if it begins again.
    fn conclude(&mut self, seat: &Seat<'_>, root: u128, elapsed: Duration) -> Option<Report> {
        let mut ended = seat.outcome();
        if seat.is_paused() {
            ended = Err(Ended::Limit(Limit::Unsaved));
        } else if let (Err(Ended::Limit(_)), Some(saver)) = (&ended, seat.saver())
            && seat.snapshot(root, elapsed, |snapshot| saver.save(snapshot)).is_err()
        {
            ended = Err(Ended::Limit(Limit::Unsaved));
        }
        let refused =
            matches!(self.core().stop, Some(Stop::Misuse(MisuseKind::OtherCode, _))).then(|| self.core().stop.take());
        let mut verdict = match refused.flatten() {
            Some(Stop::Misuse(kind, sentence)) => {
                Verdict::Error(Box::new(Misuse { kind, sentence, trace: Trace::default() }))
            }
            _ => self.verdict_of(ended),
        };
        if verdict == Verdict::Safe && !self.core().quiet.is_wrong() {
            verdict = self.audit_again();
        }
        if self.core().quiet.is_wrong() {
            self.core().quiet.begin_again();
            return None;
        }
        let Sum { states, transitions, depth, ends, observations } = seat.sum();
        let (visited_bytes, fingerprints) = (seat.bytes() as u64, seat.fingerprints());
        let counted = Report { states, transitions, depth, ends, observations, ..Report::empty() };
        Some(Report { verdict, visited_bytes, fingerprints, elapsed, ..counted })
    }

    fn refuse(&mut self, why: &str) {
        self.core().misuse(MisuseKind::OtherCode, why);
    }

    /// This member's share of a search.
    fn share(&mut self, seat: &Seat<'_>, report: &mut Report) -> Result<(), Ended> {
        let mut counted = (0, self.transitions);
        while let Some(part) = seat.part() {
            self.rewind();
            let before = self.transitions;
            let Part { base, choices, frames } = &part;
            let taken = frames.iter().rev().skip(1).rev().map(|&(_, next)| choices[next - 1]);
            let way: Vec<Choice> = base.iter().copied().chain(taken).collect();
            let is_possible = way.iter().all(|&choice| {
                let mut possible = Vec::new();
                self.core().choices(&mut possible);
                possible.contains(&choice) && self.apply(choice)
            });
            self.transitions = before;
            if self.core().quiet.is_wrong() {
                return Err(Ended::WrongAssumption);
            }
            if !is_possible {
                self.core().stop = None;
                self.core().misuse(
                    MisuseKind::HiddenState,
                    "steps that were taken once cannot be taken again: code keeps state outside the arena",
                );
                return Err(Ended::Found(Found { path: way }));
            }
            let leads_to = vec![UNKNOWN; part.choices.len()];
            let mut search = Share { seat, part, leads_to, counted };
            // Other states were judged by whoever came there first.
            if way.is_empty() {
                let mut possible = Vec::new();
                self.core().choices(&mut possible);
                if may_end(&possible) && self.end(report).is_err() {
                    return Err(search.found());
                }
            }
            let ended = search.depth_first(self, report);
            counted = search.counted;
            if !search.part.frames.is_empty() && !matches!(ended, Err(Ended::Found(_) | Ended::WrongAssumption)) {
                seat.give(search.part);
            }
            ended?;
        }
        Ok(())
    }
}

const OTHER_MEMORY: &str = "the checkpoint is of a lab with more memory than this one";
const OTHER_START: &str = "the checkpoint is of a lab that begins in another state";

/// A part of the search, in the hands of a member.
struct Share<'s, 't> {
    seat: &'s Seat<'t>,
    part: Part,
    /// Where each of its choices leads.
    leads_to: Vec<u128>,
    /// States and steps that the team knows of.
    counted: (u64, u64),
}

impl Share<'_, '_> {
    fn depth_first(&mut self, explorer: &mut Explorer<'_, '_>, report: &mut Report) -> Result<(), Ended> {
        while let Some((first, next)) = self.part.frames.last_mut() {
            if *next == self.part.choices.len() {
                self.part.choices.truncate(*first);
                self.leads_to.truncate(*first);
                self.part.frames.pop();
                if !self.part.frames.is_empty() {
                    explorer.core().undo();
                }
                continue;
            }
            if self.leads_to.len() < self.part.choices.len() {
                self.look_ahead(explorer);
                continue;
            }
            let (choice, fingerprint) = (self.part.choices[*next], self.leads_to[*next]);
            if choice == GIVEN {
                *next += 1;
                continue;
            }
            if explorer.transitions.is_multiple_of(CLOCK_EVERY) {
                // Before the step, which is left to be taken if it is time to stop.
                self.look_around(explorer, report)?;
            }
            let Some((_, next)) = self.part.frames.last_mut() else { unreachable!("there is a choice") };
            *next += 1;
            let insert = |fingerprint| self.seat.insert(fingerprint);
            let Some(arrival) = explorer.step(choice, fingerprint, insert) else {
                return Err(if explorer.core().quiet.is_wrong() { Ended::WrongAssumption } else { self.found() });
            };
            if arrival != Arrival::New {
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
            let first = self.part.choices.len();
            explorer.core().choices(&mut self.part.choices);
            if may_end(&self.part.choices[first..]) && explorer.end(report).is_err() {
                return Err(self.found());
            }
            self.part.frames.push((first, first));
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

    /// Finds out where the choices of this state lead, which nobody has taken.
    fn look_ahead(&mut self, explorer: &mut Explorer<'_, '_>) {
        let choices = &self.part.choices[self.leads_to.len()..];
        if choices.contains(&GIVEN) {
            self.leads_to.resize(self.part.choices.len(), UNKNOWN);
        } else {
            explorer.look_ahead(choices, &mut self.leads_to, |fingerprint| self.seat.expect(fingerprint));
        }
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
        if self.seat.saver().is_some_and(Saver::is_due) {
            self.seat.pause();
        }
        explorer
            .look_at_memory(self.seat.bytes() + size_of_val(&self.part.choices[..]) + size_of_val(&self.leads_to[..]))
    }

    /// Gives away half of what is untried in the state nearest to the beginning: the most work there is.
    fn give(&mut self) {
        let mut path = self.part.base.clone();
        for index in 0..self.part.frames.len() {
            let next = self.part.frames[index].1;
            let end = self.part.frames.get(index + 1).map_or(self.part.choices.len(), |later| later.0);
            let untried = self.part.choices[next..end].iter().filter(|choice| **choice != GIVEN).count();
            if untried != 0 {
                let mut choices = Vec::new();
                for place in self.part.choices[next..end].iter_mut().rev() {
                    if *place != GIVEN && choices.len() * 2 < untried {
                        choices.push(std::mem::replace(place, GIVEN));
                    }
                }
                self.seat.give(Part::new(path, choices));
                return;
            }
            if next > self.part.frames[index].0 {
                path.push(self.part.choices[next - 1]);
            }
        }
    }

    fn found(&self) -> Ended {
        let taken = self.part.frames.iter().map(|&(_, next)| self.part.choices[next - 1]);
        Ended::Found(Found { path: self.part.base.iter().copied().chain(taken).collect() })
    }
}
