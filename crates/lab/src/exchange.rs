//! Replicas: sets of CPUs that run the same code, so that states which differ only in which of them does what are one.
//!
//! With five readers, up to 120 states are one. A test says which CPUs correspond to each other, which words are theirs alone, and which bits of shared words stand for
//! them ([`Replica`], [`crate::Lab::interchangeable`]). Everything that belongs to a replica (registers, store buffers, TLBs, what its code was told, its words, its bits) goes into a sum of
//! its own, in which the replica has no name: it is hashed as the first of its group would be. The state's fingerprint takes the sums of a group in no order. There is nothing to sort and no permutation to try.
//!
//! # Why nothing is lost
//!
//! Exchanging two replicas turns runs into runs, if nobody treats them differently. Then of states that differ by an exchange it is enough to go on from one. That nobody does is checked:
//!
//! * words of a replica are accessed by its CPUs only;
//! * operations name bits or CPUs of all other replicas of a group, or of none (`1 << me`, `everybody`, `everybody else`);
//! * an agent that was told *which* of the others (a mask with some of their bits, but not all) may name them. While it remembers, states are only the same if they are so without any
//!   exchange, and so they are while a grace period or a broadcast names members;
//! * programs of a group that were told the same ask for the same (`known`, the audit for hidden state);
//! * random runs are done again with replicas exchanged, and must lead through the same states; in these, what a wait waits for is asked with replicas exchanged, too. That finds identities in words that nobody declared.
//!
//! A word that is not a replica's own counts as accessed by many as soon as one member accesses it (`quiet.rs`), since another run has another member do so.

use machine::{CpuId, Word};

use crate::agent::{cpu_of, neutral_agent};
use crate::buffer::Waiting;
use crate::cells;
use crate::choice::Choice;
use crate::core::Core;
use crate::hash;
use crate::op::{Kind, Op};
use crate::verdict::MisuseKind;

/// CPUs that others can take the place of, and what is theirs. The k-th CPU, word and bit of each replica of a group correspond.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replica {
    cpus: Vec<CpuId>,
    /// Address and bytes.
    words: Vec<(usize, usize)>,
    /// Address and bytes of the word, and which bit.
    bits: Vec<(usize, usize, u32)>,
}

impl Replica {
    /// Of these CPUs.
    pub fn new(cpus: impl IntoIterator<Item = CpuId>) -> Self {
        Self { cpus: cpus.into_iter().collect(), words: Vec::new(), bits: Vec::new() }
    }

    /// A word that only these CPUs access.
    #[must_use]
    pub fn word<W: Word>(mut self, word: &W) -> Self {
        self.words.push((word.address(), W::BYTES));
        self
    }

    /// A bit that stands for this replica in a word that all access.
    #[must_use]
    pub fn bit<W: Word>(mut self, word: &W, bit: u32) -> Self {
        self.bits.push((word.address(), W::BYTES, bit));
        self
    }
}

/// What 32 bits of memory have to do with replicas.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Shared,
    /// The replica's own; hashed as this unit.
    Own {
        replica: u16,
        neutral: u32,
    },
    /// Some bits stand for replicas.
    Bits {
        mask: u16,
    },
}

/// 32 bits of memory of which some stand for replicas.
struct Mask {
    unit: u32,
    /// Those bits.
    named: u32,
    /// Which bit stands for which replica, as its how manieth.
    bits: Vec<(u32, u16, u16)>,
}

struct Group {
    /// Numbers of its replicas.
    replicas: std::ops::Range<usize>,
}

/// No replica.
const NOBODY: u16 = u16::MAX;

/// Whom quiet words know as an accessor of a word that any member may access.
const ANY_MEMBER: usize = 250;

/// Which states are the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sameness {
    /// Those in which everything is the same.
    Exact,
    /// Those that differ by an exchange of replicas, too.
    UpToExchange,
}

/// The replicas of a machine, and their part of the fingerprint.
pub(crate) struct Exchange {
    groups: Vec<Group>,
    /// CPUs of each replica.
    cpus: Vec<Vec<usize>>,
    words: Vec<Vec<(usize, usize)>>,
    roles: Vec<Role>,
    masks: Vec<Mask>,
    /// Of each CPU, its replica and whose registers its are hashed as.
    members: [(u16, u8); cells::MAX_CPUS],
    /// The members among all CPUs, a bit each.
    all_members: u64,
    sums: Vec<u128>,
    /// Agents that were told which replica did something, a bit each.
    told: u64,
    /// Sums and `told` as they were before each step.
    saved: Vec<u128>,
    pub(crate) sameness: Sameness,
}

impl Exchange {
    pub(crate) fn new(units: usize) -> Self {
        let mut members = [(NOBODY, 0); cells::MAX_CPUS];
        for (cpu, (_, neutral)) in members.iter_mut().enumerate() {
            *neutral = cpu as u8;
        }
        Self {
            groups: Vec::new(),
            cpus: Vec::new(),
            words: Vec::new(),
            roles: vec![Role::Shared; units],
            masks: Vec::new(),
            members,
            all_members: 0,
            sums: Vec::new(),
            told: 0,
            saved: Vec::new(),
            sameness: Sameness::Exact,
        }
    }

    /// Adds a group. `locate` finds a word in the arena.
    ///
    /// # Panics
    /// If the replicas do not correspond, or something belongs to two.
    pub(crate) fn add(&mut self, replicas: &[Replica], cpus: usize, locate: impl Fn(usize, usize) -> usize) {
        let first = self.cpus.len();
        let Some(model) = replicas.first() else { return };
        self.groups.push(Group { replicas: first..first + replicas.len() });
        for (number, replica) in (first..).zip(replicas) {
            assert!(
                replica.cpus.len() == model.cpus.len()
                    && replica.words.iter().map(|word| word.1).eq(model.words.iter().map(|word| word.1))
                    && replica.bits.iter().map(|bit| bit.0).eq(model.bits.iter().map(|bit| bit.0)),
                "replicas have as many CPUs, words and bits as each other, the words of the same widths, the bits in the same words"
            );
            for (cpu, like) in replica.cpus.iter().zip(&model.cpus) {
                assert!(cpu.index() < cpus, "there is no {cpu}");
                assert!(self.members[cpu.index()].0 == NOBODY, "{cpu} belongs to two replicas");
                self.members[cpu.index()] = (number as u16, like.index() as u8);
                self.all_members |= 1 << cpu.index();
                for cell in 0..cells::CPU_CELLS {
                    let (mine, neutral) = (cells::nth(cpu.index(), cell), cells::nth(like.index(), cell));
                    self.own(number, mine, neutral, 8);
                }
            }
            let mut words = Vec::new();
            for (&(address, bytes), &(like, _)) in replica.words.iter().zip(&model.words) {
                let offset = locate(address, bytes);
                words.push((offset, bytes));
                self.own(number, offset, locate(like, bytes), bytes);
            }
            for (position, &(address, bytes, bit)) in replica.bits.iter().enumerate() {
                assert!((bit as usize) < 8 * bytes, "the word has no bit {bit}");
                let unit = (locate(address, bytes) / 4) as u32 + bit / 32;
                self.name(unit, bit % 32, number, position);
            }
            self.cpus.push(replica.cpus.iter().map(|cpu| cpu.index()).collect());
            self.words.push(words);
            self.sums.push(0);
        }
    }

    fn own(&mut self, replica: usize, offset: usize, neutral: usize, bytes: usize) {
        for unit in 0..bytes / 4 {
            let role = &mut self.roles[offset / 4 + unit];
            assert!(*role == Role::Shared, "a word belongs to two replicas");
            *role = Role::Own { replica: replica as u16, neutral: (neutral / 4 + unit) as u32 };
        }
    }

    fn name(&mut self, unit: u32, bit: u32, replica: usize, position: usize) {
        let role = &mut self.roles[unit as usize];
        if *role == Role::Shared {
            *role = Role::Bits { mask: self.masks.len() as u16 };
            self.masks.push(Mask { unit, named: 0, bits: Vec::new() });
        }
        let Role::Bits { mask } = *role else { panic!("a word is a replica's own and has bits that stand for some") };
        let mask = &mut self.masks[usize::from(mask)];
        assert!(mask.named >> bit & 1 == 0, "a bit stands for two replicas");
        mask.named |= 1 << bit;
        mask.bits.push((bit, replica as u16, position as u16));
    }

    /// Whose registers those of a CPU are hashed as.
    #[inline(always)]
    fn neutral_cpu(&self, cpu: usize) -> usize {
        usize::from(self.members[cpu].1)
    }

    fn replica_of(&self, cpu: usize) -> Option<usize> {
        let replica = self.members[cpu].0;
        (replica != NOBODY).then_some(usize::from(replica))
    }

    fn group_of(&self, replica: usize) -> &Group {
        self.groups.iter().find(|group| group.replicas.contains(&replica)).expect("every replica is in a group")
    }

    /// The first of its group, in whose place a replica is hashed.
    fn model_of(&self, replica: usize) -> usize {
        self.group_of(replica).replicas.start
    }

    fn begin_again(&mut self) {
        self.sums.fill(0);
        self.told = 0;
        self.saved.clear();
    }

    /// Bytes that are kept for undoing.
    pub(crate) fn log_bytes(&self) -> usize {
        self.saved.len() * size_of::<u128>()
    }

    fn save(&mut self) {
        self.saved.extend_from_slice(&self.sums);
        self.saved.push(u128::from(self.told));
    }

    fn restore(&mut self) {
        self.told = self.saved.pop().expect("saved before the step") as u64;
        let first = self.saved.len() - self.sums.len();
        self.sums.copy_from_slice(&self.saved[first..]);
        self.saved.truncate(first);
    }

    /// The sums of all replicas as one, in which they have names or not.
    fn term(&self, sameness: Sameness) -> u128 {
        let mut all = 0u128;
        for (number, group) in self.groups.iter().enumerate() {
            for replica in group.replicas.clone() {
                let name = match sameness {
                    Sameness::Exact => 1 << 8 | replica as u64,
                    Sameness::UpToExchange => 2 << 8 | number as u64,
                };
                all = all.wrapping_add(hash::stir(self.sums[replica].wrapping_add(hash::spread(name))));
            }
        }
        all
    }

    /// The bits that stand for replicas in so many bytes: the place in the value, the replica, its how manieth.
    fn named_in(&self, offset: usize, bytes: usize) -> impl Iterator<Item = (u32, usize, u16)> {
        (0..bytes.div_ceil(4)).flat_map(move |at| {
            let bits: &[_] = match self.roles[offset / 4 + at] {
                Role::Bits { mask } => &self.masks[usize::from(mask)].bits,
                _ => &[],
            };
            bits.iter().map(move |&(bit, replica, position)| (bit + 32 * at as u32, usize::from(replica), position))
        })
    }

    /// Whether a value treats the replicas alike, or all of a group but this one.
    fn is_fair(&self, replica: Option<usize>, offset: usize, bytes: usize, value: u64) -> bool {
        let mut seen: Vec<(usize, u16, u64)> = Vec::new();
        self.named_in(offset, bytes).all(|(bit, named, position)| {
            if Some(named) == replica {
                return true;
            }
            let is_set = value >> bit & 1;
            // The k-th bits of a group, wherever they lie in the word.
            let key = (self.model_of(named), position);
            match seen.iter().find(|it| (it.0, it.1) == key) {
                Some(&(.., before)) => before == is_set,
                None => {
                    seen.push((key.0, key.1, is_set));
                    true
                }
            }
        })
    }

    /// A value with the bits of two replicas of a group exchanged.
    fn swapped(&self, (one, other): (usize, usize), offset: usize, bytes: usize, value: u64) -> u64 {
        let mut swapped = value;
        let bit_of = |replica, position| {
            self.named_in(offset, bytes).find(|it| it.1 == replica && it.2 == position).map(|it| it.0)
        };
        for (bit, replica, position) in self.named_in(offset, bytes) {
            let partner = match replica {
                _ if replica == one => other,
                _ if replica == other => one,
                _ => continue,
            };
            let Some(place) = bit_of(partner, position) else { continue };
            swapped = swapped & !(1 << place) | (value >> bit & 1) << place;
        }
        swapped
    }

    /// A set of CPUs with those of two replicas exchanged.
    pub(crate) fn swapped_cpus(&self, (one, other): (usize, usize), set: u64) -> u64 {
        self.cpus[one].iter().zip(&self.cpus[other]).fold(set, |set, (&a, &b)| {
            let (has_a, has_b) = (set >> a & 1, set >> b & 1);
            set & !(1 << a | 1 << b) | has_a << b | has_b << a
        })
    }

    /// Whether a set of CPUs has all of the others of a group in the same place, or none.
    fn is_fair_set(&self, replica: Option<usize>, set: u64) -> bool {
        self.groups.iter().all(|group| {
            let others: Vec<_> = group.replicas.clone().filter(|it| Some(*it) != replica).collect();
            let Some(&model) = others.first() else { return true };
            others.iter().all(|&other| {
                self.cpus[model].iter().zip(&self.cpus[other]).all(|(&a, &b)| set >> a & 1 == set >> b & 1)
            })
        })
    }

    /// The pairs whose exchange generates all exchanges; without those that move `fixed`.
    pub(crate) fn pairs(&self, fixed: Option<usize>) -> Vec<(usize, usize)> {
        let mut pairs = Vec::new();
        for group in &self.groups {
            let movable: Vec<_> = group.replicas.clone().filter(|it| Some(*it) != fixed).collect();
            pairs.extend(movable.windows(2).map(|pair| (pair[0], pair[1])));
        }
        pairs
    }

    /// The choice after an exchange.
    pub(crate) fn swapped_choice(&self, pair: (usize, usize), choice: Choice) -> Choice {
        let cpu = self.swapped_cpus(pair, 1 << choice.cpu()).trailing_zeros() as usize;
        Choice::new(choice.turn(), cpu, choice.argument())
    }
}

impl Core<'_> {
    /// The fingerprint of the state, replicas taken as the search takes them.
    #[cold]
    #[inline(never)]
    pub(crate) fn fingerprint_with(&self, exchange: &Exchange) -> u128 {
        let sameness = if self.names_replicas() { Sameness::Exact } else { exchange.sameness };
        self.shared_term().wrapping_add(exchange.term(sameness))
    }

    /// Whether somebody remembers which of the replicas did something.
    pub(crate) fn names_replicas(&self) -> bool {
        let Some(exchange) = &self.exchange else { return false };
        let names_members = |set: u64| set & exchange.all_members != 0;
        exchange.told != 0
            || (0..self.cpus()).any(|cpu| {
                names_members(self.reg(cpu, cells::RCU_WAITS))
                    || (0..self.reg(cpu, cells::ARRIVALS) as usize)
                        .any(|index| names_members(1 << self.arrival(cpu, index)[0]))
            })
    }

    /// Exchanges what changed of 32 bits of memory.
    #[cold]
    #[inline(never)]
    pub(crate) fn rehash_with(&mut self, unit: u32, old: u32, new: u32) {
        let exchange = self.exchange.as_mut().expect("called with replicas");
        match exchange.roles[unit as usize] {
            Role::Shared => self.replace_shared_term(hash::unit(unit, old), hash::unit(unit, new)),
            Role::Own { replica, neutral } => {
                let sum = &mut exchange.sums[usize::from(replica)];
                *sum = sum.wrapping_sub(hash::unit(neutral, old)).wrapping_add(hash::unit(neutral, new));
            }
            Role::Bits { mask } => {
                let mask = &exchange.masks[usize::from(mask)];
                for &(bit, replica, position) in &mask.bits {
                    if (old ^ new) >> bit & 1 != 0 {
                        // No unit of memory has such a number.
                        let term = hash::spread(1 << 63 | u64::from(position));
                        let sum = &mut exchange.sums[usize::from(replica)];
                        *sum = if new >> bit & 1 != 0 { sum.wrapping_add(term) } else { sum.wrapping_sub(term) };
                    }
                }
                let shared = !mask.named;
                self.replace_shared_term(hash::unit(unit, old & shared), hash::unit(unit, new & shared));
            }
        }
    }

    /// Replaces a term of the fingerprint that is a CPU's.
    #[cold]
    #[inline(never)]
    pub(crate) fn replace_term_with(&mut self, cpu: usize, old: u128, new: u128) {
        let exchange = self.exchange.as_mut().expect("called with replicas");
        match exchange.replica_of(cpu) {
            Some(replica) => {
                let sum = &mut exchange.sums[replica];
                *sum = sum.wrapping_sub(old).wrapping_add(new);
            }
            None => self.replace_shared_term(old, new),
        }
    }

    /// Whose registers those of a CPU are hashed as: its own, or those of the first replica.
    #[inline(always)]
    pub(crate) fn neutral_cpu(&self, cpu: usize) -> usize {
        self.exchange.as_ref().map_or(cpu, |exchange| exchange.neutral_cpu(cpu))
    }

    /// Before a step.
    #[inline(always)]
    pub(crate) fn save_exchange(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            exchange.save();
        }
    }

    #[inline(always)]
    pub(crate) fn restore_exchange(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            exchange.restore();
        }
    }

    /// Back to the initial state.
    pub(crate) fn reset_exchange(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            exchange.begin_again();
        }
    }

    pub(crate) fn take_for_same(&mut self, sameness: Sameness) {
        if let Some(exchange) = &mut self.exchange {
            exchange.sameness = sameness;
        }
    }

    /// An agent was told what a word holds.
    #[inline(always)]
    pub(crate) fn tell_value(&mut self, agent: usize, offset: usize, bytes: usize, value: u64) {
        let value = if self.exchange.is_some() { self.as_told_with(agent, offset, bytes, value) } else { value };
        self.tell_agent(agent, value);
    }

    /// What an agent is told, as the first replica would be.
    #[cold]
    #[inline(never)]
    fn as_told_with(&mut self, agent: usize, offset: usize, bytes: usize, value: u64) -> u64 {
        let exchange = self.exchange.as_mut().expect("called with replicas");
        let replica = exchange.replica_of(cpu_of(agent));
        if !exchange.is_fair(replica, offset, bytes, value) {
            exchange.told |= 1 << agent;
        }
        match replica {
            Some(replica) => exchange.swapped((exchange.model_of(replica), replica), offset, bytes, value),
            None => value,
        }
    }

    /// An agent forgets what it was told.
    pub(crate) fn forget_names(&mut self, agent: usize) {
        if let Some(exchange) = &mut self.exchange {
            exchange.told &= !(1 << agent);
        }
    }

    /// An operation as the first replica would ask for it: address and operands.
    pub(crate) fn neutral_op(&self, cpu: usize, op: &Op) -> (usize, [u64; 3]) {
        let as_it_is = (op.address, [op.a, op.b, op.c]);
        let Some(exchange) = &self.exchange else { return as_it_is };
        let Some(replica) = exchange.replica_of(cpu) else { return as_it_is };
        let pair = (exchange.model_of(replica), replica);
        match op.kind {
            Kind::SendIpi | Kind::SendNmi => (op.address, [exchange.swapped_cpus(pair, op.a), op.b, op.c]),
            Kind::TlbParavirtual => (op.address, [op.a, op.b, exchange.swapped_cpus(pair, op.c)]),
            _ if op.kind.accesses_word().is_none() => as_it_is,
            _ => {
                let address = match exchange.roles[op.address / 4] {
                    Role::Own { neutral, .. } => 4 * neutral as usize,
                    _ => op.address,
                };
                let swapped = |value| exchange.swapped(pair, op.address, usize::from(op.bytes), value);
                (address, [swapped(op.a), swapped(op.b), op.c])
            }
        }
    }

    /// A store that waits in the buffer of a CPU, as it would in the first replica's.
    pub(crate) fn neutral_store(&self, cpu: usize, store: Waiting) -> Waiting {
        let Some(exchange) = &self.exchange else { return store };
        let Some(replica) = exchange.replica_of(cpu) else { return store };
        let place = |offset: usize| match exchange.roles[offset / 4] {
            Role::Own { neutral, .. } => 4 * neutral as usize + offset % 4,
            _ => offset,
        };
        match store {
            Waiting::Store { offset, bytes, value } => {
                let value = exchange.swapped((exchange.model_of(replica), replica), offset, bytes, value);
                Waiting::Store { offset: place(offset), bytes, value }
            }
            Waiting::Zero { offset, bytes } => Waiting::Zero { offset: place(offset), bytes },
        }
    }

    /// Whether an agent may ask for this without telling replicas apart. If not, the run ends.
    #[inline(always)]
    pub(crate) fn check_fairness(&mut self, agent: usize, op: &Op) {
        if self.exchange.is_some() {
            self.check_fairness_with(agent, op);
        }
    }

    #[cold]
    #[inline(never)]
    fn check_fairness_with(&mut self, agent: usize, op: &Op) {
        let Some(exchange) = &self.exchange else { return };
        let replica = exchange.replica_of(cpu_of(agent));
        let (offset, bytes) = (op.address, usize::from(op.bytes));
        let was_told = exchange.told >> agent & 1 != 0;
        let is_fair = |value| was_told || exchange.is_fair(replica, offset, bytes, value);
        let is_fair_set = |set| was_told || exchange.is_fair_set(replica, set);
        let may = match op.kind {
            Kind::SendIpi | Kind::SendNmi => is_fair_set(op.a),
            Kind::TlbParavirtual => is_fair_set(op.c),
            Kind::Store | Kind::Swap | Kind::FetchAnd | Kind::FetchOr => is_fair(op.a),
            Kind::CompareExchange => is_fair(op.a) && is_fair(op.b),
            // A carry goes upwards.
            Kind::FetchAdd => exchange.named_in(offset, bytes).all(|(bit, ..)| bit < op.a.trailing_zeros()),
            _ => true,
        };
        if !may {
            let sentence = format!(
                "CPU{} names some interchangeable CPUs and not others, without having been told of them ({})",
                cpu_of(agent),
                op.location
            );
            return self.misuse(MisuseKind::Distinguished, sentence);
        }
        let words = match op.kind {
            Kind::Zero => op.a as usize * 8,
            _ if op.kind.accesses_word().is_some() => bytes,
            _ => return,
        };
        self.check_owner(agent, offset, words, op.location);
    }

    /// Whether the words are no other replica's.
    #[inline(always)]
    pub(crate) fn check_owner(
        &mut self,
        agent: usize,
        offset: usize,
        bytes: usize,
        location: &'static std::panic::Location<'static>,
    ) {
        let Some(exchange) = &self.exchange else { return };
        let me = exchange.replica_of(cpu_of(agent));
        let units = &exchange.roles[offset / 4..(offset + bytes).div_ceil(4)];
        let is_strange = |role: &Role| match *role {
            Role::Own { replica, .. } => me != Some(usize::from(replica)),
            Role::Bits { .. } => bytes > 8,
            Role::Shared => false,
        };
        if units.iter().any(is_strange) {
            let sentence = format!(
                "CPU{} accesses {}, which was declared as that of an interchangeable CPU ({location})",
                cpu_of(agent),
                self.symbols.place(offset, bytes.min(8))
            );
            self.misuse(MisuseKind::Distinguished, sentence);
        }
    }

    // --- what is known of quiet words ---

    /// Where what is known of a word is kept: where the first replica's is.
    #[inline(always)]
    fn quiet_place(&self, offset: usize) -> usize {
        match &self.exchange {
            None => offset,
            Some(exchange) => match exchange.roles[offset / 4] {
                Role::Own { neutral, .. } => 4 * neutral as usize + offset % 4,
                _ => offset,
            },
        }
    }

    #[inline(always)]
    pub(crate) fn note_accessed(&mut self, agent: usize, offset: usize, bytes: usize) {
        let place = self.quiet_place(offset);
        match &self.exchange {
            None => self.quiet.accessed(agent, offset, bytes),
            Some(exchange) => {
                let is_own = matches!(exchange.roles[offset / 4], Role::Own { .. });
                let is_member = exchange.replica_of(cpu_of(agent)).is_some();
                self.quiet.accessed(neutral_agent(agent, exchange.neutral_cpu(cpu_of(agent))), place, bytes);
                if is_member && !is_own {
                    self.quiet.accessed(ANY_MEMBER, place, bytes);
                }
            }
        }
    }

    #[inline(always)]
    pub(crate) fn note_written(&mut self, offset: usize, bytes: usize) {
        let place = self.quiet_place(offset);
        self.quiet.written(place, bytes);
    }

    #[inline(always)]
    pub(crate) fn assume_constant(&mut self, offset: usize, bytes: usize) -> bool {
        let place = self.quiet_place(offset);
        self.quiet.assume_constant(place, bytes)
    }

    #[inline(always)]
    pub(crate) fn assume_private(&mut self, agent: usize, offset: usize, bytes: usize) -> bool {
        let place = self.quiet_place(offset);
        let cpu = self.neutral_cpu(cpu_of(agent));
        self.quiet.assume_private(neutral_agent(agent, cpu), place, bytes)
    }

    // --- audits ---

    /// Before the first step: whether replicas begin alike.
    pub(crate) fn check_alike(&mut self) {
        let Some(exchange) = &self.exchange else { return };
        let mut differs = None;
        for replica in 0..exchange.cpus.len() {
            let model = exchange.model_of(replica);
            for (&cpu, &like) in exchange.cpus[replica].iter().zip(&exchange.cpus[model]) {
                let same = (0..cells::CPU_CELLS)
                    .all(|cell| self.get(cells::nth(cpu, cell), 8) == self.get(cells::nth(like, cell), 8))
                    && self.tlbs[cpu] == self.tlbs[like];
                if !same {
                    differs = Some(format!("CPU{cpu} and CPU{like}"));
                }
            }
            for (&(word, bytes), &(like, _)) in exchange.words[replica].iter().zip(&exchange.words[model]) {
                if self.get(word, bytes) != self.get(like, bytes) {
                    differs =
                        Some(format!("{} and {}", self.symbols.place(word, bytes), self.symbols.place(like, bytes)));
                }
            }
        }
        for mask in &exchange.masks {
            let offset = mask.unit as usize * 4;
            if !exchange.is_fair(None, offset, 4, self.get(offset, 4)) {
                differs = Some(format!("bits of {}", self.symbols.place(offset, 4)));
            }
        }
        if let Some(differs) = differs {
            let sentence = format!("interchangeable CPUs do not begin alike: {differs} differ");
            self.misuse(MisuseKind::Distinguished, sentence);
        }
    }

    /// Whether what CPUs wait for stays the same when others are exchanged.
    pub(crate) fn check_waits(&mut self) {
        for cpu in 0..self.cpus() {
            let Some(agent) = self.active(cpu) else { continue };
            let op = *self.op(agent);
            let Some(exchange) = &self.exchange else { return };
            if op.test.is_none() || exchange.told >> agent & 1 != 0 {
                continue;
            }
            let bytes = usize::from(op.bytes);
            let value = self.forwarded(cpu, op.address, bytes);
            let is_unfair = exchange.pairs(exchange.replica_of(cpu)).into_iter().any(|pair| {
                let swap = |value| exchange.swapped(pair, op.address, bytes, value);
                op.test(swap(value)) != op.test(value).map(swap)
            });
            if is_unfair {
                let sentence =
                    format!("CPU{cpu} waits for some interchangeable CPUs and not for others ({})", op.location);
                return self.misuse(MisuseKind::Distinguished, sentence);
            }
        }
    }
}
