//! One mutant after the other: who notices?

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::baseline::{ACTIVE, Measured, measured};
use super::copy::{Place, Planned};
use super::json_lines::JsonLines;
use super::judge::{Answer, Judge, Program, ask_race, ask_tests};
use super::list::{Id, Mutant};
use super::results::{self, Outcome, Record};
use super::rewrite::State;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only each N-th mutant, from the K-th on (from 0)
    #[arg(long, value_name = "K/N", value_parser = shard)]
    shard: Option<(usize, usize)>,
    /// Only so many
    #[arg(long, value_name = "N")]
    sample: Option<usize>,
    /// Which come first: the order is random, so that what is done is always a fair sample of the rest
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Only mutants whose name contains this
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// How many mutants are asked about at a time
    #[arg(long, value_name = "N", default_value_t = 1)]
    jobs: usize,
    /// Tests that take longer than this are not asked
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    longest_test: f64,
    /// How long the races may take together, for each mutant
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    races: f64,
}

fn shard(text: &str) -> Result<(usize, usize), String> {
    let parsed = text.split_once('/').and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
    parsed.filter(|(k, n)| k < n).ok_or_else(|| "K/N with K less than N".into())
}

/// Tests are asked together for so long: starting a program for each would take longer than they do.
const TOGETHER_SECONDS: f64 = 0.5;

/// How much processor time a judge may take that ends in `seconds` as a rule. Many mutants loop for ever, so most of a pass is waiting for this.
fn limit(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.mul_add(5.0, 2.0))
}

/// Goes on with the pass.
pub(super) fn run(place: &Place, arguments: &Arguments) -> Result<()> {
    let _lock = place.lock()?;
    let judges = Judges::of(measured(place)?, arguments);
    let (known, results) = JsonLines::<Record>::open(&results::file(place))?;
    let known: HashSet<String> = known.into_iter().map(|record| record.name).collect();
    let plan = place.plan()?;
    let wanted: Vec<&Mutant> =
        chosen(&plan, arguments).into_iter().filter(|mutant| !known.contains(&mutant.name)).collect();
    eprintln!("{} mutants to ask about", wanted.len());
    let rest = Mutex::new(wanted.iter().enumerate());
    let results = Mutex::new(results);
    thread::scope(|scope| {
        let work = || -> Result<()> {
            loop {
                let next = rest.lock().expect("nobody panics with it").next();
                let Some((number, mutant)) = next else { return Ok(()) };
                let record = judges.ask(place, mutant).with_context(|| mutant.name.clone())?;
                eprintln!("{}/{} {}: {record}", number + 1, wanted.len(), mutant.name);
                results.lock().expect("nobody panics with it").add(&record)?;
            }
        };
        let workers: Vec<_> = (0..arguments.jobs).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            match worker.join() {
                Ok(done) => done?,
                Err(_) => bail!("a worker has panicked"),
            }
        }
        Ok(())
    })
}

/// The mutants that `arguments` name, in their order.
fn chosen<'p>(plan: &'p [Planned], arguments: &Arguments) -> Vec<&'p Mutant> {
    let built = plan.iter().filter(|planned| planned.state == State::Built).map(|planned| &planned.mutant);
    let mut mutants: Vec<&Mutant> =
        built.filter(|mutant| arguments.name.as_ref().is_none_or(|part| mutant.name.contains(part))).collect();
    mutants.sort_by_cached_key(|mutant| (scattered(arguments.seed, &mutant.name), mutant.id));
    let (first, every) = arguments.shard.unwrap_or((0, 1));
    mutants.into_iter().skip(first).step_by(every).take(arguments.sample.unwrap_or(usize::MAX)).collect()
}

/// The same number for the same name, on every machine: FNV-1a.
fn scattered(seed: u64, name: &str) -> u64 {
    let bytes = seed.to_le_bytes().into_iter().chain(name.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// All judges, the quickest first.
struct Judges {
    all: Vec<Measured>,
    /// Which of them reach a mutant.
    reaching: HashMap<Id, Vec<usize>>,
    race_seconds: f64,
}

impl Judges {
    fn of(mut all: Vec<Measured>, arguments: &Arguments) -> Self {
        all.retain(|one| match one.judge {
            _ if one.is_endless => false,
            Judge::Test { .. } => one.seconds <= arguments.longest_test,
            Judge::Race { .. } => one.seconds <= arguments.races,
        });
        all.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
        let mut reaching: HashMap<Id, Vec<usize>> = HashMap::new();
        for (index, one) in all.iter().enumerate() {
            for id in &one.reached {
                reaching.entry(*id).or_default().push(index);
            }
        }
        Self { all, reaching, race_seconds: arguments.races }
    }

    fn ask(&self, place: &Place, mutant: &Mutant) -> Result<Record> {
        let start = Instant::now();
        let reaching: Vec<&Measured> =
            self.reaching.get(&mutant.id).into_iter().flatten().map(|at| &self.all[*at]).collect();
        let mut record = Record::of(mutant);
        if !reaching.is_empty() {
            (record.outcome, record.by) = self.ask_reaching(place, &reaching, &mut record, &mutant.id.to_string())?;
        }
        record.seconds = start.elapsed().as_secs_f64();
        Ok(record)
    }

    /// What came of a mutant, and by whom; who was asked is counted in `record`.
    fn ask_reaching(
        &self,
        place: &Place,
        reaching: &[&Measured],
        record: &mut Record,
        id: &str,
    ) -> Result<(Outcome, String)> {
        for group in groups(reaching) {
            record.tests += group.names.len();
            match ask_tests(group.program, &group.names, limit(group.seconds), (ACTIVE, id))? {
                Answer::Nothing => {}
                Answer::Noticed(by) => return Ok((Outcome::Test, by)),
                Answer::TooLong(by) => return Ok((Outcome::TestTooLong, by)),
            }
        }
        let mut outcome = (Outcome::Survived, String::new());
        let mut left = self.race_seconds;
        for one in reaching {
            let Judge::Race { race, variant } = &one.judge else { continue };
            if one.seconds > left {
                record.races_left += 1;
                continue;
            }
            let start = Instant::now();
            record.races += 1;
            match ask_race(place, (race, variant.as_deref()), limit(one.seconds), (ACTIVE, id))? {
                Answer::Nothing => {}
                Answer::Noticed(by) => return Ok((Outcome::Race, by)),
                // More states are no mistake: another race may find one.
                Answer::TooLong(by) => outcome = (Outcome::RaceTooLong, by),
            }
            left -= start.elapsed().as_secs_f64();
        }
        Ok(outcome)
    }
}

/// Tests of one program that are asked together.
struct Group<'j> {
    program: &'j Program,
    names: Vec<&'j str>,
    seconds: f64,
}

/// The tests among `judges` in groups, the quickest first.
fn groups<'j>(judges: &[&'j Measured]) -> Vec<Group<'j>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    // Where the group of each program is that may still grow.
    let mut open: HashMap<&Program, usize> = HashMap::new();
    for one in judges {
        let Judge::Test { program, name } = &one.judge else { continue };
        let at = *open.entry(program).or_insert_with(|| {
            groups.push(Group { program, names: Vec::new(), seconds: 0.0 });
            groups.len() - 1
        });
        groups[at].names.push(name);
        groups[at].seconds += one.seconds;
        if groups[at].seconds > TOGETHER_SECONDS {
            open.remove(program);
        }
    }
    groups
}
