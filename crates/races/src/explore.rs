//! One search: from a variant to its report.

use std::panic::resume_unwind;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use lab::{Arena, Checkpoint, End, Ghost, Lab, Label, Machine, Monitor, Seat, Team, Violation};

use crate::checkpoints::{Place, Refusal};
use crate::decide::{Limits, Options, Way, Witnesses, Work, way_of};
use crate::ends::{EndSet, Ends, Reading};
use crate::orders;
use crate::question::{Answer, Question};
use crate::report::{MemoryOrder, Sampled, VariantReport, Verdict};
use crate::scenario::{Explorer, Prepared, Reader, Scenario, prepare};
use crate::syntax::{Expectation, Quantifier};

/// Explores a variant, and says what was found.
pub(crate) fn explore(item: &Work<'_>, options: &Options, team: usize, progress: ShowSteps<'_>) -> VariantReport {
    let Prepared { scenario, question } = match prepare(item.race, item.variant, item.memory) {
        Ok(prepared) => prepared,
        Err(error) => return failed(item, error.one_line()),
    };
    let way = way_of(item, options);
    // A checkpoint has what was observed, and does not say what that is.
    let can_tell = scenario.tells_cpus_apart() && options.checkpoints.is_none();
    let ends = if can_tell { options.ends } else { Ends::Ignored };
    let task = Task { ends, ..Task::new(options, way, progress, &question) };
    let found = match way {
        Way::Exhaust if team > 1 || options.checkpoints.is_some() => match kept(item, options) {
            Ok(kept) => together(team, kept, &scenario, task),
            Err(refusal) => return failed(item, refusal.to_string()),
        },
        Way::Exhaust | Way::Preempt(_) | Way::Livelock | Way::Sample(_) => {
            task.aim(Aim::EveryEnd, None).of(&scenario).map(|report| Found { report, unsaved: None })
        }
    };
    tell(item, options, &scenario, task, found)
}

/// What there is to say of a search.
pub(crate) fn tell(
    item: &Work<'_>,
    options: &Options,
    scenario: &Scenario,
    task: Task<'_>,
    found: Option<Found>,
) -> VariantReport {
    let Some(Found { report: mut found, unsaved }) = found else {
        return failed(item, "no machine was built".to_owned());
    };
    let question = task.question;

    let mut report = blank(item);
    let mut observations = std::mem::take(&mut found.observations);
    if task.ends == Ends::Collected {
        let (places, mut ends) = EndSet::split(observations);
        observations = places;
        ends.runs = std::mem::take(&mut found.runs);
        report.ends = Some(ends);
    }
    report.cpus = scenario.cpus();
    report.states = found.states;
    report.transitions = found.transitions;
    report.visited_bytes = found.visited_bytes;
    report.missed = (found.fingerprints == lab::Fingerprints::Narrow).then(|| found.missed());
    report.sampled = found.sampled.map(Sampled::from);
    report.seconds = found.elapsed.as_secs_f64();
    match found.verdict {
        lab::Verdict::Safe => {
            report.verdict = Verdict::Safe;
            if question.asks_something() {
                let answer = question.answer(&observations);
                let witness =
                    wants_witness(question, &answer, options).then(|| task.aim(Aim::Witness, None).of(scenario));
                add_answer(&mut report, question, answer);
                if let Some(Some(second)) = witness {
                    report.seconds += second.elapsed.as_secs_f64();
                    if let lab::Verdict::Violated(run) = second.verdict {
                        show(&mut report, run.trace, Some(run.shortest));
                    }
                }
            }
        }
        lab::Verdict::Violated(run) => {
            report.verdict = Verdict::Violation;
            report.rule = Some(run.violation.rule);
            report.message = Some(run.violation.sentence);
            show(&mut report, run.trace, Some(run.shortest));
        }
        lab::Verdict::Bounded(limit) => {
            report.verdict = Verdict::Bounded;
            report.message = Some(match found.sampled {
                Some(sampled) if limit == lab::Limit::Runs => sampled.to_string(),
                Some(sampled) => format!("{limit}; {sampled}"),
                None => match unsaved {
                    Some(error) => format!("{limit}: {error}"),
                    None => limit.to_string(),
                },
            });
        }
        lab::Verdict::Error(misuse) => {
            report.verdict = Verdict::Error;
            report.message = Some(misuse.sentence);
            show(&mut report, misuse.trace, None);
        }
    }
    judge(item, question, &mut report);
    report
}

/// Takes the news of a search.
pub(crate) type ShowSteps<'p> = &'p (dyn Fn(&lab::Progress) + Sync);

/// Where the checkpoint of a variant is to be kept, and the one that is there.
type Kept = Option<(Place, Option<Checkpoint>)>;

fn kept(item: &Work<'_>, options: &Options) -> Result<Kept, Refusal> {
    options.checkpoints.as_ref().map(|checkpoints| checkpoints.of(item)).transpose()
}

/// Searches in so many threads. The report comes from one of them.
fn together(threads: usize, kept: Kept, scenario: &Scenario, task: Task<'_>) -> Option<Found> {
    let unsaved = Mutex::new(None);
    let (place, checkpoint) = kept.map_or((None, None), |(place, checkpoint)| (Some(place), checkpoint));
    let mut team = Team::new(threads);
    if let Some(place) = &place {
        team = team.saving(place.every, |snapshot| {
            place.save(snapshot).inspect_err(|error| {
                *unsaved.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
            })
        });
    }
    if let Some(checkpoint) = checkpoint {
        team = team.resuming(checkpoint);
    }
    let report = std::thread::scope(|scope| {
        let member = || task.aim(Aim::EveryEnd, Some(team.seat())).of(scenario);
        let members: Vec<_> = (0..threads).map(|_| scope.spawn(member)).collect();
        // A panic is for whoever takes care of this variant.
        let report = |member: ScopedJoinHandle<'_, _>| member.join().unwrap_or_else(|panic| resume_unwind(panic));
        members.into_iter().filter_map(report).next()
    });
    drop(team);
    if let (Some(place), Some(lab::Verdict::Safe | lab::Verdict::Violated(_))) =
        (&place, report.as_ref().map(|report| &report.verdict))
    {
        place.remove();
    }
    let unsaved = unsaved.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.map(|report| Found { report, unsaved })
}

/// The report of a variant that could not be run.
pub(crate) fn failed(item: &Work<'_>, message: String) -> VariantReport {
    VariantReport { message: Some(message), as_expected: Some(false), ..blank(item) }
}

fn blank(item: &Work<'_>) -> VariantReport {
    let litmus = &item.race.litmus;
    VariantReport {
        file: item.race.source.name().to_owned(),
        race: litmus.name.node.clone(),
        variant: item.variant.map(|variant| variant.name.node.clone()),
        verdict: Verdict::Error,
        rule: None,
        message: None,
        expected: None,
        as_expected: None,
        cpus: litmus.cpus(),
        memory: item.memory,
        states: 0,
        transitions: 0,
        sampled: None,
        steps: None,
        seconds: 0.0,
        trace: None,
        shortest: None,
        observation: None,
        final_states: None,
        visited_bytes: 0,
        missed: None,
        finals: Vec::new(),
        ends: None,
        condition: litmus.condition.as_ref().map(ToString::to_string),
        explanation: item.variant.and_then(|variant| variant.explanation.clone()),
    }
}

fn show(report: &mut VariantReport, trace: lab::Trace, shortest: Option<bool>) {
    report.steps = Some(trace.steps.len());
    report.trace = Some(trace);
    report.shortest = shortest;
}

fn wants_witness(question: &Question, answer: &Answer, options: &Options) -> bool {
    match question.quantifier() {
        None => false,
        Some(Quantifier::Exists) => {
            options.witnesses == Witnesses::Shown && answer.finals.iter().any(|state| state.satisfies)
        }
        Some(claim) => !answer.keeps_claim(claim),
    }
}

fn add_answer(report: &mut VariantReport, question: &Question, answer: Answer) {
    if let Some(quantifier) = question.quantifier()
        && !answer.keeps_claim(quantifier)
    {
        report.verdict = Verdict::Violation;
        report.rule = Some(lab::rule::USER.to_owned());
        report.message = Some(match quantifier {
            Quantifier::Forall => "a final state does not satisfy the condition".to_owned(),
            Quantifier::Exists | Quantifier::NotExists => "a final state satisfies what should not exist".to_owned(),
        });
    }
    report.observation = answer.observation;
    report.final_states = Some(answer.finals.len());
    report.finals = answer.finals;
}

/// Compares the answer with what the file expects.
fn judge(item: &Work<'_>, question: &Question, report: &mut VariantReport) {
    let answered = matches!(report.verdict, Verdict::Safe | Verdict::Violation);
    let (expected, met) = match item.variant.map(|variant| &variant.expectation.node) {
        Some(Expectation::Undecided) => return,
        // Said of other memory orders than the one that was asked for.
        Some(expectation) if !is_said_of(expectation, item) => return,
        Some(expectation @ Expectation::Safe) => (expectation.to_string(), report.verdict == Verdict::Safe),
        Some(expectation @ Expectation::Breaks(rules)) => {
            let met = rules.iter().any(|rule| Some(&rule.node) == report.rule.as_ref());
            (expectation.to_string(), met)
        }
        None => match orders::expected_observation(item.race, item.memory) {
            Ok(Some(expected)) => (expected.name().to_owned(), report.observation == Some(expected)),
            // A file that claims something expects that it is true.
            _ if question.quantifier().is_some_and(|quantifier| quantifier != Quantifier::Exists) => {
                ("safe".to_owned(), report.verdict == Verdict::Safe)
            }
            _ => return,
        },
    };
    report.expected = Some(expected);
    report.as_expected = match report.verdict {
        Verdict::Error => Some(false),
        _ => answered.then_some(met),
    };
}

/// Whether the variant's expectation is one for this memory order. What is safe stays so under a stronger order than it is said of.
fn is_said_of(expectation: &Expectation, item: &Work<'_>) -> bool {
    let orders = orders::of(item.race, item.variant).unwrap_or_default();
    orders.contains(&item.memory) || *expectation == Expectation::Safe && item.memory == MemoryOrder::Sc
}

/// What a search has found.
pub(crate) struct Found {
    pub(crate) report: lab::Report,
    /// Why a checkpoint could not be written.
    pub(crate) unsaved: Option<String>,
}

/// What a search looks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    /// A broken rule, and every final state that is asked about.
    EveryEnd,
    /// A run to a final state that a reader wants to see.
    Witness,
}

/// What there is to search for.
#[derive(Clone, Copy)]
pub(crate) struct Task<'s> {
    pub(crate) limits: Limits,
    pub(crate) cancel: Option<&'s AtomicBool>,
    pub(crate) way: Way,
    pub(crate) ends: Ends,
    pub(crate) progress: ShowSteps<'s>,
    pub(crate) question: &'s Question,
}

impl<'s> Task<'s> {
    /// What the options say that there is.
    pub(crate) fn new(options: &'s Options, way: Way, progress: ShowSteps<'s>, question: &'s Question) -> Self {
        Self { limits: options.limits, cancel: options.cancel.as_deref(), way, ends: options.ends, progress, question }
    }

    /// When to give up, as the lab wants to know it.
    pub(crate) fn lab_limits(&self) -> lab::Limits<'s> {
        let Self { limits, cancel, .. } = *self;
        let unlimited = lab::Limits::default();
        lab::Limits {
            states: limits.states.unwrap_or(unlimited.states),
            depth: limits.depth.unwrap_or(unlimited.depth),
            time: limits.time.unwrap_or(Duration::MAX),
            memory: limits.memory.unwrap_or(unlimited.memory),
            fingerprints: limits.fingerprints,
            cancel,
            ..unlimited
        }
    }

    /// A search for this, perhaps by a member of a team.
    pub(crate) fn aim(self, aim: Aim, seat: Option<Seat<'_>>) -> Search<'s, '_> {
        Search { task: self, aim, seat, labels: Labels::Ignored, found: None }
    }

    /// A search that notes the places that keep an order, and those places.
    pub(crate) fn noting_labels(self, scenario: &Scenario) -> Option<(lab::Report, Vec<Label>)> {
        let mut search = self.aim(Aim::EveryEnd, None);
        search.labels = Labels::Noted(Vec::new());
        scenario.build(&mut search);
        match search.labels {
            Labels::Noted(labels) => search.found.map(|found| (found, labels)),
            Labels::Ignored | Labels::Weakened(_) => None,
        }
    }

    /// A search in which these places do less.
    pub(crate) fn weakened(self, scenario: &Scenario, labels: &[Label]) -> Option<lab::Report> {
        let mut search = self.aim(Aim::EveryEnd, None);
        search.labels = Labels::Weakened(labels.to_vec());
        search.of(scenario)
    }
}

pub(crate) struct Search<'s, 't> {
    task: Task<'s>,
    aim: Aim,
    seat: Option<Seat<'t>>,
    labels: Labels,
    found: Option<lab::Report>,
}

/// What is done with the places of the code that keep an order.
enum Labels {
    Ignored,
    Noted(Vec<Label>),
    Weakened(Vec<Label>),
}

impl Search<'_, '_> {
    /// What is found in a scenario.
    pub(crate) fn of(mut self, scenario: &Scenario) -> Option<lab::Report> {
        scenario.build(&mut self);
        self.found
    }
}

impl Explorer for Search<'_, '_> {
    type Checker<'a> = Lab<'a>;

    fn machine<'a>(&self, arena: &'a Arena, machine: Machine) -> Lab<'a> {
        Lab::new(arena, machine)
    }

    fn explore<'a>(&mut self, arena: &'a Arena, mut lab: Lab<'a>, read: Reader<'a>) {
        let reading = Reading::new(arena, lab.cpus());
        match self.aim {
            Aim::EveryEnd if self.task.ends == Ends::Collected => lab.observe(move |end| {
                let mut words = read(end);
                words.extend(reading.digest(end));
                words
            }),
            Aim::EveryEnd if self.task.question.asks_something() => lab.observe(read),
            Aim::EveryEnd => {}
            Aim::Witness => lab.monitor(0, Seeker { question: self.task.question.clone(), read }),
        }
        let limits = self.task.lab_limits();
        match &self.labels {
            Labels::Ignored => {}
            Labels::Noted(_) => lab.note_labels(),
            Labels::Weakened(labels) => lab.weaken(labels),
        }
        let mut progress = |progress: &lab::Progress| (self.task.progress)(progress);
        self.found = match (self.aim, self.task.way, self.seat.take()) {
            (_, _, Some(seat)) => lab.explore_in(seat, &limits, &mut progress),
            (Aim::EveryEnd, Way::Exhaust, _) if self.task.ends == Ends::Collected => {
                Some(lab.explore_keeping_runs(&limits, &mut progress))
            }
            (Aim::Witness, ..) | (_, Way::Exhaust, _) => Some(lab.explore_with(&limits, &mut progress)),
            (_, Way::Preempt(most), _) => Some(lab.explore_preempting(most, &limits, &mut progress)),
            (_, Way::Livelock, _) => Some(lab.explore_livelocks(&limits, &mut progress)),
            (_, Way::Sample(sampling), _) => Some(lab.sample(&sampling, &limits, &mut progress)),
        };
        if let Labels::Noted(labels) = &mut self.labels {
            *labels = lab.labels();
        }
    }
}

/// Takes a final state that a reader wants to see for a broken rule: then the lab looks for the shortest run to it.
struct Seeker<'a> {
    question: Question,
    read: Reader<'a>,
}

impl Monitor for Seeker<'_> {
    fn at_rest(&self, _ghost: &Ghost<'_>, end: &End<'_>) -> Result<(), Violation> {
        if self.question.is_witness(&(self.read)(end)) {
            return Err(Violation::new(lab::rule::USER, "the final state that is asked for"));
        }
        Ok(())
    }
}
