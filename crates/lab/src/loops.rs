//! Loops whose earlier rounds are forgotten.
//!
//! An agent is known by the chain of what it was told. At the head of a retry loop ([`machine::Cpu::checkpoint`]) the chain goes back to what it was
//! when the loop was entered, plus the digest: not further, because the loop's callers may still hold what they had read before.

use crate::cells;
use crate::core::Core;
use crate::hash::Chain;

impl Core<'_> {
    /// An agent is at the head of a loop at `place`, in the stack frame at `frame`.
    pub(crate) fn loop_head(&mut self, agent: usize, place: u64, frame: u64, digest: u64) {
        let cpu = agent / 2;
        let cell = |index: usize, field: usize| cells::LOOP[agent % 2].plus(4 * index + field).of(cpu);
        let mut count = self.reg(cpu, cells::LOOPS[agent % 2]) as usize;
        // Loops in frames below this one (at lower addresses) have been left.
        while count > 0 && self.get(cell(count - 1, 1), 8) < frame {
            count -= 1;
        }
        let known =
            (0..count).rfind(|&index| (self.get(cell(index, 0), 8), self.get(cell(index, 1), 8)) == (place, frame));
        let entered = match known {
            Some(index) => {
                count = index + 1;
                Chain::from_parts(self.get(cell(index, 2), 8), self.get(cell(index, 3), 8))
            }
            None => {
                let entered = self.agents[agent].state.chain;
                // Beyond the last loop that can be remembered nothing is forgotten.
                if count < cells::MAX_LOOPS {
                    let (low, high) = entered.parts();
                    for (field, value) in [place, frame, low, high].into_iter().enumerate() {
                        self.set_silently(cell(count, field), 8, value);
                    }
                    count += 1;
                }
                entered
            }
        };
        self.set_silently(cells::LOOPS[agent % 2].of(cpu), 8, count as u64);
        self.set_chain(agent, entered.with(place).with(digest));
    }
}
