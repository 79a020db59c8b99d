//! The protocol for Stateright: a function from a state to the next ones, each step of `protocol.pml` an action.

use stateright::{Checker, Model, Property};

use super::size::{Graph, Size};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Reader {
    pc: u8,
    entry: u8,
    low: bool,
    high: bool,
}

/// The zapper, or a faulter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Writer {
    pc: u8,
    entry: u8,
}

/// As small as Stateright's users would write it: bits of words for the flags, so that a state is one allocation for each kind of CPU.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct State {
    low: u8,
    high: u8,
    lock: bool,
    off: u8,
    pending: u8,
    is_mixture_seen: bool,
    zapper: Writer,
    readers: Vec<Reader>,
    faulters: Vec<Writer>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Action {
    Reader(usize),
    Interrupt(usize),
    Zapper,
    Faulter(usize),
}

struct Protocol(Size);

impl Protocol {
    fn reader(&self, state: &mut State, number: usize) {
        let entries = self.0.entries as u8;
        let reader = &mut state.readers[number];
        let after = |entry: u8| if entry == entries { 4 } else { 1 };
        match reader.pc {
            0 => {
                state.off |= 1 << number;
                reader.pc = 1;
            }
            1 if state.low & 1 << reader.entry == 0 => {
                reader.entry += 1;
                reader.pc = after(reader.entry);
            }
            1 => {
                reader.low = true;
                reader.pc = 2;
            }
            2 => {
                reader.high = state.high & 1 << reader.entry != 0;
                reader.pc = 3;
            }
            3 => {
                if (state.low & 1 << reader.entry != 0) == reader.low {
                    state.is_mixture_seen |= !reader.high;
                    reader.entry += 1;
                    reader.pc = after(reader.entry);
                } else {
                    reader.pc = 1;
                }
                (reader.low, reader.high) = (false, false);
            }
            _ => {
                state.off &= !(1 << number);
                (reader.pc, reader.entry) = (0, 0);
            }
        }
    }

    fn zapper(&self, state: &mut State) {
        let zapper = &mut state.zapper;
        match zapper.pc {
            0 => {
                state.lock = true;
                zapper.pc = 1;
            }
            1 => {
                state.low &= !(1 << zapper.entry);
                zapper.pc = 2;
            }
            2 => {
                state.high &= !(1 << zapper.entry);
                zapper.entry += 1;
                zapper.pc = 1;
                if usize::from(zapper.entry) == self.0.entries {
                    (zapper.entry, zapper.pc) = (0, 4);
                }
            }
            4 => {
                state.pending = (1 << self.0.readers) - 1;
                zapper.pc = 5;
            }
            5 => zapper.pc = 6,
            _ => {
                state.lock = false;
                zapper.pc = 0;
            }
        }
    }

    fn faulter(&self, state: &mut State, number: usize) {
        let faulter = &mut state.faulters[number];
        match faulter.pc {
            0 => {
                state.lock = true;
                faulter.pc = 1;
            }
            1 => faulter.pc = if state.low & 1 << faulter.entry == 0 { 2 } else { 4 },
            2 => {
                state.high |= 1 << faulter.entry;
                faulter.pc = 3;
            }
            3 => {
                state.low |= 1 << faulter.entry;
                faulter.pc = 4;
            }
            _ => {
                state.lock = false;
                faulter.pc = 0;
                faulter.entry = (faulter.entry + 1) % self.0.entries as u8;
            }
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let all = (1 << self.0.entries) - 1;
        vec![State {
            low: all,
            high: all,
            lock: false,
            off: 0,
            pending: 0,
            is_mixture_seen: false,
            zapper: Writer::default(),
            readers: vec![Reader { pc: 0, entry: 0, low: false, high: false }; self.0.readers],
            faulters: vec![Writer::default(); self.0.faulters],
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for number in 0..self.0.readers {
            actions.push(Action::Reader(number));
            if state.pending & !state.off & 1 << number != 0 {
                actions.push(Action::Interrupt(number));
            }
        }
        let is_waiting = match state.zapper.pc {
            0 => state.lock,
            5 => state.pending != 0,
            _ => false,
        };
        if !is_waiting {
            actions.push(Action::Zapper);
        }
        let can_go = |number: &usize| state.faulters[*number].pc != 0 || !state.lock;
        actions.extend((0..self.0.faulters).filter(can_go).map(Action::Faulter));
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Reader(number) => self.reader(&mut next, number),
            Action::Interrupt(number) => next.pending &= !(1 << number),
            Action::Zapper => self.zapper(&mut next),
            Action::Faulter(number) => self.faulter(&mut next, number),
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("no mixture of two entries", |_, state: &State| !state.is_mixture_seen)]
    }
}

/// Explores all of it, breadth first on one thread. (Stateright reduces by symmetry only depth first, where it keeps the path to every state that waits: at 3,3,2
/// already several GiB.)
///
/// # Panics
/// If somebody sees a mixture of two entries.
pub(crate) fn explore(size: Size) -> Graph {
    let checker = Protocol(size).checker().threads(1).spawn_bfs().join();
    checker.assert_properties();
    // `state_count` is of states generated, the first one included.
    Graph { states: checker.unique_state_count() as u64, transitions: checker.state_count() as u64 - 1 }
}
