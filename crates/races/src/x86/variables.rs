//! Where the variables of a program lie, and which part of which word an access touches.
//!
//! Every variable begins at an address of its own page, so that an access past its end reaches no other one. Programs see
//! these addresses, not those of the lab's arena: they are the same in every run.

use crate::error::{Error, Problem};
use crate::race::Race;
use crate::source::Spanned;
use crate::syntax::{Dialect, Initial, InitialValue, Instruction, Operand, Place, Program, Scalar, Type, Value, Width};

/// The address of the first variable.
const FIRST_ADDRESS: u64 = 0x1_0000;
/// How far the beginnings of two variables are apart, in bytes.
const STRIDE: u64 = 0x1000;
/// How many variables a program may have: far more than can be explored, few enough for every check to be quick.
const MAX_VARIABLES: usize = 256;
/// How many 64-bit words an array may have.
const MAX_WORDS: u64 = STRIDE / 8;

/// One variable.
struct Variable {
    name: String,
    /// What it was declared as, if it was.
    scalar: Option<Scalar>,
    /// How wide it is when it is compared and printed.
    width: Width,
    /// The widest access that names it.
    mentioned: Option<Width>,
    elements: u64,
    /// How many bytes may be accessed.
    bytes: u64,
    /// The index of its first word among all words.
    first: usize,
    initial: Vec<u64>,
}

/// All variables of a program.
pub(super) struct Variables {
    list: Vec<Variable>,
    natural: Width,
}

/// A part of a word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Cell {
    /// The index of the word.
    pub(super) word: usize,
    /// The first byte of the part in the word: 0 to 7, a multiple of the width.
    pub(super) offset: u32,
    /// How wide it is.
    pub(super) width: Width,
}

/// Why an address cannot be accessed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// No variable is there.
    Nothing,
    /// It is past the end of a variable.
    Past {
        /// The variable.
        name: String,
        /// Its size in bytes.
        bytes: u64,
    },
    /// It is not a multiple of the width of the access.
    Misaligned {
        /// How many bytes are accessed.
        bytes: u64,
    },
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.write_str("no variable is there"),
            Self::Past { name, bytes } => write!(f, "{name} has {bytes} bytes"),
            Self::Misaligned { bytes } => write!(f, "{bytes} bytes are accessed at a multiple of {bytes}"),
        }
    }
}

impl Cell {
    /// What this part of a word holds, given the whole.
    pub(super) fn part_of(self, word: u64) -> u64 {
        word >> (self.offset * 8) & self.width.mask()
    }

    /// The word with this part replaced.
    pub(super) fn with_part(self, word: u64, value: u64) -> u64 {
        let shift = self.offset * 8;
        word & !(self.width.mask() << shift) | (value & self.width.mask()) << shift
    }
}

impl Variables {
    /// Collects the variables that the init block declares and that instructions name.
    ///
    /// # Errors
    /// Arrays too large, values that do not fit, names of what does not exist.
    pub(super) fn new(race: &Race, program: &Program) -> Result<Self, Error> {
        let natural = match race.litmus.mode.node.dialect() {
            Some(Dialect::Intel) => Width::Long,
            _ => Width::Quad,
        };
        let mut this = Self { list: Vec::new(), natural };
        for initial in &program.init {
            this.declare(race, initial)?;
        }
        for instruction in program.columns.iter().flatten().filter_map(|line| line.instruction.as_ref()) {
            this.mention(&instruction.node);
        }
        if this.list.len() > MAX_VARIABLES {
            let problem = Problem::Impossible {
                why: format!("{} variables", this.list.len()),
                right: format!("a program has at most {MAX_VARIABLES}"),
            };
            return Err(Error::new(&race.source, race.litmus.mode.span, problem));
        }
        let mut first = 0;
        for variable in &mut this.list {
            if let (None, 1, Some(width)) = (variable.scalar, variable.elements, variable.mentioned) {
                variable.width = width;
            }
            variable.first = first;
            first += variable.initial.len();
        }
        for initial in &program.init {
            this.initialise(race, initial)?;
        }
        Ok(this)
    }

    fn add(&mut self, name: &str) -> &mut Variable {
        let index = self.list.iter().position(|variable| variable.name == name).unwrap_or_else(|| {
            self.list.push(Variable {
                name: name.to_owned(),
                scalar: None,
                width: self.natural,
                mentioned: None,
                elements: 1,
                bytes: 8,
                first: 0,
                initial: vec![0],
            });
            self.list.len() - 1
        });
        &mut self.list[index]
    }

    fn declare(&mut self, race: &Race, initial: &Initial) -> Result<(), Error> {
        let natural = self.natural;
        let (name, elements) = match &initial.place.node {
            Place::Register { .. } => return Ok(()),
            Place::Location(name) => (name, 1),
            Place::Element(name, elements) => (name, *elements),
        };
        let scalar = match initial.ty.as_ref().map(|ty| ty.node) {
            Some(Type::Scalar(scalar)) => Some(scalar),
            Some(Type::Pointer(_)) if natural == Width::Long => Some(Scalar::Uint32),
            Some(Type::Pointer(_)) => Some(Scalar::Uint64),
            None => None,
        };
        let variable = self.add(name);
        if let Some(scalar) = scalar {
            if variable.scalar.is_some() {
                let problem = Problem::Duplicate { what: "the declaration of", name: name.clone() };
                return Err(Error::new(&race.source, initial.place.span, problem));
            }
            variable.scalar = Some(scalar);
            variable.width = scalar.width();
            variable.bytes = scalar.width().bytes();
        }
        let width = variable.width;
        if let Place::Element(..) = initial.place.node {
            let most = MAX_WORDS * 8 / width.bytes();
            if !(1..=most).contains(&elements) {
                let problem = Problem::NumberRange { found: elements.to_string(), least: 1, most: i128::from(most) };
                return Err(Error::new(&race.source, initial.place.span, problem));
            }
            variable.elements = elements;
            variable.bytes = elements * width.bytes();
            variable.initial = vec![0; variable.bytes.div_ceil(8) as usize];
        }
        Ok(())
    }

    /// A variable that no one declared is as wide as the widest access that names it.
    fn mention(&mut self, instruction: &Instruction) {
        let mut named = Vec::new();
        for operand in &instruction.operands {
            match &operand.node {
                Operand::Memory(memory) => named.extend(memory.symbol.as_ref().map(|symbol| symbol.node.clone())),
                Operand::Address(name) => named.push(name.clone()),
                _ => {}
            }
        }
        for name in named {
            let variable = self.add(&name);
            variable.mentioned = variable.mentioned.max(instruction.stated_width());
        }
    }

    fn initialise(&mut self, race: &Race, initial: &Initial) -> Result<(), Error> {
        let name = match &initial.place.node {
            Place::Register { .. } => return Ok(()),
            Place::Location(name) | Place::Element(name, _) => name,
        };
        let values = match &initial.value {
            InitialValue::Zero => return Ok(()),
            InitialValue::One(value) => std::slice::from_ref(value),
            InitialValue::Many(values) => values,
        };
        let Some(index) = self.list.iter().position(|variable| variable.name == *name) else { return Ok(()) };
        let (width, elements) = (self.list[index].width, self.list[index].elements);
        if values.len() as u64 != elements {
            let problem = Problem::Value {
                what: initial.place.to_string(),
                found: format!("{} values", values.len()),
                right: format!("it has {elements}"),
            };
            return Err(Error::new(&race.source, initial.place.span, problem));
        }
        for (element, value) in values.iter().enumerate() {
            let bits = self.bits(race, width, value)?;
            let at = element as u64 * width.bytes();
            let cell = Cell { word: (at / 8) as usize, offset: (at % 8) as u32, width };
            let word = &mut self.list[index].initial[cell.word];
            *word = cell.with_part(*word, bits);
        }
        Ok(())
    }

    /// The bits that `width` bits hold for a value.
    ///
    /// # Errors
    /// A number that does not fit, or an unknown variable.
    pub(super) fn bits(&self, race: &Race, width: Width, value: &Spanned<Value>) -> Result<u64, Error> {
        let fail = |problem| Err(Error::new(&race.source, value.span, problem));
        let number = match &value.node {
            Value::Number(number) => *number,
            Value::Name(name) | Value::Offset(name, _) => {
                let Some(address) = self.address(name) else {
                    return fail(Problem::Unknown { what: "variable", found: name.clone(), known: self.names() });
                };
                let offset = if let Value::Offset(_, offset) = &value.node { *offset } else { 0 };
                i128::from(address) + offset
            }
        };
        let (least, most) = (-(1_i128 << (width.bits() - 1)), i128::from(width.mask()));
        if !(least..=most).contains(&number) {
            return fail(Problem::NumberRange { found: number.to_string(), least, most });
        }
        Ok(number as u64 & width.mask())
    }

    /// The names of all variables.
    pub(super) fn names(&self) -> Vec<String> {
        self.list.iter().map(|variable| variable.name.clone()).collect()
    }

    /// The address of a variable.
    pub(super) fn address(&self, name: &str) -> Option<u64> {
        let index = self.list.iter().position(|variable| variable.name == name)?;
        Some(FIRST_ADDRESS + index as u64 * STRIDE)
    }

    /// How wide an access is that does not say so: as wide as the variable was declared, or natural for the mode.
    pub(super) fn implied_width(&self, symbol: Option<&str>) -> Width {
        let declared = symbol.and_then(|name| self.list.iter().find(|variable| variable.name == name)?.scalar);
        declared.map_or(self.natural, Scalar::width)
    }

    /// The part of a word that lies at an address.
    pub(super) fn cell(&self, address: u64, width: Width) -> Result<Cell, Fault> {
        let index = address.checked_sub(FIRST_ADDRESS).map(|distance| distance / STRIDE);
        let variable = index.and_then(|index| self.list.get(usize::try_from(index).ok()?)).ok_or(Fault::Nothing)?;
        let offset = (address - FIRST_ADDRESS) % STRIDE;
        if offset + width.bytes() > variable.bytes {
            return Err(Fault::Past { name: variable.name.clone(), bytes: variable.bytes });
        }
        if !offset.is_multiple_of(width.bytes()) {
            return Err(Fault::Misaligned { bytes: width.bytes() });
        }
        Ok(Cell { word: variable.first + (offset / 8) as usize, offset: (offset % 8) as u32, width })
    }

    /// Whether the part is all that can be accessed of its variable.
    pub(super) fn is_whole_variable(&self, cell: Cell) -> bool {
        cell.offset == 0
            && self.list.iter().any(|variable| variable.first == cell.word && variable.bytes == cell.width.bytes())
    }

    /// The part of a word that a variable, or an element of one, is, and its type where it has one.
    pub(super) fn place(&self, name: &str, element: Option<u64>) -> Option<(Cell, Option<Scalar>)> {
        let variable = self.list.iter().find(|variable| variable.name == name)?;
        let element = element.unwrap_or(0);
        if element >= variable.elements {
            return None;
        }
        let at = element * variable.width.bytes();
        let cell = Cell { word: variable.first + (at / 8) as usize, offset: (at % 8) as u32, width: variable.width };
        Some((cell, variable.scalar))
    }

    /// What is at an address, in words: `x`, `t+8`.
    pub(super) fn describe(&self, address: u64) -> Option<String> {
        let distance = address.checked_sub(FIRST_ADDRESS)?;
        let variable = self.list.get(usize::try_from(distance / STRIDE).ok()?)?;
        match distance % STRIDE {
            0 => Some(variable.name.clone()),
            offset if offset < variable.bytes => Some(format!("{}+{offset}", variable.name)),
            _ => None,
        }
    }

    /// What all words hold at the start.
    pub(super) fn initial(&self) -> Vec<u64> {
        self.list.iter().flat_map(|variable| variable.initial.iter().copied()).collect()
    }

    /// The names of all words.
    pub(super) fn word_names(&self) -> impl Iterator<Item = String> {
        self.list.iter().flat_map(|variable| {
            (0..variable.initial.len()).map(move |word| match (variable.initial.len(), word * 8) {
                (1, _) => variable.name.clone(),
                (_, offset) => format!("{}+{offset}", variable.name),
            })
        })
    }
}
