//! Whether code, and the machine it begins on, treat replicas alike (`replicas.rs`).

use std::panic::Location;

use crate::agent::cpu_of;
use crate::cells;
use crate::core::Core;
use crate::op::{Kind, Op};
use crate::replicas::Role;
use crate::verdict::MisuseKind;

impl Core<'_> {
    /// Whether an agent may ask for this without telling replicas apart. If not, the run ends.
    #[inline(always)]
    pub(crate) fn check_fairness(&mut self, agent: usize, op: &Op) {
        if self.replicas.is_some() {
            self.check_fairness_with(agent, op);
        }
    }

    #[inline(never)]
    fn check_fairness_with(&mut self, agent: usize, op: &Op) {
        let Some(replicas) = &self.replicas else { return };
        let replica = replicas.replica_of(cpu_of(agent));
        let (offset, bytes) = (op.address, usize::from(op.bytes));
        let was_told = replicas.told >> agent & 1 != 0;
        let is_fair = |value| was_told || replicas.is_fair(replica, offset, bytes, value);
        let is_fair_set = |set| was_told || replicas.is_fair_set(replica, set);
        let may = match op.kind {
            Kind::SendIpi | Kind::SendNmi => is_fair_set(op.a),
            Kind::TlbParavirtual => is_fair_set(op.c),
            Kind::Store | Kind::Swap | Kind::FetchAnd | Kind::FetchOr => is_fair(op.a),
            Kind::CompareExchange => is_fair(op.a) && is_fair(op.b),
            // A carry goes upwards.
            Kind::FetchAdd => replicas.named_in(offset, bytes).all(|(bit, ..)| bit < op.a.trailing_zeros()),
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
        location: &'static Location<'static>,
    ) {
        let Some(replicas) = &self.replicas else { return };
        let me = replicas.replica_of(cpu_of(agent));
        let units = &replicas.roles[offset / 4..(offset + bytes).div_ceil(4)];
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

    /// Before the first step: whether replicas begin alike.
    pub(crate) fn check_alike(&mut self) {
        let Some(replicas) = &self.replicas else { return };
        let mut differs = None;
        for replica in 0..replicas.cpus.len() {
            let model = replicas.model_of(replica);
            for (&cpu, &like) in replicas.cpus[replica].iter().zip(&replicas.cpus[model]) {
                let same = (0..cells::CPU_CELLS)
                    .all(|cell| self.get(cells::nth(cpu, cell), 8) == self.get(cells::nth(like, cell), 8))
                    && self.tlbs[cpu] == self.tlbs[like];
                if !same {
                    differs = Some(format!("CPU{cpu} and CPU{like}"));
                }
            }
            for (&(word, bytes), &(like, _)) in replicas.words[replica].iter().zip(&replicas.words[model]) {
                if self.get(word, bytes) != self.get(like, bytes) {
                    differs =
                        Some(format!("{} and {}", self.symbols.place(word, bytes), self.symbols.place(like, bytes)));
                }
            }
        }
        for mask in &replicas.masks {
            let offset = mask.unit as usize * 4;
            if !replicas.is_fair(None, offset, 4, self.get(offset, 4)) {
                differs = Some(format!("bits of {}", self.symbols.place(offset, 4)));
            }
        }
        if let Some(differs) = differs {
            let sentence = format!("interchangeable CPUs do not begin alike: {differs} differ");
            self.misuse(MisuseKind::Distinguished, sentence);
        }
    }
}
