//! Which CPUs, words and bits belong to which replica (`exchange.rs`), and the sums that are theirs.

use std::ops::Range;

use machine::{CpuId, Word};

use crate::cells;
use crate::choice::Choice;
use crate::exchange::Sameness;
use crate::hash;

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
pub(crate) enum Role {
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
pub(crate) struct Mask {
    pub(crate) unit: u32,
    /// Those bits.
    pub(crate) named: u32,
    /// Which bit stands for which replica, as its how manieth.
    pub(crate) bits: Vec<(u32, u16, u16)>,
}

/// No replica.
const NOBODY: u16 = u16::MAX;

/// The replicas of a machine, and their part of the fingerprint.
pub(crate) struct Replicas {
    /// The replicas of each group.
    groups: Vec<Range<usize>>,
    /// Of each replica, the first of its group.
    models: Vec<usize>,
    /// CPUs of each replica.
    pub(crate) cpus: Vec<Vec<usize>>,
    pub(crate) words: Vec<Vec<(usize, usize)>>,
    pub(crate) roles: Vec<Role>,
    pub(crate) masks: Vec<Mask>,
    /// Of each CPU, its replica and whose registers its are hashed as.
    members: [(u16, u8); cells::MAX_CPUS],
    /// The members among all CPUs, a bit each.
    pub(crate) all_members: u64,
    pub(crate) sums: Vec<u128>,
    /// Agents that were told which replica did something, a bit each.
    pub(crate) told: u64,
    /// Sums and `told` as they were before each step.
    saved: Vec<u128>,
    pub(crate) sameness: Sameness,
}

impl Replicas {
    pub(crate) fn new(units: usize) -> Self {
        let mut members = [(NOBODY, 0); cells::MAX_CPUS];
        for (cpu, (_, neutral)) in members.iter_mut().enumerate() {
            *neutral = cpu as u8;
        }
        Self {
            groups: Vec::new(),
            models: Vec::new(),
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
        self.groups.push(first..first + replicas.len());
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
            self.models.push(first);
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
    pub(crate) fn neutral_cpu(&self, cpu: usize) -> usize {
        usize::from(self.members[cpu].1)
    }

    pub(crate) fn replica_of(&self, cpu: usize) -> Option<usize> {
        let replica = self.members[cpu].0;
        (replica != NOBODY).then_some(usize::from(replica))
    }

    /// The first of its group, in whose place a replica is hashed.
    #[inline(always)]
    pub(crate) fn model_of(&self, replica: usize) -> usize {
        self.models[replica]
    }

    /// Where the word at this offset would be, if it were the first replica's.
    #[inline(always)]
    pub(crate) fn neutral_place(&self, offset: usize) -> usize {
        match self.roles[offset / 4] {
            Role::Own { neutral, .. } => 4 * neutral as usize + offset % 4,
            Role::Shared | Role::Bits { .. } => offset,
        }
    }

    /// Whether some bits of a word stand for replicas.
    #[inline(always)]
    fn has_names(&self, offset: usize, bytes: usize) -> bool {
        (offset / 4..(offset + bytes).div_ceil(4)).any(|unit| matches!(self.roles[unit], Role::Bits { .. }))
    }

    pub(crate) fn begin_again(&mut self) {
        self.sums.fill(0);
        self.told = 0;
        self.saved.clear();
    }

    /// Bytes that are kept for undoing.
    pub(crate) fn log_bytes(&self) -> usize {
        self.saved.len() * size_of::<u128>()
    }

    pub(crate) fn save(&mut self) {
        self.saved.extend_from_slice(&self.sums);
        self.saved.push(u128::from(self.told));
    }

    pub(crate) fn restore(&mut self) {
        self.told = self.saved.pop().expect("saved before the step") as u64;
        let first = self.saved.len() - self.sums.len();
        self.sums.copy_from_slice(&self.saved[first..]);
        self.saved.truncate(first);
    }

    /// The sums of all replicas as one, in which they have names or not.
    pub(crate) fn term(&self, sameness: Sameness) -> u128 {
        let mut all = 0u128;
        for (number, group) in self.groups.iter().enumerate() {
            for replica in group.clone() {
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
    pub(crate) fn named_in(&self, offset: usize, bytes: usize) -> impl Iterator<Item = (u32, usize, u16)> {
        (0..bytes.div_ceil(4)).flat_map(move |at| {
            let bits: &[_] = match self.roles[offset / 4 + at] {
                Role::Bits { mask } => &self.masks[usize::from(mask)].bits,
                _ => &[],
            };
            bits.iter().map(move |&(bit, replica, position)| (bit + 32 * at as u32, usize::from(replica), position))
        })
    }

    /// Whether a value treats the replicas alike, or all of a group but this one.
    pub(crate) fn is_fair(&self, replica: Option<usize>, offset: usize, bytes: usize, value: u64) -> bool {
        if !self.has_names(offset, bytes) {
            return true;
        }
        let others = || self.named_in(offset, bytes).filter(|&(_, named, _)| Some(named) != replica);
        others().all(|(bit, named, position)| {
            // The k-th bits of a group, wherever they lie in the word, are all as the first of them.
            let alike = others().find(|it| self.model_of(it.1) == self.model_of(named) && it.2 == position);
            alike.is_none_or(|(first, ..)| value >> first & 1 == value >> bit & 1)
        })
    }

    /// A value with the bits of two replicas of a group exchanged.
    pub(crate) fn swapped(&self, (one, other): (usize, usize), offset: usize, bytes: usize, value: u64) -> u64 {
        if one == other || !self.has_names(offset, bytes) {
            return value;
        }
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
    pub(crate) fn is_fair_set(&self, replica: Option<usize>, set: u64) -> bool {
        self.groups.iter().all(|group| {
            let others: Vec<_> = group.clone().filter(|it| Some(*it) != replica).collect();
            let Some(&model) = others.first() else { return true };
            others.iter().all(|&other| {
                self.cpus[model].iter().zip(&self.cpus[other]).all(|(&a, &b)| set >> a & 1 == set >> b & 1)
            })
        })
    }

    /// The pairs whose exchange generates all exchanges.
    pub(crate) fn pairs(&self) -> Vec<(usize, usize)> {
        let next = |group: &Range<usize>| group.clone().zip(group.clone().skip(1));
        self.groups.iter().flat_map(next).collect()
    }

    /// The choice after an exchange.
    pub(crate) fn swapped_choice(&self, pair: (usize, usize), choice: Choice) -> Choice {
        let cpu = self.swapped_cpus(pair, 1 << choice.cpu()).trailing_zeros() as usize;
        Choice::new(choice.turn(), cpu, choice.argument())
    }
}
