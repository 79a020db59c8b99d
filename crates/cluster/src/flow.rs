//! What members send each other, as a timely dataflow.
//!
//! ```text
//! letters ──(to whom they are)──> keep: claims are answered ──(to whom they are)──> hear: the inbox ──> probe
//! ```
//!
//! Letters are of an epoch, a range of timely's times. A member closes an epoch when it will send no more in it; timely's frontier passes an epoch when all have closed it, and every
//! letter of it has been heard, and every answer to one. That is all that is asked of timely, and what makes ends and checkpoints consistent.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lab::{Claims, Fingerprints, Way};
use serde::{Deserialize, Serialize};
use timely::WorkerConfig;
use timely::communication::Allocator;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::InputHandle;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::{Input, Probe, probe};
use timely::worker::Worker;

use crate::link::Link;
use crate::note::Note;

/// From one member to another.
#[derive(Clone, Serialize, Deserialize)]
struct Letter {
    from: u32,
    to: u32,
    content: Content,
}

#[derive(Clone, Serialize, Deserialize)]
enum Content {
    /// States are claimed.
    Claims { batch: u64, fingerprints: Vec<u128> },
    /// Whether nobody had claimed them.
    Answers { batch: u64, granted: Vec<bool> },
    /// Work is given away.
    Ways(Vec<Way>),
    /// For all: what the member has to say of this epoch.
    Note { epoch: u64, note: Note },
}

/// What a member has heard, but for notes.
pub(crate) enum Heard {
    Answers { batch: u64, granted: Vec<bool> },
    Ways(Vec<Way>),
}

/// What the operators of this member write to.
#[derive(Default)]
struct Inbox {
    heard: VecDeque<Heard>,
    /// The notes of each epoch, by member.
    notes: BTreeMap<u64, BTreeMap<u32, Note>>,
}

/// A process was lost, the one of this number: there is nothing more to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost(pub(crate) usize);

/// A member's end of the dataflow.
pub(crate) struct Flow {
    worker: Worker,
    link: Arc<Link>,
    input: InputHandle<u64, CapacityContainerBuilder<Vec<Letter>>>,
    probe: probe::Handle<u64>,
    inbox: Rc<RefCell<Inbox>>,
    claims: Rc<RefCell<Claims>>,
    /// Something was sent that is still in timely's buffers.
    is_dirty: bool,
}

/// An epoch is so many of timely's times: its buffers are emptied when a time is over.
const TIMES: u64 = 1 << 32;

impl Flow {
    pub(crate) fn new(allocator: Allocator, link: Arc<Link>) -> Self {
        // Without a clock it would never sleep.
        let mut worker = Worker::new(WorkerConfig::default(), allocator, Some(Instant::now()));
        let inbox = Rc::new(RefCell::new(Inbox::default()));
        let claims = Rc::new(RefCell::new(Claims::new(Fingerprints::Wide)));
        let (heard, kept) = (Rc::clone(&inbox), Rc::clone(&claims));
        let (input, probe) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, letters) = scope.new_input::<Vec<Letter>>();
            let answered =
                letters.unary::<CapacityContainerBuilder<Vec<Letter>>, _, _, _>(to_receiver(), "keep", |_, _| {
                    move |input, output| {
                        input.for_each_stamp(|capability, data| {
                            let mut session = output.session(&capability);
                            for letter in data.flat_map(|letters| letters.drain(..)) {
                                session.give(answer(letter, &mut kept.borrow_mut()));
                            }
                        });
                    }
                });
            let done =
                answered.unary::<CapacityContainerBuilder<Vec<Letter>>, _, _, _>(to_receiver(), "hear", |_, _| {
                    move |input, _| {
                        input.for_each_stamp(|_, data| {
                            data.flat_map(|letters| letters.drain(..))
                                .for_each(|letter| heard.borrow_mut().take(letter));
                        });
                    }
                });
            (input, done.probe().0)
        });
        Self { worker, link, input, probe, inbox, claims, is_dirty: false }
    }

    /// This member's number.
    pub(crate) fn index(&self) -> usize {
        self.worker.index()
    }

    /// How many members there are.
    pub(crate) fn members(&self) -> usize {
        self.worker.peers()
    }

    /// The claims that this member answers for.
    pub(crate) fn claims(&self) -> RefMut<'_, Claims> {
        self.claims.borrow_mut()
    }

    fn send(&mut self, to: usize, content: Content) {
        self.input.send(Letter { from: self.index() as u32, to: to as u32, content });
        self.is_dirty = true;
    }

    /// Claims states of which another member keeps account.
    pub(crate) fn claim(&mut self, keeper: usize, batch: u64, fingerprints: Vec<u128>) {
        self.send(keeper, Content::Claims { batch, fingerprints });
    }

    /// Gives work away.
    pub(crate) fn give(&mut self, to: usize, ways: Vec<Way>) {
        self.send(to, Content::Ways(ways));
    }

    /// Tells everybody, itself included, and closes this epoch, whose number it returns.
    pub(crate) fn close(&mut self, note: &Note) -> u64 {
        let epoch = *self.input.time() / TIMES;
        for member in 0..self.members() {
            self.send(member, Content::Note { epoch, note: note.clone() });
        }
        self.input.advance_to((epoch + 1) * TIMES);
        self.is_dirty = false;
        epoch
    }

    /// What all have said of an epoch, in the order of their numbers, if it has passed. Once.
    pub(crate) fn passed(&mut self, epoch: u64) -> Option<Vec<Note>> {
        if self.probe.less_than(&((epoch + 1) * TIMES)) {
            return None;
        }
        let notes = self.inbox.borrow_mut().notes.remove(&epoch)?;
        debug_assert_eq!(notes.len(), self.members(), "everybody says something of each epoch");
        Some(notes.into_values().collect())
    }

    /// Waits until all have closed this epoch: what they say of it.
    pub(crate) fn meet(&mut self, note: &Note) -> Result<Vec<Note>, Lost> {
        let epoch = self.close(note);
        loop {
            if let Some(notes) = self.passed(epoch) {
                return Ok(notes);
            }
            self.step(PATIENCE)?;
        }
    }

    /// Lets timely work, and waits at most so long for something to do.
    pub(crate) fn step(&mut self, patience: Duration) -> Result<(), Lost> {
        if std::mem::take(&mut self.is_dirty) {
            self.input.advance_to(*self.input.time() + 1);
        }
        self.worker.step_or_park(Some(patience));
        self.link.lost().map_or(Ok(()), |process| Err(Lost(process)))
    }

    /// What was heard next.
    pub(crate) fn heard(&mut self) -> Option<Heard> {
        self.inbox.borrow_mut().heard.pop_front()
    }

    /// All have come to their end: connections may be closed when all know. Whoever knows it first may be gone before others know.
    pub(crate) fn leave(&mut self) -> Result<(), Lost> {
        self.link.leave();
        let epoch = self.close(&Note::Leaving);
        let mut ended: Option<Instant> = None;
        while self.passed(epoch).is_none() {
            if let Err(lost) = self.step(PATIENCE)
                && ended.get_or_insert_with(Instant::now).elapsed() > GRACE
            {
                return Err(lost);
            }
        }
        Ok(())
    }
}

/// How long what a process has sent may take to arrive when it has gone.
const GRACE: Duration = Duration::from_secs(2);

/// Between two looks whether somebody was lost.
pub(crate) const PATIENCE: Duration = Duration::from_millis(10);

fn to_receiver() -> Exchange<Letter, impl FnMut(&Letter) -> u64> {
    Exchange::new(|letter: &Letter| u64::from(letter.to))
}

/// Claims are answered; what is no claim goes on as it is.
fn answer(letter: Letter, claims: &mut Claims) -> Letter {
    let Content::Claims { batch, fingerprints } = letter.content else { return letter };
    let granted = fingerprints.into_iter().map(|fingerprint| claims.claim(fingerprint)).collect();
    Letter { from: letter.to, to: letter.from, content: Content::Answers { batch, granted } }
}

impl Inbox {
    fn take(&mut self, letter: Letter) {
        match letter.content {
            Content::Answers { batch, granted } => self.heard.push_back(Heard::Answers { batch, granted }),
            Content::Ways(ways) => self.heard.push_back(Heard::Ways(ways)),
            Content::Note { epoch, note } => {
                self.notes.entry(epoch).or_default().insert(letter.from, note);
            }
            Content::Claims { .. } => unreachable!("claims were answered on their way"),
        }
    }
}
