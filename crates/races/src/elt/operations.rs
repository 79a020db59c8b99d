//! The operations that cells may hold.

use machine::{ContextInvalidation, CpuId, CpuSet, Frame, Invalidation, Pcid, Retention, VirtAddr};

use super::entry::{Flags, Part};
use super::layout::Slot;
use super::setup::{NONE, Setup};
use crate::arguments::{Arguments, find};
use crate::error::{Error, Problem};
use crate::protection_keys::WritePkru;
use crate::race::Race;
use crate::source::Spanned;
use crate::syntax::{Operation, Value, Variant};

/// A number that a file writes down, or what a register holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Number {
    Fixed(u64),
    Register(usize),
}

/// A word of the kernel's own memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct WordPlace {
    pub(super) word: usize,
    pub(super) index: Number,
}

/// How much of an entry is accessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Half {
    Both,
    Low,
    High,
}

/// What an operation does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Action {
    /// `r = load(x)`: user code loads.
    UserLoad {
        page: VirtAddr,
    },
    /// `store(x, 1)`: user code stores.
    UserStore {
        page: VirtAddr,
        value: u64,
    },
    /// `r = fetch(x)`: user code runs what is there.
    UserFetch {
        page: VirtAddr,
    },
    /// `r = push(x)`: user code stores there as to its shadow stack.
    UserPush {
        page: VirtAddr,
    },
    /// `r = load(w)`.
    Load {
        place: WordPlace,
    },
    /// `store(w, 1)`.
    Store {
        place: WordPlace,
        value: Number,
    },
    /// `r = xchg(w, 1)`.
    Exchange {
        place: WordPlace,
        value: u64,
    },
    /// `add(w, 1)`: a load and a store.
    Add {
        place: WordPlace,
        value: u64,
    },
    /// `await(w, 1)`: waits until the word holds this.
    Await {
        place: WordPlace,
        value: u64,
    },
    /// `r = load_pte(x)`.
    LoadEntry {
        slot: Slot,
        part: Part,
        half: Half,
    },
    /// `r = walk(x)`: reads the entries on the way to the page, as a lockless walker of the kernel does: the frame that is mapped, 0 if none.
    Walk {
        page: usize,
    },
    /// `store_pte(x, b)`.
    StoreEntry {
        slot: Slot,
        entry: u64,
        half: Half,
    },
    /// `r = xchg_pte(x, b)`.
    ExchangeEntry {
        slot: Slot,
        entry: u64,
        part: Part,
    },
    /// `mfence()`.
    Fence,
    /// `invlpg(x)`.
    Invalidate(Invalidation),
    /// `flush()`: `mov cr3` with what it holds.
    Reload,
    /// `load_cr3(q)`.
    LoadRoot {
        space: usize,
        pcid: Pcid,
        cached: Retention,
    },
    /// `invpcid(x, pcid=1)`. Without PCIDs it does what `mov cr3` does.
    InvalidateContext(ContextInvalidation),
    /// `invlpgb(x)`.
    Broadcast(Invalidation),
    /// `tlbsync()`.
    BroadcastSync,
    /// `hypercall_flush(x, cpus=1)`.
    Paravirtual {
        targets: CpuSet,
        what: Invalidation,
    },
    /// `ipi(1)`.
    Ipi {
        targets: CpuSet,
    },
    /// `nmi(1)`.
    Nmi {
        targets: CpuSet,
    },
    /// `irq_off()`, `irq_on()`.
    InterruptsOff,
    InterruptsOn,
    /// `wrpkru(key=1, rights=none)`.
    WritePkru(WritePkru),
    /// `preempt_off()`, `preempt_on()`.
    PreemptOff,
    PreemptOn,
    /// `free(a)`, `free(x, level=1)`: gives a frame back, of data or of a table.
    Free {
        frame: Frame,
    },
}

/// One operation of one CPU.
pub(super) struct Step {
    pub(super) action: Action,
    /// The register that gets its result.
    pub(super) into: Option<usize>,
    /// As the file writes it.
    pub(super) text: String,
}

/// The names of the registers of one CPU.
#[derive(Clone, Default)]
pub(super) struct Registers(Vec<String>);

impl Registers {
    /// What the lab can report of a CPU.
    pub(super) const MOST: usize = 16;

    pub(super) fn names(&self) -> &[String] {
        &self.0
    }

    fn add(&mut self, race: &Race, register: &Spanned<String>) -> Result<usize, Error> {
        if let Some(known) = self.0.iter().position(|known| *known == register.node) {
            return Ok(known);
        }
        if self.0.len() == Self::MOST {
            let why = format!("a CPU has at most {} registers, those of handlers included", Self::MOST);
            let problem = Problem::Impossible { why, right: "use one again".to_owned() };
            return Err(Error::new(&race.source, register.span, problem));
        }
        self.0.push(register.node.clone());
        Ok(self.0.len() - 1)
    }
}

/// What a CPU does, or a handler.
pub(super) struct Column {
    pub(super) steps: Vec<Step>,
}

impl Column {
    pub(super) fn new(
        race: &Race,
        setup: &Setup,
        operations: &[Operation],
        variant: Option<&Variant>,
        registers: &mut Registers,
    ) -> Result<Self, Error> {
        let mut steps = Vec::new();
        for operation in operations {
            let mut arguments = Arguments::new(race, &operation.word, &operation.arguments);
            let takes_part = arguments.takes_part(variant)?;
            let mut cell = Cell { race, setup, arguments, registers };
            let action = cell.action(&operation.word)?;
            cell.arguments.finish()?;
            let into = match &operation.result {
                Some(register) if action.has_result() => Some(registers.add(race, register)?),
                Some(register) => {
                    let why = format!("`{}` has no result", operation.word);
                    let problem = Problem::Impossible { why, right: "leave the register out".to_owned() };
                    return Err(Error::new(&race.source, register.span, problem));
                }
                None => None,
            };
            if takes_part {
                steps.push(Step { action, into, text: operation.without_variants().to_string() });
            }
        }
        Ok(Self { steps })
    }
}

impl Action {
    /// Whether there is something for a register.
    const fn has_result(self) -> bool {
        matches!(
            self,
            Self::UserLoad { .. }
                | Self::UserStore { .. }
                | Self::UserFetch { .. }
                | Self::UserPush { .. }
                | Self::Load { .. }
                | Self::Exchange { .. }
                | Self::LoadEntry { .. }
                | Self::Walk { .. }
                | Self::ExchangeEntry { .. }
        )
    }
}

/// Reads the arguments of one operation.
struct Cell<'c, 'r> {
    race: &'r Race,
    setup: &'r Setup,
    arguments: Arguments<'r>,
    registers: &'c Registers,
}

/// A page, or a word.
enum Place {
    Page(usize),
    Word(WordPlace),
}

/// All of them.
const OPERATIONS: [&str; 28] = [
    "add",
    "await",
    "clear_pte",
    "fetch",
    "flush",
    "free",
    "hypercall_flush",
    "invlpg",
    "invlpgb",
    "invpcid",
    "ipi",
    "irq_off",
    "irq_on",
    "load",
    "load_cr3",
    "load_pte",
    "mfence",
    "nmi",
    "preempt_off",
    "preempt_on",
    "push",
    "store",
    "store_pte",
    "tlbsync",
    "walk",
    "wrpkru",
    "xchg",
    "xchg_pte",
];

impl Cell<'_, '_> {
    fn action(&mut self, word: &Spanned<String>) -> Result<Action, Error> {
        Ok(match word.node.as_str() {
            "load" => match self.place("load(x)")? {
                Place::Page(page) => Action::UserLoad { page: self.setup.pages[page].address },
                Place::Word(place) => Action::Load { place },
            },
            "store" => match self.place("store(x, 1)")? {
                Place::Page(page) => {
                    Action::UserStore { page: self.setup.pages[page].address, value: self.fixed("store(x, 1)")? }
                }
                Place::Word(place) => Action::Store { place, value: self.number("store(w, 1)")? },
            },
            "fetch" => Action::UserFetch { page: self.page_address("fetch(x)")? },
            "push" => Action::UserPush { page: self.page_address("push(x)")? },
            "xchg" => Action::Exchange { place: self.word("xchg(w, 1)")?, value: self.fixed("xchg(w, 1)")? },
            "add" => Action::Add { place: self.word("add(w, 1)")?, value: self.fixed("add(w, 1)")? },
            "await" => Action::Await { place: self.word("await(w, 1)")?, value: self.fixed("await(w, 1)")? },
            "load_pte" => {
                let (part, half) = (self.part(), self.half()?);
                Action::LoadEntry { slot: self.slot("load_pte(x)")?.1, part, half }
            }
            "walk" => Action::Walk { page: self.page("walk(x)")? },
            "store_pte" => {
                let half = self.half()?;
                let (slot, entry) = self.slot_and_entry("store_pte(x, b)")?;
                Action::StoreEntry { slot, entry, half }
            }
            "clear_pte" => {
                let half = self.half()?;
                Action::StoreEntry { slot: self.slot("clear_pte(x)")?.1, entry: 0, half }
            }
            "xchg_pte" => {
                let part = self.part();
                let (slot, entry) = self.slot_and_entry("xchg_pte(x, b)")?;
                Action::ExchangeEntry { slot, entry, part }
            }
            "mfence" => Action::Fence,
            "invlpg" => Action::Invalidate(Invalidation::page(self.page_address("invlpg(x)")?)),
            "flush" => Action::Reload,
            "load_cr3" => self.load_root()?,
            "invpcid" => Action::InvalidateContext(self.context()?),
            "invlpgb" => Action::Broadcast(self.scope()?),
            "tlbsync" => Action::BroadcastSync,
            "hypercall_flush" => {
                let targets = self.cpus("cpus")?;
                Action::Paravirtual { targets, what: self.scope()? }
            }
            "ipi" => Action::Ipi { targets: self.targets("ipi(1)")? },
            "nmi" => Action::Nmi { targets: self.targets("nmi(1)")? },
            "irq_off" => Action::InterruptsOff,
            "irq_on" => Action::InterruptsOn,
            "wrpkru" => Action::WritePkru(WritePkru::read(self.race, word, &mut self.arguments)?),
            "preempt_off" => Action::PreemptOff,
            "preempt_on" => Action::PreemptOn,
            "free" => {
                if self.arguments.has("level") {
                    Action::Free { frame: self.slot("free(x, level=1)")?.1.table }
                } else {
                    let value = self.arguments.positional("frame", "free(a)")?;
                    Action::Free { frame: self.setup.target(self.race, value)? }
                }
            }
            other => {
                let known = OPERATIONS.map(str::to_owned).to_vec();
                let problem = Problem::Unknown { what: "operation", found: other.to_owned(), known };
                return Err(Error::new(&self.race.source, word.span, problem));
            }
        })
    }

    /// A page or a word, whichever has the name.
    fn place(&mut self, right: &str) -> Result<Place, Error> {
        let value = self.arguments.positional("page or word", right)?;
        let name = value.node.to_string();
        if let Some(page) = self.setup.pages.iter().position(|page| page.name == name) {
            return Ok(Place::Page(page));
        }
        if let Some(word) = self.setup.words.iter().position(|word| word.name == name) {
            return Ok(Place::Word(WordPlace { word, index: self.index(word)? }));
        }
        let known = self.setup.names();
        Err(Error::new(&self.race.source, value.span, Problem::Unknown { what: "page or word", found: name, known }))
    }

    fn word(&mut self, right: &str) -> Result<WordPlace, Error> {
        let value = self.arguments.positional("word", right)?;
        let names = self.setup.words.iter().map(|word| &word.name);
        let word = find(self.race, "word", &value.node.to_string(), value.span, names)?;
        Ok(WordPlace { word, index: self.index(word)? })
    }

    /// `at=1` or `at=r0`: which element.
    fn index(&mut self, word: usize) -> Result<Number, Error> {
        let most = self.setup.words[word].initial.len() as u64 - 1;
        match self.arguments.one("at")? {
            None => Ok(Number::Fixed(0)),
            Some(value) => self.number_in(value, most),
        }
    }

    fn number_in(&self, value: &Spanned<Value>, most: u64) -> Result<Number, Error> {
        match &value.node {
            Value::Number(_) => self.arguments.in_range(value, most).map(Number::Fixed),
            name => {
                let names = self.registers.names();
                find(self.race, "register", &name.to_string(), value.span, names.iter()).map(Number::Register)
            }
        }
    }

    fn number(&mut self, right: &str) -> Result<Number, Error> {
        let value = self.arguments.positional("value", right)?;
        self.number_in(value, u64::MAX - 1)
    }

    fn fixed(&mut self, right: &str) -> Result<u64, Error> {
        let value = self.arguments.positional("value", right)?;
        self.arguments.in_range(value, u64::MAX - 1)
    }

    fn page(&mut self, right: &str) -> Result<usize, Error> {
        let value = self.arguments.positional("page", right)?;
        let names = self.setup.pages.iter().map(|page| &page.name);
        find(self.race, "page", &value.node.to_string(), value.span, names)
    }

    fn page_address(&mut self, right: &str) -> Result<VirtAddr, Error> {
        self.page(right).map(|page| self.setup.pages[page].address)
    }

    fn part(&mut self) -> Part {
        self.arguments.one_of(&Part::WORDS, Part::Frame)
    }

    fn half(&mut self) -> Result<Half, Error> {
        self.arguments.named("half", &[("low", Half::Low), ("high", Half::High)], Half::Both)
    }

    /// `x`, `x, level=2`, `x, table=t`: the page and level, and the entry.
    fn slot(&mut self, right: &str) -> Result<((usize, u8), Slot), Error> {
        let level = match self.arguments.one("level")? {
            Some(level) => self.arguments.between(level, 1, u64::from(self.setup.paging.levels()))? as u8,
            None => 1,
        };
        let table = match self.arguments.one("table")? {
            Some(table) => {
                let names = self.setup.tables.iter().map(|table| &table.name);
                Some(find(self.race, "table", &table.node.to_string(), table.span, names)?)
            }
            None => None,
        };
        let page = self.page(right)?;
        let layout = &self.setup.layout;
        let slot = match table {
            Some(table) => {
                let index = self.setup.paging.index(self.setup.pages[page].address, 1);
                Slot { table: layout.spare(table), index }
            }
            None => layout.slot(self.setup, page, level),
        };
        Ok(((page, level), slot))
    }

    /// The same, and `b`, `b, clean`, `t`, `none`, `original`: what the entry becomes.
    fn slot_and_entry(&mut self, right: &str) -> Result<(Slot, u64), Error> {
        let flags = Flags::read(self.race, &mut self.arguments)?;
        let ((page, level), slot) = self.slot(right)?;
        let value = self.arguments.positional("target", right)?;
        let entry = match &value.node {
            Value::Name(none) if none == NONE => 0,
            Value::Name(original) if original == "original" => {
                self.setup.layout.original(self.setup, page, level).unwrap_or(0)
            }
            _ => flags.entry(self.setup.paging, level, self.setup.target(self.race, value)?),
        };
        Ok((slot, entry))
    }

    /// `x`, or nothing for everything.
    fn scope(&mut self) -> Result<Invalidation, Error> {
        if self.arguments.is_empty() {
            return Ok(Invalidation::All);
        }
        self.page_address("invlpgb(x), or invlpgb()").map(Invalidation::page)
    }

    fn pcid(&mut self) -> Result<Option<Pcid>, Error> {
        match self.arguments.one("pcid")? {
            Some(value) => Ok(Pcid::new(self.arguments.in_range(value, u64::from(Pcid::COUNT) - 1)? as u16)),
            None => Ok(None),
        }
    }

    /// `load_cr3(q, keep)`, `load_cr3(q, pcid=3)`.
    fn load_root(&mut self) -> Result<Action, Error> {
        let cached = self.arguments.one_of(&[("keep", Retention::Keep)], Retention::Drop);
        let pcid = self.pcid()?;
        let value = self.arguments.positional("space", "load_cr3(q)")?;
        let names = self.setup.spaces.iter().map(|space| &space.name);
        let space = find(self.race, "space", &value.node.to_string(), value.span, names)?;
        Ok(Action::LoadRoot { space, pcid: pcid.unwrap_or(self.setup.spaces[space].pcid), cached })
    }

    /// `invpcid(x, pcid=1)`, `invpcid(pcid=1)`, `invpcid(global)`, `invpcid()`: types 0 to 3.
    fn context(&mut self) -> Result<ContextInvalidation, Error> {
        let pcid = self.pcid()?;
        let everything = [("global", ContextInvalidation::EverythingAndGlobal)];
        Ok(match pcid {
            None => self.arguments.one_of(&everything, ContextInvalidation::Everything),
            Some(pcid) if self.arguments.is_empty() => ContextInvalidation::Context { pcid },
            Some(pcid) => ContextInvalidation::Address { pcid, address: self.page_address("invpcid(x, pcid=1)")? },
        })
    }

    /// The CPUs that the rest of the arguments names.
    fn targets(&mut self, right: &str) -> Result<CpuSet, Error> {
        let first = self.arguments.positional("CPU", right)?;
        let mut targets = self.cpu(first)?;
        while !self.arguments.is_empty() {
            let value = self.arguments.positional("CPU", right)?;
            targets = CpuSet::from_bits(targets.bits() | self.cpu(value)?.bits());
        }
        Ok(targets)
    }

    fn cpus(&mut self, key: &'static str) -> Result<CpuSet, Error> {
        let mut targets = CpuSet::EMPTY;
        for value in self.arguments.key(key).unwrap_or_default() {
            targets = CpuSet::from_bits(targets.bits() | self.cpu(value)?.bits());
        }
        Ok(targets)
    }

    fn cpu(&self, value: &Spanned<Value>) -> Result<CpuSet, Error> {
        let number = self.arguments.in_range(value, self.setup.cpus as u64 - 1)?;
        Ok(CpuSet::only(CpuId::new(number as u32)))
    }
}
