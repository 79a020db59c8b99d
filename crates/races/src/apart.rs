//! Races decided by several processes: all go through the same list, and take part in each search.

use std::sync::mpsc;

use cluster::{Cluster, ClusterError, Ended, Keeper, Lost, Member, Terms};
use lab::{Arena, Lab, Machine};
use sha2::{Digest, Sha256};

use crate::checkpoints::{MemberPlace, Present};
use crate::decide::{Options, Way, Work, way_of, work};
use crate::ends::Ends;
use crate::explore::{self, Aim, Found, ShowSteps, Task};
use crate::race::Race;
use crate::report::VariantReport;
use crate::saved_run::CODE;
use crate::scenario::{Explorer, Prepared, Reader, Scenario, prepare};

/// What a process has done that has no reports to give.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Share {
    /// A limit has ended one of the searches.
    pub is_bounded: bool,
}

/// Decides as [`crate::decide()`] does, together with other processes that were asked the same. The reports come in process 0.
///
/// Exhaustive searches are shared; what else there is to do, process 0 does alone.
///
/// # Errors
/// The processes do not come together, do not agree on what to do, or one was lost.
pub fn decide_in(
    place: cluster::Place,
    races: &[Race],
    options: &Options,
    mut report: impl FnMut(VariantReport),
) -> Result<Share, ClusterError> {
    let work: Vec<Work<'_>> = races.iter().flat_map(|race| work(race, options.memory, &options.variants)).collect();
    let has_reports = place.process == 0;
    let cluster = Cluster::join(place, terms(races, &work, options), options.cancel.as_deref())?;
    let after = match &options.checkpoints {
        Some(checkpoints) => format!(
            "its share of the search is lost; start all processes again with `--resume {}`",
            checkpoints.folder.display()
        ),
        None => "start all processes again; with `--checkpoint DIR` they would go on where they were".to_owned(),
    };
    let (give, reports) = mpsc::channel();
    std::thread::scope(|scope| {
        let work = &work;
        let processes = scope.spawn(move || {
            cluster.run(&after, |member| {
                let mut share = Share::default();
                for (done, item) in work.iter().enumerate() {
                    let leads = has_reports && member.index() == 0;
                    let shows = member.index() % member.threads() == 0;
                    let progress = |progress: &lab::Progress| {
                        if shows {
                            options.show(done, work.len(), item, progress);
                        }
                    };
                    match decide_one(item, options, member, &progress)? {
                        Told::Report(found) if leads => {
                            // Nobody listens any more: the cancelled rest is soon done.
                            let _ = give.send(*found);
                        }
                        Told::Report(_) => {}
                        Told::Elsewhere(limit) => share.is_bounded |= limit.is_some(),
                    }
                }
                Ok(share)
            })
        });
        reports.into_iter().for_each(&mut report);
        let shares = processes.join().expect("panics of members are caught")?;
        Ok(Share { is_bounded: shares.iter().any(|share| share.is_bounded) })
    })
}

/// Everything on which the states and the order of what is done depend.
fn terms(races: &[Race], work: &[Work<'_>], options: &Options) -> Terms {
    let mut texts = Sha256::new();
    for race in races {
        texts.update(race.source.name().as_bytes());
        texts.update([0]);
        texts.update(race.source.text().as_bytes());
        texts.update([0]);
    }
    let texts = texts.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let variants = work.iter().map(|item| {
        let variant = item.variant.map_or("", |variant| variant.name.node.as_str());
        format!("{} {variant} {}", item.race.litmus.name.node, item.memory.name())
    });
    let variants = Sha256::digest(variants.collect::<Vec<_>>().join("\n").as_bytes());
    let checkpoints = options.checkpoints.as_ref().map_or("none", |checkpoints| match checkpoints.present {
        Present::Resumed => "--resume",
        Present::Refused => "--checkpoint",
    });
    let term = |name: &str, value: String| (name.to_owned(), value);
    Terms(vec![
        term("the code", CODE.to_owned()),
        term("the code of crates/cluster", env!("FASTGUP_CLUSTER").to_owned()),
        term("the text of the races", texts),
        term("the choice of variants", variants.iter().map(|byte| format!("{byte:02x}")).collect()),
        term("what limits a search", format!("{:?}", options.limits)),
        term("the way to explore", format!("{:?}", options.way)),
        term("what becomes of checkpoints", checkpoints.to_owned()),
    ])
}

/// What a member has to say of a variant.
enum Told {
    Report(Box<VariantReport>),
    Elsewhere(Option<lab::Limit>),
}

fn decide_one(item: &Work<'_>, options: &Options, member: &mut Member, progress: ShowSteps<'_>) -> Result<Told, Lost> {
    let tell = |report| Ok(Told::Report(Box::new(report)));
    let Prepared { scenario, question } = match prepare(item.race, item.variant, item.memory) {
        Ok(prepared) => prepared,
        Err(error) => return tell(explore::failed(item, error.one_line())),
    };
    let way = way_of(item, options);
    let task = Task { ends: Ends::Ignored, ..Task::new(options, way, progress, &question) };
    if way != Way::Exhaust {
        if member.index() != 0 {
            return Ok(Told::Elsewhere(None));
        }
        let found = task.aim(Aim::EveryEnd, None).of(&scenario).map(|report| Found { report, unsaved: None });
        return tell(explore::tell(item, options, &scenario, task, found));
    }
    let place = options
        .checkpoints
        .as_ref()
        .map(|checkpoints| MemberPlace::new(checkpoints, item, (member.index(), member.members())));
    let keeper = place.as_ref().map(|place| place as &dyn Keeper);
    match share(member, keeper, &scenario, task)? {
        None => tell(explore::failed(item, "no machine was built".to_owned())),
        Some(Ended::Refused(why)) => tell(explore::failed(item, why)),
        Some(Ended::Elsewhere(limit)) => Ok(Told::Elsewhere(limit)),
        Some(Ended::Report(report, unsaved)) => {
            tell(explore::tell(item, options, &scenario, task, Some(Found { report: *report, unsaved })))
        }
    }
}

/// This member's share of a search. `None` if no machine was built.
fn share(
    member: &mut Member,
    keeper: Option<&dyn Keeper>,
    scenario: &Scenario,
    task: Task<'_>,
) -> Result<Option<Ended>, Lost> {
    let mut shared = Shared { task, member, keeper, ended: None };
    scenario.build(&mut shared);
    shared.ended.transpose()
}

/// Takes part in the search of a scenario.
struct Shared<'s> {
    task: Task<'s>,
    member: &'s mut Member,
    keeper: Option<&'s dyn Keeper>,
    ended: Option<Result<Ended, Lost>>,
}

impl Explorer for Shared<'_> {
    type Checker<'a> = Lab<'a>;

    fn machine<'a>(&self, arena: &'a Arena, machine: Machine) -> Lab<'a> {
        Lab::new(arena, machine)
    }

    fn explore<'a>(&mut self, _: &'a Arena, mut lab: Lab<'a>, read: Reader<'a>) {
        if self.task.question.asks_something() {
            lab.observe(read);
        }
        let mut progress = |progress: &lab::Progress| (self.task.progress)(progress);
        let Self { member, keeper, ended, .. } = self;
        *ended = Some(lab.explore_apart(&self.task.lab_limits(), &mut progress, |apart| member.search(apart, *keeper)));
    }
}
