//! What one step does to the machine.

use machine::user::FaultCause;
use machine::{Access, CpuId, Frame, Invalidation, Retention, VirtAddr};

use crate::config::{Feature, Updates};
use crate::footprint::{self, ANY_BLOCK, Use};
use crate::memory::Place;
use crate::op::{Answer, Data, Deed, InterruptFlag, Op, Outcome, User, Vector};
use crate::paging::Paging;
use crate::state::{Broadcast, Machine, Stage, State, Update, Waiting, members};
use crate::translation::Age;
use crate::verdict::rule;
use crate::walk::Way;
use crate::watch::{Happening, Writer};

/// What becomes of the code that asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum After {
    /// It goes on.
    Answered(Answer),
    /// It asks for the same still.
    Pending,
    /// It was a handler, and is no more.
    Returned,
}

impl Machine<'_> {
    /// Code uses a word of a table.
    pub(crate) fn check_table(&self, state: &mut State<'_>, cpu: usize, place: Place, deed: &str) {
        let Some((block, _)) = self.entry_at(state, place.offset) else { return };
        state.uses(footprint::block(block), Use::Reads);
        if !state.allocated[block] && state.stage == Stage::Running {
            let frame = self.blocks[block].first;
            state.violation(rule::FREED_TABLE, format!("CPU{cpu} {deed} the table in frame {frame}, which is free"));
        }
    }

    /// A word is written, for all to see.
    pub(crate) fn commit(
        &self,
        state: &mut State<'_>,
        cpu: usize,
        place: Place,
        value: u64,
        (writer, how): (Writer, Use),
    ) {
        let value = if place.bytes == 4 { value & 0xffff_ffff } else { value };
        self.check_table(state, cpu, place, "writes to");
        if let (Some((_, index)), Some(paging)) = (self.entry_at(state, place.offset), self.config.paging) {
            for (number, page) in self.config.pages.iter().enumerate() {
                // The four PDPTEs of PAE may lie anywhere in their frame.
                let top = |level| if paging == Paging::Pae && level == 3 { index % 4 } else { index };
                if (1..=paging.top()).any(|level| paging.index(*page, level) == top(level)) {
                    state.uses(footprint::path(number), Use::Writes);
                }
            }
            if state.words.read(place) != value && state.stage == Stage::Running {
                self.note_last_chances(state, place.offset);
            }
        }
        state.uses_place(place, how);
        let old = state.words.write(place, value);
        state.step.overwrote.push((place, old));
        let (cpu, address) = (CpuId::new(cpu as u32), state.words.address(place.offset));
        self.tell(state, &Happening::Written { cpu, address, bytes: place.bytes, old, new: value, writer });
    }

    fn store(&self, state: &mut State<'_>, cpu: usize, store: Waiting) {
        if self.config.stores_wait() && state.stage == Stage::Running {
            state.cpus[cpu].buffer.push_back(store);
        } else {
            for place in store.places() {
                self.commit(state, cpu, place, store.value, (Writer::Store, Use::Writes));
            }
        }
    }

    /// The oldest store of a CPU leaves its buffer.
    pub(crate) fn drain(&self, state: &mut State<'_>, cpu: usize) {
        let Some(store) = state.cpus[cpu].buffer.pop_front() else { return };
        state.after(Some(store.since));
        state.uses(footprint::buffer(cpu), Use::Writes);
        if store.user_frame.is_some() {
            state.uses(ANY_BLOCK, Use::Reads);
        }
        state.cpus[cpu].drained = Some(state.now);
        for place in store.places() {
            if store.words == 1 || state.words.read(place) != 0 {
                self.commit(state, cpu, place, store.value, (Writer::Store, Use::Drains));
            } else {
                self.check_table(state, cpu, place, "writes to");
                state.uses_place(place, Use::Drains);
            }
        }
    }

    fn update(&self, state: &mut State<'_>, cpu: usize, place: Place, new: impl FnOnce(u64) -> Option<u64>) -> After {
        let old = state.words.read(place);
        match new(old) {
            Some(new) => self.commit(state, cpu, place, new, (Writer::Locked, Use::Writes)),
            None => {
                self.check_table(state, cpu, place, "reads");
                state.uses_place(place, Use::Reads);
            }
        }
        After::Answered(Answer::value(old))
    }

    fn load(&self, state: &mut State<'_>, cpu: usize, place: Place) -> After {
        self.check_table(state, cpu, place, "reads");
        state.uses_place(place, Use::Loads);
        After::Answered(Answer::value(state.view(cpu, place)))
    }

    /// Whether an operation can be made now, interrupts aside.
    pub(crate) fn is_possible(&self, state: &State<'_>, cpu: usize, op: &Op) -> bool {
        let processor = &state.cpus[cpu];
        if op.drains() && !processor.buffer.is_empty() {
            return false;
        }
        match *op {
            Op::AwaitUpdate(place, test) => test.passes(state.words.read(place)).is_some(),
            Op::AwaitValue(place, test) => test.passes(state.view(cpu, place)).is_some(),
            Op::BroadcastSync => !state.cpus.iter().any(|other| other.arrivals.iter().any(|sent| sent.from == cpu)),
            Op::Paravirtual(targets, _) => members(targets, state).all(|target| !state.cpus[target].user_stores_wait()),
            Op::GracePeriod => matches!(processor.waits_for, None | Some(0)),
            _ => true,
        }
    }

    /// The ways in which an operation that is possible may go on.
    pub(crate) fn ways_of(&self, state: &State<'_>, cpu: usize, op: &Op) -> Vec<Way> {
        match *op {
            Op::User(User { address, deed, .. }) => self.ways(state, cpu, address, deed),
            _ => Vec::new(),
        }
    }

    /// Makes an operation.
    pub(crate) fn perform(&self, state: &mut State<'_>, cpu: usize, op: &Op, way: usize) -> After {
        if op.drains() {
            let drained = state.cpus[cpu].drained;
            state.after(drained);
        }
        let done = After::Answered(Answer::value(0));
        let since = state.now;
        match *op {
            Op::Load(place) => self.load(state, cpu, place),
            Op::AwaitValue(place, _) => self.load(state, cpu, place),
            Op::Store(place, value) => {
                self.store(state, cpu, Waiting { place, value, words: 1, user_frame: None, since });
                done
            }
            Op::Zero(offset, words) => {
                let place = Place::whole(offset);
                self.store(state, cpu, Waiting { place, value: 0, words, user_frame: None, since });
                done
            }
            Op::Swap(place, new) => self.update(state, cpu, place, |_| Some(new)),
            Op::CompareExchange(place, old, new) => {
                self.update(state, cpu, place, |found| (found == old).then_some(new))
            }
            Op::Add(place, more) => self.update(state, cpu, place, |found| Some(found.wrapping_add(more))),
            Op::And(place, mask) => self.update(state, cpu, place, |found| Some(found & mask)),
            Op::Or(place, mask) => self.update(state, cpu, place, |found| Some(found | mask)),
            Op::AwaitUpdate(place, test) => self.update(state, cpu, place, |found| test.passes(found)),
            Op::Fence => done,
            Op::InterruptsOff => {
                let was = self.set_flag(state, cpu, InterruptFlag::Clear);
                After::Answered(Answer::value(u64::from(was == InterruptFlag::Set)))
            }
            Op::InterruptsBack(flag) => {
                if flag == InterruptFlag::Set && !state.cpus[cpu].interrupted.is_empty() {
                    state.misuse(format!("a handler of CPU{cpu} turns interrupts on"));
                }
                self.set_flag(state, cpu, flag);
                done
            }
            Op::Send(targets, vector) => {
                if targets >> state.cpus.len() != 0 {
                    state.misuse("an interrupt for a CPU that is not there");
                }
                // An NMI may be for its sender; no other interrupt is.
                let is_meant = |target: &usize| *target != cpu || vector == Vector::Nmi;
                for target in members(targets, state).filter(is_meant).collect::<Vec<_>>() {
                    state.uses(footprint::pending(target), Use::Writes);
                    state.cpus[target].pending[vector.number()].get_or_insert(since);
                }
                done
            }
            Op::Invalidate(what) => {
                let identifier = self.identifier(state, cpu);
                self.note_last_chances_of(state, cpu);
                state.uses(footprint::translations(cpu), Use::Writes);
                state.cpus[cpu].translations.invalidate(what, identifier);
                done
            }
            Op::Paravirtual(targets, what) => {
                for target in members(targets, state).collect::<Vec<_>>() {
                    state.uses(footprint::buffer(target), Use::Reads);
                    self.invalidate_from_outside(state, target, what);
                }
                done
            }
            Op::Broadcast(what) => {
                for target in 0..state.cpus.len() {
                    state.uses(footprint::arrivals(target), Use::Writes);
                    state.cpus[target].arrivals.push(Broadcast { from: cpu, what, since });
                }
                done
            }
            Op::BroadcastSync => {
                for target in 0..state.cpus.len() {
                    let arrived = state.cpus[target].arrived;
                    state.after(arrived);
                }
                done
            }
            Op::LoadRoot(cr3, cached) => {
                self.load_root(state, cpu, cr3, cached);
                done
            }
            Op::InvalidateContext(what) => {
                self.note_last_chances_of(state, cpu);
                state.uses(footprint::translations(cpu), Use::Writes);
                state.cpus[cpu].translations.invalidate_context(what);
                done
            }
            Op::EnterSection => {
                self.change_section(state, cpu, |processor| processor.sections += 1);
                done
            }
            Op::LeaveSection => {
                if state.cpus[cpu].sections == 0 {
                    state.misuse(format!("CPU{cpu} leaves a read-side section that it is not in"));
                } else {
                    self.change_section(state, cpu, |processor| processor.sections -= 1);
                }
                done
            }
            Op::Identify => After::Answered(Answer::value(cpu as u64)),
            Op::PreemptOff => {
                state.cpus[cpu].preempt_off = 1;
                done
            }
            Op::GracePeriod => self.grace_period(state, cpu),
            Op::User(user) => self.user(state, cpu, user, way),
            Op::Device { frame, write } => After::Answered(Answer::value(self.device(state, cpu, frame, write))),
            Op::Allocate(pool) => self.allocate(state, cpu, pool),
            Op::Free(first) => {
                self.free(state, cpu, first);
                done
            }
            Op::InterruptReturn => {
                if let Some(interrupted) = state.cpus[cpu].interrupted.pop() {
                    if state.cpus[cpu].sections != interrupted.sections {
                        state.misuse(format!(
                            "a handler of CPU{cpu} returns in other read-side sections than it began in"
                        ));
                    }
                    self.set_flag(state, cpu, interrupted.flag);
                    state.uses(footprint::pending(cpu), Use::Reads);
                }
                After::Returned
            }
        }
    }

    /// Makes an operation while the machine is set up.
    pub(crate) fn perform_at_once(&self, cpu: usize, op: Op) -> Answer {
        let mut state = self.state.borrow_mut();
        assert!(self.is_possible(&state, cpu, &op), "while setting up nobody can make {op:?} end");
        for _ in 0..16 {
            let after = self.perform(&mut state, cpu, &op, 0);
            state.step = Default::default();
            if let Some(stop) = &state.stop {
                panic!("while setting up: {stop:?}");
            }
            if let After::Answered(answer) = after {
                return answer;
            }
        }
        panic!("{op:?} does not end while setting up");
    }

    fn invalidate_from_outside(&self, state: &mut State<'_>, cpu: usize, what: Invalidation) {
        self.note_last_chances_of(state, cpu);
        state.uses(footprint::translations(cpu), Use::Writes);
        state.cpus[cpu].translations.invalidate_all_identifiers(what);
    }

    /// A broadcast takes place on a CPU.
    pub(crate) fn arrive(&self, state: &mut State<'_>, cpu: usize, index: usize) {
        let broadcast = state.cpus[cpu].arrivals.remove(index);
        state.after(Some(broadcast.since));
        // Stores that waited had to leave first (MODEL.md, P17), but it could have come before they were made.
        state.uses(footprint::buffer(cpu), Use::Reads);
        state.uses(footprint::arrivals(cpu), Use::Writes);
        state.cpus[cpu].arrived = Some(state.now);
        self.invalidate_from_outside(state, cpu, broadcast.what);
    }

    fn load_root(&self, state: &mut State<'_>, cpu: usize, cr3: u64, cached: Retention) {
        let Some(paging) = self.config.paging else { return state.misuse("CR3 of a machine without an MMU") };
        let root = paging.root(cr3);
        let Some(words) = self.words_of(state, root >> 12) else {
            return state.misuse(format!("CR3 names {root:#x}, where no table can be"));
        };
        self.note_last_chances_of(state, cpu);
        state.uses(footprint::translations(cpu), Use::Writes);
        state.cpus[cpu].cr3 = Some(cr3);
        if paging == Paging::Pae {
            for index in 0..4 {
                let place = Place::whole(words + (root & 0xfe0) as usize + 8 * index);
                state.uses_place(place, Use::Reads);
                state.cpus[cpu].pdptes[index] = state.words.read(place);
            }
        }
        if cached == Retention::Drop {
            let identifier = self.identifier(state, cpu);
            state.cpus[cpu].translations.invalidate(Invalidation::All, identifier);
        }
    }

    fn user(&self, state: &mut State<'_>, cpu: usize, user: User, way: usize) -> After {
        let User { address, deed, data } = user;
        let ways = self.ways(state, cpu, address, deed);
        state.uses(footprint::translations(cpu), Use::Reads);
        state.uses(ANY_BLOCK, Use::Reads);
        let page = VirtAddr::new(address).align_down(machine::addr::PAGE_SIZE);
        for (number, known) in self.config.pages.iter().enumerate() {
            if known.align_down(machine::addr::PAGE_SIZE) == page {
                state.uses(footprint::path(number), Use::Reads);
            }
        }
        let Some(way) = ways.into_iter().nth(way) else {
            state.misuse("a user access without a page table");
            return After::Pending;
        };
        let (id, at) = (CpuId::new(cpu as u32), VirtAddr::new(address));
        let access = if matches!(deed, Deed::Store | Deed::Push) { Access::Write } else { Access::Read };
        match way {
            Way::Reach { frame, age, leaves } => {
                self.leave(state, cpu, &leaves);
                self.tell(state, &Happening::Reached { cpu: id, address: at, access, frame: Frame::new(frame) });
                if self.is_free(state, frame) || age == Age::FreedSince {
                    let sentence = format!("{id} uses a translation of {at} to frame {frame:#x}, which was freed");
                    state.violation(rule::STALE_TLB, sentence);
                }
                match data {
                    Data::Word(word) if state.stop.is_none() => self.move_word(state, cpu, frame, (deed, word)),
                    _ => After::Answered(Answer::value(0)),
                }
            }
            Way::SetFlags { offset, flags } => {
                let place = Place::whole(offset);
                let read = state.words.read(place);
                if self.config.updates == Updates::Whole {
                    self.commit(state, cpu, place, read | flags, (Writer::Walker, Use::Writes));
                } else {
                    state.uses_place(place, Use::Reads);
                    state.cpus[cpu].update = Some(Update { offset, flags, read });
                }
                After::Pending
            }
            Way::FinishUpdate => {
                if let Some(Update { offset, flags, read }) = state.cpus[cpu].update.take() {
                    let place = Place::whole(offset);
                    let stored = self.config.updates == Updates::Stored;
                    let bits = if stored { read } else { state.words.read(place) };
                    self.commit(state, cpu, place, bits | flags, (Writer::Walker, Use::Writes));
                }
                After::Pending
            }
            Way::Fault(cause) => {
                let identifier = self.identifier(state, cpu);
                self.note_last_chances_of(state, cpu);
                state.uses(footprint::translations(cpu), Use::Writes);
                state.cpus[cpu].translations.fault(address, identifier);
                self.tell(state, &Happening::Faulted { cpu: id, address: at, access });
                let outcome = match cause {
                    FaultCause::NotPresent => Outcome::NotPresent,
                    FaultCause::Protection => Outcome::Protection,
                    FaultCause::ProtectionKey => Outcome::ProtectionKey,
                };
                After::Answered(Answer { value: 0, outcome })
            }
            Way::FreedTable(frame) => {
                self.read_freed(state, cpu, Frame::new(frame));
                After::Pending
            }
            Way::NoTable(frame) => {
                let sentence = format!("the walker of {id} takes frame {frame:#x} for a table");
                state.violation(rule::PHANTOM_FRAME, sentence);
                After::Pending
            }
        }
    }

    fn move_word(&self, state: &mut State<'_>, cpu: usize, frame: u64, (deed, word): (Deed, u64)) -> After {
        let Some(place) = self.content_of(frame) else {
            state.misuse(format!("a user access to frame {frame:#x}, which has no contents"));
            return After::Pending;
        };
        if deed != Deed::Store {
            return self.load(state, cpu, place);
        }
        let since = state.now;
        self.store(state, cpu, Waiting { place, value: word, words: 1, user_frame: Some(frame), since });
        After::Answered(Answer::value(0))
    }

    fn device(&self, state: &mut State<'_>, cpu: usize, frame: u64, write: Option<u64>) -> u64 {
        state.uses(ANY_BLOCK, Use::Reads);
        if self.is_free(state, frame) {
            state.violation(
                rule::STALE_TLB,
                format!("a device, told by CPU{cpu}, accesses frame {frame:#x}, which is free"),
            );
            return 0;
        }
        let Some(place) = self.content_of(frame) else { return 0 };
        state.uses_place(place, Use::Reads);
        let held = state.words.read(place);
        if let Some(word) = write {
            self.commit(state, cpu, place, word, (Writer::Device, Use::Writes));
        }
        held
    }

    fn allocate(&self, state: &mut State<'_>, cpu: usize, pool: u8) -> After {
        let mut found = None;
        for (number, block) in self.blocks.iter().enumerate().filter(|(_, block)| block.pool == pool) {
            state.uses(footprint::block(number), Use::Reads);
            if !state.allocated[number] {
                found = Some((number, block.first));
                break;
            }
        }
        let Some((number, frame)) = found else {
            if !self.blocks.iter().any(|block| block.pool == pool) {
                state.misuse(format!("there is no pool {pool} of frames"));
            }
            return After::Answered(Answer { value: 0, outcome: Outcome::NotPresent });
        };
        state.uses(footprint::block(number), Use::Writes);
        state.uses(ANY_BLOCK, Use::Writes);
        state.allocated[number] = true;
        self.tell(state, &Happening::Allocated { cpu: CpuId::new(cpu as u32), frame, pool });
        After::Answered(Answer::value(frame.number()))
    }

    fn free(&self, state: &mut State<'_>, cpu: usize, first: u64) {
        let whole = |number: &usize| self.blocks[*number].first.number() == first;
        let Some(number) = self.block_of(first).filter(whole) else {
            return state.misuse(format!("frame {first:#x} is not the first of a block"));
        };
        let block = &self.blocks[number];
        state.uses(footprint::block(number), Use::Writes);
        state.uses(ANY_BLOCK, Use::Writes);
        if !state.allocated[number] {
            let rule = if block.words.is_some() { rule::FREED_TABLE } else { rule::LOST_COUNT };
            return state.violation(rule, format!("CPU{cpu} frees frame {first:#x}, which is free"));
        }
        state.allocated[number] = false;
        for processor in &mut state.cpus {
            processor.translations.freed(first, 1 << block.order);
        }
        let late = |processor: &crate::state::Processor| {
            processor.buffer.iter().filter_map(|store| store.user_frame).any(|frame| block.holds(frame))
        };
        if let Some(late) = state.cpus.iter().position(late) {
            let sentence = format!("a store of CPU{late} to frame {first:#x} still waits when the frame is freed");
            state.violation(rule::STALE_TLB, sentence);
        }
        self.tell(state, &Happening::Freed { cpu: CpuId::new(cpu as u32), frame: block.first, pool: block.pool });
    }

    /// Whether the machine has what an identifier needs.
    pub(crate) fn has_identifiers(&self) -> bool {
        self.config.identifiers == Feature::Present
    }
}
