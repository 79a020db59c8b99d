//! One search, as a member takes part in it.
//!
//! Members work, and every few milliseconds say how far they are and close an epoch. When an epoch has passed, all have the same notes of it and so come to the same
//! conclusions: to go on and even out what is to be done; to write a checkpoint; or to come to an end. For the last two they settle first: nobody works, and
//! when the next epoch has passed, nothing is on its way.
//!
//! An epoch is closed only after the one before it has passed. So if nobody had anything to do, and nobody had anything on its way, when they closed an epoch, then all
//! is done: what was sent before has been heard before.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use lab::{Apart, Claim, Claimed, Claims, Limit, Report, Total, Trouble};

use crate::flow::{Flow, Heard, Lost, PATIENCE};
use crate::keeper::Keeper;
use crate::note::{News, Note, Words};
use crate::recent::Recent;
use crate::share;

/// States between two looks at what was heard.
const SLICE: usize = 128;
/// Claims that are sent together; fewer if there is nothing else to do.
const BATCH: usize = 512;
/// How long a member works before it closes an epoch.
const TICK: Duration = Duration::from_millis(5);

/// How a search ended.
#[derive(Debug)]
pub enum Ended {
    /// All was explored, or not; the report comes from one member.
    Report(Box<Report>, Option<String>),
    /// Another member has the report. Which limit has ended the search, if one has.
    Elsewhere(Option<Limit>),
    /// It did not begin: why.
    Refused(String),
}

pub(crate) struct Search<'s, 'e, 'a> {
    flow: &'s mut Flow,
    apart: &'s mut Apart<'e, 'a>,
    keeper: Option<&'s dyn Keeper>,
    out: Outgoing,
    /// What is to be told.
    trouble: Option<Trouble>,
    /// States and steps of all, as far as is known.
    all: (u64, u64),
    latest_checkpoint: Instant,
    /// Of the next checkpoint.
    number: u64,
    /// The latest that all have.
    kept: Option<u64>,
    /// Why a checkpoint could not be written.
    unsaved: Option<String>,
    /// Whether work was given away in this epoch: it may be on its way when the epoch is closed.
    gave: bool,
}

/// Claims on their way.
struct Outgoing {
    /// For each member, what was not sent yet.
    waiting: Vec<(Vec<u128>, Vec<Claimed>)>,
    /// What was sent and not answered.
    asked: HashMap<u64, Vec<Claimed>>,
    batch: u64,
    recent: Recent,
}

/// What becomes of a search when an epoch has passed.
enum Next {
    GoOn,
    Checkpoint,
    End,
}

impl<'s, 'e, 'a> Search<'s, 'e, 'a> {
    pub(crate) fn new(flow: &'s mut Flow, apart: &'s mut Apart<'e, 'a>, keeper: Option<&'s dyn Keeper>) -> Self {
        let members = flow.members();
        let waiting = (0..members).map(|_| (Vec::new(), Vec::new())).collect();
        let out = Outgoing { waiting, asked: HashMap::new(), batch: 0, recent: Recent::new() };
        let latest_checkpoint = Instant::now();
        Self {
            flow,
            apart,
            keeper,
            out,
            trouble: None,
            all: (0, 0),
            latest_checkpoint,
            number: 0,
            kept: None,
            unsaved: None,
            gave: false,
        }
    }

    /// Takes part in the search until it ends.
    pub(crate) fn run(mut self) -> Result<Ended, Lost> {
        let mut is_resumed = match self.get_ready()? {
            Ok(is_resumed) => is_resumed,
            Err(why) => return Ok(Ended::Refused(why)),
        };
        loop {
            if !is_resumed && self.flow.index() == 0 {
                let (root, claimed) = self.apart.root();
                let mut claim = claiming(self.flow, &mut self.out);
                let claim = claim(root, claimed);
                self.apart.answer(claim);
            }
            let total = self.explore()?;
            if let Some(ended) = self.conclude(&total)? {
                return Ok(ended);
            }
            is_resumed = false;
            self.begin_again();
            self.flow.meet(&Note::Ready(Ok(Vec::new())))?;
        }
    }

    /// Meets the others before anything is claimed, and agrees with them on which checkpoint to go on from. Returns whether there is one.
    fn get_ready(&mut self) -> Result<Result<bool, String>, Lost> {
        self.forget_claims(Claims::new(self.apart.fingerprints()));
        let present = self.keeper.map_or(Ok(Vec::new()), Keeper::present);
        let mut theirs = Vec::new();
        for note in self.flow.meet(&Note::Ready(present))? {
            let Note::Ready(present) = note else { unreachable!("all get ready") };
            match present {
                Ok(present) => theirs.push(present),
                Err(why) => return Ok(Err(why)),
            }
        }
        self.number = theirs.iter().flatten().max().map_or(1, |latest| latest + 1);
        let Some(newest) = theirs[0].iter().filter(|number| theirs.iter().all(|all| all.contains(number))).max() else {
            // Some were killed before they had written their first: the others have to let go of theirs.
            let without = theirs.iter().position(Vec::is_empty);
            let is_first = without.is_some() && theirs.iter().flatten().all(|number| *number == 1);
            return Ok(match without {
                _ if theirs.iter().all(Vec::is_empty) || is_first => Ok(false),
                Some(member) => Err(format!("member {member} has no checkpoint of this search, and others have")),
                None => Err("the members have no checkpoint of the same moment".to_owned()),
            });
        };
        let read = match self.keeper.map(|keeper| keeper.read(*newest)) {
            Some(Ok(checkpoint)) => match self.apart.restore(checkpoint) {
                Ok(claims) => {
                    self.forget_claims(claims);
                    Ok(())
                }
                Err(other) => Err(format!("checkpoint {newest} cannot be gone on with: {other}")),
            },
            Some(Err(why)) => Err(why),
            None => Err("a member keeps no checkpoints, and others do".to_owned()),
        };
        self.kept = Some(*newest);
        Ok(first_failure(self.flow.meet(&Note::Kept(read))?).map(|()| true))
    }

    fn forget_claims(&mut self, claims: Claims) {
        *self.flow.claims() = claims;
        self.out.recent.forget();
    }

    fn begin_again(&mut self) {
        self.apart.begin_again();
        self.forget_claims(Claims::new(self.apart.fingerprints()));
        self.trouble = None;
        self.all = (0, 0);
    }

    /// Works until all is done or somebody has met with trouble, and then until nothing is on its way.
    fn explore(&mut self) -> Result<Total, Lost> {
        let mut closed: Option<u64> = None;
        let mut latest_close = Instant::now();
        loop {
            self.work();
            let is_idle = self.apart.pending() == 0 || self.trouble.is_some();
            if is_idle {
                self.out.send_all(self.flow);
            }
            self.flow.step(if is_idle { PATIENCE.min(TICK) } else { Duration::ZERO })?;
            self.hear();
            if let Some(epoch) = closed {
                let Some(notes) = self.flow.passed(epoch) else { continue };
                closed = None;
                let news = notes.into_iter().map(|note| match note {
                    Note::News(news) => news,
                    _ => unreachable!("all explore"),
                });
                let news: Vec<News> = news.collect();
                match self.judge(&news) {
                    Next::GoOn => self.share_out(&news),
                    Next::End => {
                        let total = self.settle()?;
                        // No answer is better than a wrong one.
                        assert!(total.trouble.is_some() || self.apart.pending() == 0, "all is done");
                        return Ok(total);
                    }
                    Next::Checkpoint => {
                        let total = self.settle()?;
                        if total.trouble.is_some() || self.apart.is_wrong() {
                            return Ok(total);
                        }
                        if let Err(why) = self.keep()? {
                            self.unsaved = Some(why);
                            return Ok(Total { trouble: Some(Trouble::Limit(Limit::Unsaved)), ..total });
                        }
                    }
                }
            }
            let is_idle = self.apart.pending() == 0 || self.trouble.is_some();
            if is_idle || latest_close.elapsed() >= TICK {
                latest_close = Instant::now();
                self.out.send_all(self.flow);
                let news = self.news();
                closed = Some(self.flow.close(&Note::News(news)));
            }
        }
    }

    fn work(&mut self) {
        if self.trouble.is_some() {
            return;
        }
        let mut claim = claiming(self.flow, &mut self.out);
        let worked = self.apart.work(SLICE, &mut claim);
        drop(claim);
        self.out.send_full(self.flow);
        let bytes = self.flow.claims().bytes() + self.out.bytes();
        let looked = self.apart.look_around(self.all.0, self.all.1, bytes);
        self.trouble = worked.and(looked).err();
    }

    /// Takes what others have answered and given.
    fn hear(&mut self) {
        while let Some(heard) = self.flow.heard() {
            match heard {
                Heard::Answers { batch, granted } => {
                    let asked = self.out.asked.remove(&batch).unwrap_or_default();
                    // The last comes first when work goes on: the first that was come to is next to where the machine is.
                    for (claimed, is_granted) in asked.into_iter().zip(granted) {
                        self.apart.answer(if is_granted { Claim::Granted(claimed) } else { Claim::Taken(claimed) });
                    }
                }
                Heard::Ways(ways) => self.apart.take(ways),
            }
        }
    }

    fn news(&mut self) -> News {
        let pending = self.apart.pending() as u64;
        let (words, gave) = (self.apart.news(), std::mem::take(&mut self.gave));
        News {
            is_busy: gave || pending != 0 || !self.out.asked.is_empty() || !words.is_empty(),
            pending,
            states: self.flow.claims().states(),
            transitions: self.apart.transitions(),
            words,
            trouble: self.trouble.clone(),
            wants_checkpoint: self.keeper.is_some_and(|keeper| self.latest_checkpoint.elapsed() >= keeper.every()),
        }
    }

    /// The same for all, since all have the same news.
    fn judge(&mut self, news: &[News]) -> Next {
        self.all = (news.iter().map(|news| news.states).sum(), news.iter().map(|news| news.transitions).sum());
        news.iter().for_each(|news| self.apart.learn(&news.words));
        if news.iter().any(|news| news.trouble.is_some()) || !news.iter().any(|news| news.is_busy) {
            Next::End
        } else if news[0].wants_checkpoint {
            Next::Checkpoint
        } else {
            Next::GoOn
        }
    }

    /// Gives to those who have little what this member has too much of.
    fn share_out(&mut self, news: &[News]) {
        let pending: Vec<u64> = news.iter().map(|news| news.pending).collect();
        for (member, states) in share::gifts(&pending, self.flow.index()) {
            let ways = self.apart.give(states.min(self.apart.pending() / 2));
            if !ways.is_empty() {
                self.flow.give(member, ways);
                self.gave = true;
            }
        }
    }

    /// Stops working, and waits until nothing is on its way. All have counted, and know the same of words.
    fn settle(&mut self) -> Result<Total, Lost> {
        self.out.send_all(self.flow);
        // Claims that are on their way are counted by whoever keeps account of them: first they arrive, then all count.
        self.flow.meet(&Note::Quiet)?;
        self.hear();
        assert!(self.out.asked.is_empty(), "every claim was answered");
        let (states, bytes) = {
            let claims = self.flow.claims();
            (claims.states(), claims.bytes() as u64)
        };
        let (counts, words, trouble) = (self.apart.counts(), self.apart.news(), self.trouble.clone());
        let mut total = Total::default();
        for note in self.flow.meet(&Note::Settled { counts, states, bytes, words, trouble })? {
            let Note::Settled { counts, states, bytes, words, trouble } = note else { unreachable!("all settle") };
            self.apart.learn(&words);
            total.counts.add(counts);
            total.states += states;
            total.bytes += bytes;
            total.trouble = worse(total.trouble, trouble);
        }
        self.all = (total.states, total.counts.transitions);
        if self.apart.is_wrong() {
            total.trouble = Some(Trouble::WrongAssumption);
        }
        Ok(total)
    }

    /// Writes a checkpoint, as all do now.
    fn keep(&mut self) -> Result<Result<(), String>, Lost> {
        let Some(keeper) = self.keeper else { return Ok(Ok(())) };
        let claims = self.flow.claims();
        let written = self.apart.snapshot(&claims, |snapshot| keeper.write(self.number, snapshot));
        drop(claims);
        let all = first_failure(self.flow.meet(&Note::Kept(written))?);
        if all.is_ok() {
            self.kept = Some(self.number);
        }
        // If everybody's is there, the ones before are needed no more; if not, this one is of no use.
        keeper.keep_only(self.kept);
        self.number += 1;
        self.latest_checkpoint = Instant::now();
        Ok(all)
    }

    /// Member 0 says what has come of it. `None` if all begin again.
    fn conclude(&mut self, total: &Total) -> Result<Option<Ended>, Lost> {
        let mut trouble = total.trouble.clone();
        if matches!(trouble, Some(Trouble::Limit(_)))
            && self.unsaved.is_none()
            && let Err(why) = self.keep()?
        {
            self.unsaved = Some(why);
            trouble = Some(Trouble::Limit(Limit::Unsaved));
        }
        let mut report = None;
        let mut words = Words::new();
        if self.flow.index() == 0 {
            report = self.apart.conclude(&Total { trouble: trouble.clone(), ..total.clone() });
            words = self.apart.news();
        }
        let note = Note::Concluded { again: report.is_none(), words };
        let mut notes = self.flow.meet(&note)?.into_iter();
        let Some(Note::Concluded { again, words }) = notes.next() else { unreachable!("all conclude") };
        if again {
            self.apart.learn(&words);
            return Ok(None);
        }
        let limit = match trouble {
            Some(Trouble::Limit(limit)) => Some(limit),
            _ => None,
        };
        if limit.is_none()
            && let Some(keeper) = self.keeper
        {
            keeper.keep_only(None);
        }
        let unsaved = self.unsaved.take();
        Ok(Some(report.map_or(Ended::Elsewhere(limit), |report| Ended::Report(Box::new(report), unsaved))))
    }
}

/// What comes of a state that this member has come to.
fn claiming<'c>(flow: &'c Flow, out: &'c mut Outgoing) -> impl FnMut(u128, Claimed) -> Claim + 'c {
    let (mine, members) = (flow.index(), flow.members());
    let mut claims = flow.claims();
    move |fingerprint, claimed| {
        let keeper = Claims::keeper(fingerprint, members);
        if keeper == mine {
            return if claims.claim(fingerprint) { Claim::Granted(claimed) } else { Claim::Taken(claimed) };
        }
        if !out.recent.is_new(fingerprint) {
            // It was claimed for this member or for another, or will have been.
            return Claim::Taken(claimed);
        }
        let (fingerprints, waiting) = &mut out.waiting[keeper];
        fingerprints.push(fingerprint);
        waiting.push(claimed);
        Claim::Asked
    }
}

impl Outgoing {
    fn send_all(&mut self, flow: &mut Flow) {
        self.send(flow, 1);
    }

    fn send_full(&mut self, flow: &mut Flow) {
        self.send(flow, BATCH);
    }

    fn send(&mut self, flow: &mut Flow, least: usize) {
        for keeper in 0..self.waiting.len() {
            if self.waiting[keeper].0.len() >= least {
                let (fingerprints, claimed) = std::mem::take(&mut self.waiting[keeper]);
                self.asked.insert(self.batch, claimed);
                flow.claim(keeper, self.batch, fingerprints);
                self.batch += 1;
            }
        }
    }

    fn bytes(&self) -> usize {
        self.recent.bytes()
    }
}

/// What is to be heeded of two.
fn worse(one: Option<Trouble>, other: Option<Trouble>) -> Option<Trouble> {
    let rank = |trouble: &Option<Trouble>| match trouble {
        None => 0,
        Some(Trouble::Limit(_)) => 1,
        Some(Trouble::Found(_)) => 2,
        Some(Trouble::WrongAssumption) => 3,
    };
    if rank(&other) > rank(&one) { other } else { one }
}

fn first_failure(notes: Vec<Note>) -> Result<(), String> {
    notes.into_iter().try_for_each(|note| match note {
        Note::Kept(kept) => kept,
        _ => unreachable!("all keep"),
    })
}
