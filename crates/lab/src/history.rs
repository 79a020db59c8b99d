//! The states of a run, for people: what CPUs, store buffers, TLBs, page tables and words hold before and after each step.

use std::collections::{BTreeMap, BTreeSet};

use machine::{Pcid, PhysAddr, VirtAddr};
use serde::{Deserialize, Serialize};

use crate::agent::{Status, program_of};
use crate::buffer::Waiting;
use crate::cells::{self, flag};
use crate::core::Core;
use crate::execute::{RCU_BEGUN, deed_of};
use crate::machine_config::Pcids;
use crate::op::{Kind, Op};
use crate::paging::{Decoded, Paging};
use crate::tlb::{EXECUTABLE, Item, Life, Pointer, Tag, USER, WRITABLE};
use crate::trace::Value;

/// Where a row of a state belongs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Panel {
    /// Registers of a CPU, and what its code is about to do.
    Cpu,
    /// What waits in a store buffer.
    Buffer,
    /// What a CPU's TLB and paging-structure caches may hold.
    Tlb,
    /// Entries of a page table.
    Table,
    /// Words outside page tables, and which frames are allocated.
    Word,
}

/// What a row of a state speaks of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Where it belongs.
    pub panel: Panel,
    /// Whose it is: `CPU0`, `table 0x105`; empty for words.
    pub of: String,
    /// Its name.
    pub label: String,
}

/// The states of a run: before its first step, and after each.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct History {
    /// Every row that some state has, in the order in which they are shown.
    pub rows: Vec<Row>,
    /// For each state what each row holds; `None` where the state has no such row.
    pub states: Vec<Vec<Option<String>>>,
}

impl History {
    /// The rows that the step before state `state` changed. None for the first.
    pub fn changed(&self, state: usize) -> Vec<usize> {
        let Some(before) = state.checked_sub(1).and_then(|before| self.states.get(before)) else { return Vec::new() };
        let Some(after) = self.states.get(state) else { return Vec::new() };
        (0..self.rows.len()).filter(|&row| before.get(row) != after.get(row)).collect()
    }
}

/// A row and where it is shown among its like: whose number, then its own.
type Key = (Panel, u64, u64, Row);

/// Goes through a run twice: once to learn what matters, and once to take one state after the other.
#[derive(Default)]
pub(crate) struct Historian {
    /// Words that the run accesses: offset and width.
    words: BTreeSet<(usize, usize)>,
    /// Entries that walks come to at some time, or that the run accesses, by the index of the table's block.
    entries: BTreeMap<usize, BTreeSet<usize>>,
    snapshots: Vec<BTreeMap<Key, String>>,
}

impl Historian {
    /// Learns which entries walks come to in this state.
    pub(crate) fn learn(&mut self, core: &Core<'_>) {
        let Some(paging) = core.machine.paging else { return };
        for (frame, table) in core.walked_tables() {
            let Some((block, _)) = core.arena.block_of(machine::Frame::new(frame)) else { continue };
            let watched = core.machine.watched.iter().filter(|page| table.covers(paging, **page));
            for page in watched {
                let entry = table.first_entry + paging.index(*page, table.level);
                self.entries.entry(block).or_default().insert(entry);
            }
        }
    }

    /// Learns which words the run accesses.
    pub(crate) fn learn_words(&mut self, core: &Core<'_>, touched: &BTreeSet<(usize, usize)>) {
        for &(offset, bytes) in touched {
            let table = core.block_at(offset).and_then(|block| Some((block, core.arena.blocks()[block].words?)));
            match table {
                Some((block, words)) => _ = self.entries.entry(block).or_default().insert((offset - words) / 8),
                None => _ = self.words.insert(core.symbols.whole(offset, bytes)),
            }
        }
    }

    /// Takes the state that the machine is in.
    pub(crate) fn take(&mut self, core: &Core<'_>) {
        let mut snapshot = Snapshot { core, rows: BTreeMap::new() };
        for cpu in 0..core.cpus() {
            snapshot.registers(cpu);
            snapshot.buffer(cpu);
            snapshot.translations(cpu);
        }
        snapshot.tables(&self.entries);
        snapshot.words(&self.words);
        self.snapshots.push(snapshot.rows);
    }

    /// All that were taken.
    pub(crate) fn finish(self) -> History {
        let keys: BTreeSet<&Key> = self.snapshots.iter().flat_map(BTreeMap::keys).collect();
        let states = self.snapshots.iter().map(|rows| keys.iter().map(|key| rows.get(*key).cloned()).collect());
        History { states: states.collect(), rows: keys.iter().map(|key| key.3.clone()).collect() }
    }
}

struct Snapshot<'s, 'a> {
    core: &'s Core<'a>,
    rows: BTreeMap<Key, String>,
}

impl Snapshot<'_, '_> {
    fn put(&mut self, panel: Panel, (number, of): (u64, &str), (at, label): (u64, &str), value: String) {
        let row = Row { panel, of: of.to_owned(), label: label.to_owned() };
        self.rows.insert((panel, number, at, row), value);
    }

    fn registers(&mut self, cpu: usize) {
        let core = self.core;
        let name = format!("CPU{cpu}");
        let mut rows: Vec<(&str, String)> =
            vec![("next", core.what_next(cpu)), ("interrupts", core.interrupt_state(cpu))];
        let pending = core.reg(cpu, cells::PENDING);
        if pending != 0 {
            let vectors: Vec<&str> =
                (0..3).filter(|vector| pending >> vector & 1 != 0).map(Core::vector_name).collect();
            rows.push(("pending", vectors.join(", ")));
        }
        if core.reg(cpu, cells::RCU_DEPTH) != 0 {
            rows.push(("RCU", "in a read-side section".to_owned()));
        }
        let waits = core.reg(cpu, cells::RCU_WAITS) & !RCU_BEGUN;
        if waits != 0 {
            rows.push(("RCU waits for", cpus_of(waits)));
        }
        let broadcasts: Vec<String> = (0..core.reg(cpu, cells::ARRIVALS) as usize)
            .map(|index| {
                let [source, start, pages] = core.arrival(cpu, index);
                format!("{} from CPU{source}", crate::record::scope(start, pages))
            })
            .collect();
        if !broadcasts.is_empty() {
            rows.push(("flushes on their way", broadcasts.join("; ")));
        }
        if let Some(paging) = core.machine.paging
            && core.has_flag(cpu, flag::ROOT_LOADED)
        {
            let cr3 = core.reg(cpu, cells::ROOT);
            rows.push((
                "cr3",
                match core.machine.pcids {
                    Pcids::Disabled => format!("{cr3:#x}"),
                    Pcids::Enabled => format!("{:#x}, PCID {}", cr3 & !0xfff, cr3 & 0xfff),
                },
            ));
            if core.has_registers(paging) {
                for (index, label) in ["PDPTE 0", "PDPTE 1", "PDPTE 2", "PDPTE 3"].into_iter().enumerate() {
                    let entry = core.reg(cpu, cells::PDPTES.plus(index));
                    let is_used = |page: &VirtAddr| paging.index(*page, paging.levels()) == index;
                    if core.machine.watched.iter().any(is_used) {
                        rows.push((label, shown(&in_words(paging, paging.levels(), entry))));
                    }
                }
            }
        }
        for (at, (label, value)) in rows.into_iter().enumerate() {
            // Where a row stands does not depend on which others there are.
            let at = ORDER.iter().position(|known| *known == label).unwrap_or(ORDER.len() + at);
            self.put(Panel::Cpu, (cpu as u64, &name), (at as u64, label), value);
        }
    }

    fn buffer(&mut self, cpu: usize) {
        let core = self.core;
        for index in 0..core.buffered(cpu) {
            let text = match core.waiting(cpu, index) {
                Waiting::Store { offset, bytes, value } => {
                    format!(
                        "{} := {}",
                        core.symbols.place(offset, bytes),
                        shown(&core.symbols.value(offset, bytes, value))
                    )
                }
                Waiting::Zero { offset, bytes } => {
                    format!("{bytes} bytes from {} on := 0", core.symbols.place(offset, 8))
                }
            };
            let label = if index == 0 { "oldest".to_owned() } else { format!("{}", index + 1) };
            self.put(Panel::Buffer, (cpu as u64, &format!("CPU{cpu}")), (index as u64, &label), text);
        }
    }

    fn translations(&mut self, cpu: usize) {
        let core = self.core;
        let name = format!("CPU{cpu}");
        let pcids = core.machine.pcids;
        for item in &core.tlbs[cpu].items {
            self.put(Panel::Tlb, (cpu as u64, &name), (item.page, &item_text(item, pcids)), life(item.life));
        }
        for pointer in &core.tlbs[cpu].pointers {
            let label = pointer_text(pointer, pcids);
            self.put(Panel::Tlb, (cpu as u64, &name), (u64::MAX, &label), life(pointer.life));
        }
    }

    fn tables(&mut self, entries: &BTreeMap<usize, BTreeSet<usize>>) {
        let core = self.core;
        let walked = core.walked_tables();
        for (&index, entries) in entries {
            let block = &core.arena.blocks()[index];
            let Some(words) = block.words else { continue };
            let number = block.first.number();
            let allocated = core.is_allocated(index);
            let table = walked.get(&number).filter(|_| allocated);
            let of = format!("table {number:#x}");
            let state = match (allocated, table) {
                (false, _) => "free".to_owned(),
                (true, None) => "allocated".to_owned(),
                (true, Some(table)) => format!("allocated, walked at level {}", table.level),
            };
            self.put(Panel::Table, (number, &of), (0, "frame"), state);
            for &entry in entries {
                let offset = words + 8 * entry;
                let bits = core.get(offset, 8);
                let value = core.symbols.value(offset, 8, bits);
                let value = match (&value.words, core.machine.paging, table) {
                    (None, Some(paging), Some(table)) => in_words(paging, table.level, bits),
                    _ => value,
                };
                let label = match core.symbols.name_of_word(offset) {
                    Some(name) => format!("[{entry}] {name}"),
                    None => format!("[{entry}]"),
                };
                self.put(Panel::Table, (number, &of), (1 + entry as u64, &label), shown(&value));
            }
        }
    }

    fn words(&mut self, words: &BTreeSet<(usize, usize)>) {
        let core = self.core;
        for &(offset, bytes) in words {
            let value = shown(&core.symbols.value(offset, bytes, core.get(offset, bytes)));
            let label = core.symbols.place(offset, bytes);
            self.put(Panel::Word, (0, ""), (offset as u64, &label), value);
        }
        for (index, block) in core.arena.blocks().iter().enumerate() {
            if block.words.is_none() && core.is_allocated(index) {
                let last = block.first.number() + (1 << block.order) - 1;
                let label = match block.order {
                    0 => format!("frame {}", block.first),
                    _ => format!("frames {} to {last:#x}", block.first),
                };
                self.put(Panel::Word, (1, ""), (block.first.number(), &label), "allocated".to_owned());
            }
        }
    }
}

const ORDER: [&str; 11] = [
    "next",
    "interrupts",
    "pending",
    "RCU",
    "RCU waits for",
    "flushes on their way",
    "cr3",
    "PDPTE 0",
    "PDPTE 1",
    "PDPTE 2",
    "PDPTE 3",
];

impl Core<'_> {
    /// What a CPU's code is about to do.
    fn what_next(&self, cpu: usize) -> String {
        let Some(agent) = self.active(cpu) else {
            let done = self.agents[program_of(cpu)].state.status == Status::Done && self.stop.is_none();
            return if done { "done" } else { "stopped" }.to_owned();
        };
        let op = self.op(agent);
        let waits = match op.kind {
            // Some possibility of it may be open.
            Kind::UserAccess => false,
            _ => !self.is_enabled(cpu, op),
        };
        format!("{}{}", if waits { "waits: " } else { "" }, self.op_text(op))
    }

    fn op_text(&self, op: &Op) -> String {
        let name = op.kind.name();
        match op.kind {
            Kind::UserAccess => format!("user {} at {}", deed_of(op).name(), VirtAddr::new(op.a)),
            Kind::Zero => format!("zero {} words from {} on", op.a, self.symbols.place(op.address, 8)),
            Kind::FreeFrame | Kind::DeviceAccess => format!("{name} {:#x}", op.a),
            Kind::IrqRestore => if op.a == 0 { "irq on" } else { "irq stays off" }.to_owned(),
            _ if op.kind.accesses_word().is_some() => {
                format!("{name} {}", self.symbols.place(op.address, usize::from(op.bytes)))
            }
            _ => name.to_owned(),
        }
    }

    fn interrupt_state(&self, cpu: usize) -> String {
        let what = if self.has_flag(cpu, flag::IN_NMI) {
            "off, in the NMI handler"
        } else if self.has_flag(cpu, flag::IN_HANDLER) {
            "off, in the interrupt handler"
        } else if self.has_flag(cpu, flag::IRQ_OFF) {
            "off"
        } else {
            "on"
        };
        what.to_owned()
    }

    /// The tables that walks from the CPUs' roots for watched pages come to, by frame; at the highest level where there are several.
    fn walked_tables(&self) -> BTreeMap<u64, WalkedTable> {
        let mut tables: BTreeMap<u64, WalkedTable> = BTreeMap::new();
        let Some(paging) = self.machine.paging else { return tables };
        let mut found: Vec<(u64, WalkedTable)> = Vec::new();
        for cpu in (0..self.cpus()).filter(|&cpu| self.has_flag(cpu, flag::ROOT_LOADED)) {
            let root = paging.table_of_root(PhysAddr::new(self.reg(cpu, cells::ROOT)));
            // On PAE the root table is smaller than a frame.
            let first_entry = (root.as_u64() & 0xfff) as usize / 8;
            found.push((root.frame().number(), WalkedTable { level: paging.levels(), base: 0, first_entry }));
            if self.has_registers(paging) {
                let (level, span) = (paging.levels() - 1, Paging::span(paging.levels()));
                for index in 0..4 {
                    let decoded = paging.decode(paging.levels(), self.reg(cpu, cells::PDPTES.plus(index)));
                    let table = WalkedTable { level, base: span * index as u64, first_entry: 0 };
                    found.extend(decoded.present.then_some((decoded.frame.number(), table)));
                }
            }
            let cached = self.tlbs[cpu].pointers.iter().filter(|pointer| pointer.life == Life::Valid);
            found.extend(cached.map(|pointer| {
                (pointer.frame, WalkedTable { level: pointer.level, base: pointer.base, first_entry: 0 })
            }));
        }
        while let Some((frame, table)) = found.pop() {
            if tables.get(&frame).is_some_and(|before| before.level >= table.level) {
                continue;
            }
            tables.insert(frame, table);
            let block = self.arena.block_of(machine::Frame::new(frame));
            let Some(words) = block.and_then(|(_, block)| block.words).filter(|_| table.level > 1) else { continue };
            for page in self.machine.watched.iter().filter(|page| table.covers(paging, **page)) {
                let entry = table.first_entry + paging.index(*page, table.level);
                let decoded = paging.decode(table.level, self.get(words + 8 * entry, 8));
                if decoded.present && !decoded.leaf {
                    let base = page.as_u64() & !(Paging::span(table.level) - 1);
                    found.push((decoded.frame.number(), WalkedTable { level: table.level - 1, base, first_entry: 0 }));
                }
            }
        }
        tables
    }
}

/// Where in a walk a table is.
#[derive(Clone, Copy)]
struct WalkedTable {
    level: u8,
    /// The first address that it translates.
    base: u64,
    /// Which entry of its frame is its first.
    first_entry: usize,
}

impl WalkedTable {
    fn covers(&self, paging: Paging, page: VirtAddr) -> bool {
        self.level == paging.levels() || page.as_u64() & !(Paging::span(self.level + 1) - 1) == self.base
    }
}

fn cpus_of(set: u64) -> String {
    let names: Vec<String> = (0..64).filter(|cpu| set >> cpu & 1 != 0).map(|cpu| format!("CPU{cpu}")).collect();
    names.join(", ")
}

fn life(life: Life) -> String {
    match life {
        Life::Valid => "may be held",
        Life::Dangling => "may be held, the frame is freed",
    }
    .to_owned()
}

/// ` WUX`, as far as they are left.
fn rights(rights: u8) -> String {
    let letters: String = [(WRITABLE, 'W'), (USER, 'U'), (EXECUTABLE, 'X')]
        .into_iter()
        .filter(|(right, _)| rights & right != 0)
        .map(|(_, letter)| letter)
        .collect();
    if letters.is_empty() { letters } else { format!(" {letters}") }
}

fn identifier(pcid: Pcid, pcids: Pcids) -> String {
    match pcids {
        Pcids::Disabled => String::new(),
        Pcids::Enabled => format!(", {pcid}"),
    }
}

fn item_text(item: &Item, pcids: Pcids) -> String {
    let dirty = if item.dirty { " D" } else { "" };
    let tag = match item.tag {
        Tag::Global => ", global".to_owned(),
        Tag::Of(pcid) => identifier(pcid, pcids),
    };
    let size = ["", "4K", "2M", "1G"].get(usize::from(item.level)).copied().unwrap_or("");
    let key = if item.key == 0 { String::new() } else { format!(" key={}", item.key) };
    format!("{:#x} {size} -> frame {:#x}{}{dirty}{key}{tag}", item.page, item.frame, rights(item.rights))
}

fn pointer_text(pointer: &Pointer, pcids: Pcids) -> String {
    let Pointer { level, base, frame, pcid, .. } = *pointer;
    format!("level {level} from {base:#x} -> table {frame:#x}{}{}", rights(pointer.rights), identifier(pcid, pcids))
}

/// An entry in the words of the manuals.
fn in_words(paging: Paging, level: u8, bits: u64) -> Value {
    let decoded = paging.decode(level, bits);
    let words = if decoded.present {
        let what = if decoded.leaf { "frame" } else { "table" };
        // PDPTEs of PAE have no rights, and no flags for a walk to set.
        let is_register = paging.has_registers() && level == paging.levels();
        let flags = if is_register { String::new() } else { flags_of(&decoded) };
        format!("{what} {} P{flags}", decoded.frame)
    } else {
        "not present".to_owned()
    };
    Value { bits, bytes: 8, words: Some(words) }
}

fn flags_of(decoded: &Decoded) -> String {
    let flags: String = [
        (decoded.writable, " W"),
        (decoded.user, " U"),
        (decoded.accessed, " A"),
        (decoded.dirty, " D"),
        (decoded.global, " G"),
        (!decoded.executable, " NX"),
    ]
    .into_iter()
    .filter(|(is_set, _)| *is_set)
    .map(|(_, letter)| letter)
    .collect();
    if decoded.protection_key == 0 { flags } else { format!("{flags} key={}", decoded.protection_key) }
}

fn shown(value: &Value) -> String {
    let bits = if value.bits < 10 { value.bits.to_string() } else { format!("{:#x}", value.bits) };
    match &value.words {
        Some(words) => format!("{bits} [{words}]"),
        None => bits,
    }
}
