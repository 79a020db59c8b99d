//! What a scenario needs of whatever checks it: a machine to build, and CPUs that say what they do.
//!
//! Everything in a scenario is generic over these two traits, so that one source runs in every engine, and in each as if it had been written
//! for that engine alone. The memory is a [`lab::Arena`] for all of them: a place to put words, and no more.

use std::fmt::Display;

use lab::{FrameKind, Lab, LabCpu, Monitor, Replica};
use machine::user::FaultCause;
use machine::{
    Access, CpuId, CpuSet, Frame, Pcid, PhysAddr, ProcessContexts, ProtectionKeys, UserAccess, Vector, VirtAddr, Word,
    Word64,
};

/// A simulated CPU, as the code of a scenario sees it. [`LabCpu`] says what each operation does.
pub(crate) trait CheckedCpu: UserAccess + ProcessContexts + ProtectionKeys {
    /// Notes a text in the trace. Not a step.
    fn mark(&self, text: impl Display);
    /// Tells the monitors that something happened. Not a step.
    fn emit(&self, kind: u32, args: &[u64]);
    /// Writes down a result. Not a step.
    fn report(&self, slot: usize, value: u64);
    /// An operation is over: what this CPU does from here on depends only on memory, reports, this place in the code, and `digest`.
    #[track_caller]
    fn op_boundary(&self, digest: u64);
    /// Breaks a rule: the run ends here.
    fn violate(&self, rule: &str, sentence: impl Display) -> !;
    /// Whether this CPU takes interrupts now. Not a step.
    fn interrupts_on(&self) -> bool;
    /// Whether the NMI handler of this CPU runs. Not a step.
    fn in_nmi(&self) -> bool;
    /// What CR3 holds, if it was loaded. Not a step.
    fn root(&self) -> Option<(PhysAddr, Pcid)>;
    /// Sends an NMI to each of these CPUs.
    #[track_caller]
    fn send_nmi(&self, targets: CpuSet);
    /// Fetches an instruction, as user code would, and returns the page's word.
    #[track_caller]
    fn user_fetch(&self, address: VirtAddr) -> Result<u64, FaultCause>;
    /// Stores to a shadow stack, as user code would. What is stored does not matter.
    #[track_caller]
    fn user_push(&self, address: VirtAddr) -> Result<(), FaultCause>;
    /// Makes a device access a frame by its number, and returns what the frame held.
    #[track_caller]
    fn device_access(&self, frame: Frame, access: Access, word: u64) -> u64;
    /// Takes the lowest free block of frames of a pool.
    #[track_caller]
    fn alloc_frame(&self, kind: FrameKind) -> Option<Frame>;
    /// Gives a block of frames back.
    #[track_caller]
    fn free_frame(&self, first: Frame);
}

/// A machine that is being built, with memory that lives for `'a`. [`Lab`] says what each function does.
pub(crate) trait Checker<'a> {
    /// Its CPUs.
    type Cpu: CheckedCpu;

    /// Adds a CPU that runs `program` once.
    fn cpu(&mut self, name: String, program: impl Fn(&Self::Cpu) + Sync + 'a);
    /// Nobody can tell these CPUs apart. A checker may make use of it.
    fn interchangeable(&mut self, _: &[usize]) {}
    /// What every CPU does when it takes an interrupt.
    fn interrupt_handler(&mut self, handler: impl Fn(&Self::Cpu, Vector) + Sync + 'a);
    /// What every CPU does when it takes an NMI.
    fn nmi_handler(&mut self, handler: impl Fn(&Self::Cpu) + Sync + 'a);
    /// Something outside sends an NMI to `cpu`.
    fn nmi(&mut self, cpu: CpuId);
    /// Runs code alone, as `cpu`: what it leaves is the initial state.
    fn boot(&mut self, cpu: CpuId, code: impl FnOnce(&Self::Cpu));
    /// Gives the frames from `first` on a word each.
    fn contents(&mut self, first: Frame, words: &'a [Word64]);
    /// Adds a monitor that remembers `ghost_words` words.
    fn monitor(&mut self, ghost_words: usize, monitor: impl Monitor + 'a);
    /// Gives all words in `bytes` bytes from `address` on a name, and their values words.
    fn name_range(&mut self, address: usize, bytes: usize, name: String, format: Option<lab::Format<'a>>);
    /// Gives a word a name.
    fn name<W: Word>(&mut self, word: &W, name: impl Into<String>) {
        self.name_range(word.address(), W::BYTES, name.into(), None);
    }
}

impl CheckedCpu for LabCpu {
    fn mark(&self, text: impl Display) {
        self.mark(text);
    }
    fn emit(&self, kind: u32, args: &[u64]) {
        self.emit(kind, args);
    }
    fn report(&self, slot: usize, value: u64) {
        self.report(slot, value);
    }
    #[track_caller]
    fn op_boundary(&self, digest: u64) {
        self.op_boundary(digest);
    }
    fn violate(&self, rule: &str, sentence: impl Display) -> ! {
        self.violate(rule, sentence)
    }
    fn interrupts_on(&self) -> bool {
        self.interrupts_on()
    }
    fn in_nmi(&self) -> bool {
        self.in_nmi()
    }
    fn root(&self) -> Option<(PhysAddr, Pcid)> {
        self.root()
    }
    #[track_caller]
    fn send_nmi(&self, targets: CpuSet) {
        self.send_nmi(targets);
    }
    #[track_caller]
    fn user_fetch(&self, address: VirtAddr) -> Result<u64, FaultCause> {
        self.user_fetch(address)
    }
    #[track_caller]
    fn user_push(&self, address: VirtAddr) -> Result<(), FaultCause> {
        self.user_push(address)
    }
    #[track_caller]
    fn device_access(&self, frame: Frame, access: Access, word: u64) -> u64 {
        self.device_access(frame, access, word)
    }
    #[track_caller]
    fn alloc_frame(&self, kind: FrameKind) -> Option<Frame> {
        self.alloc_frame(kind)
    }
    #[track_caller]
    fn free_frame(&self, first: Frame) {
        self.free_frame(first);
    }
}

impl<'a> Checker<'a> for Lab<'a> {
    type Cpu = LabCpu;

    fn cpu(&mut self, name: String, program: impl Fn(&LabCpu) + Sync + 'a) {
        self.cpu(name, program);
    }
    fn interchangeable(&mut self, cpus: &[usize]) {
        let replicas: Vec<Replica> = cpus.iter().map(|cpu| Replica::new([CpuId::new(*cpu as u32)])).collect();
        self.interchangeable(&replicas);
    }
    fn interrupt_handler(&mut self, handler: impl Fn(&LabCpu, Vector) + Sync + 'a) {
        self.interrupt_handler(handler);
    }
    fn nmi_handler(&mut self, handler: impl Fn(&LabCpu) + Sync + 'a) {
        self.nmi_handler(handler);
    }
    fn nmi(&mut self, cpu: CpuId) {
        self.nmi(cpu);
    }
    fn boot(&mut self, cpu: CpuId, code: impl FnOnce(&LabCpu)) {
        self.boot(cpu, code);
    }
    fn contents(&mut self, first: Frame, words: &'a [Word64]) {
        self.contents(first, words);
    }
    fn monitor(&mut self, ghost_words: usize, monitor: impl Monitor + 'a) {
        self.monitor(ghost_words, monitor);
    }
    fn name_range(&mut self, address: usize, bytes: usize, name: String, format: Option<lab::Format<'a>>) {
        self.name_range(address, bytes, name, format);
    }
}
