//! What code under test tells the lab. None of it is a step.

use std::fmt::Display;
use std::panic::Location;

use machine::CpuId;

use crate::agent::neutral_agent;
use crate::cells;
use crate::core::Stop;
use crate::cpu::LabCpu;
use crate::hash::Chain;
use crate::monitor::Event;
use crate::op::place_seed;
use crate::verdict::Violation;

impl LabCpu {
    /// Notes a text in the trace. Not a step.
    pub fn mark(&self, text: impl Display) {
        let core = self.core();
        if let Some(recorder) = &mut core.recorder {
            recorder.mark(self.cpu, text.to_string());
        }
    }

    /// Tells the monitors that something happened. Not a step.
    pub fn emit(&self, kind: u32, args: &[u64]) {
        let core = self.core();
        if !core.unwinding {
            core.event(&Event::Emitted { cpu: CpuId::new(self.cpu as u32), kind, args });
        }
        self.stop_if_stopped();
    }

    /// Writes down a result for [`crate::End::reported`]. Not a step.
    ///
    /// # Panics
    /// If `slot` is not below 16.
    #[track_caller]
    pub fn report(&self, slot: usize, value: u64) {
        assert!(slot < cells::MAX_REPORTS, "reports have slots below {}", cells::MAX_REPORTS);
        let core = self.core();
        core.set_reg(self.cpu, cells::REPORTS.plus(slot), value);
        core.keep_names(self.agent);
    }

    /// An operation of the test has returned: what this CPU does from here on depends only on memory, reports, this place in the code, and `digest`.
    ///
    /// Unlike [`machine::Cpu::round`] it forgets everything that the CPU read before.
    #[track_caller]
    pub fn op_boundary(&self, digest: u64) {
        let core = self.core();
        if core.booting || core.unwinding {
            return;
        }
        self.spin.take();
        let agent = neutral_agent(self.agent, core.neutral_cpu(self.cpu));
        let chain = Chain::new(0xb0 + agent as u64).with(place_seed(Location::caller())).with(digest);
        match digest {
            0 => core.forget(self.agent, chain),
            // Which of the interchangeable CPUs did something may be in the digest.
            _ => core.set_chain(self.agent, chain),
        }
    }

    /// Breaks a rule: the run ends here.
    pub fn violate(&self, rule: &str, sentence: impl Display) -> ! {
        assert!(!self.booting(), "{rule}: {sentence}");
        self.stop(Stop::Violation(Violation::new(rule, sentence.to_string())))
    }
}
