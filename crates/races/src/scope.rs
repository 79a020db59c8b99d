//! The same race with more CPUs and with more entries: what a file says about it, and the file that it becomes.
//!
//! A race at another scope is another litmus file, made from the first: it can be printed, saved with a run and replayed as any other. What more CPUs do, and what
//! there are more of, only the file can say: the info line `Replicate=P2`, and the setting `entries=1` whose name then stands for the number.

use std::collections::HashSet;

use crate::error::{Error, Problem};
use crate::parse::parse;
use crate::race::Race;
use crate::source::{Source, Span, Spanned};
use crate::syntax::{Argument, Body, Initial, Litmus, Place, Program, Script, Statement, Value};

/// The info line that names the columns which CPUs beyond those of the table repeat.
const REPLICATE: &str = "Replicate";
/// The setting that says how many entries a file is about.
pub(crate) const ENTRIES: &str = "entries";
/// How many there may be.
pub(crate) const MOST_ENTRIES: u64 = 64;
/// How many CPUs a machine may have.
pub const MOST_CPUS: usize = machine::CpuSet::CAPACITY as usize;

/// How large a race is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Scope {
    /// CPUs.
    pub cpus: usize,
    /// Entries; 1 where the file does not speak of them.
    pub entries: u64,
}

/// Why a race has no such scope.
#[derive(Debug, thiserror::Error)]
pub enum NoScope {
    /// The file does not say what more CPUs would do.
    #[error(
        "{race} does not say what more CPUs do: add the line `Replicate=P{last}` under its heading if they do what P{last} does"
    )]
    Cpus {
        /// The race.
        race: String,
        /// Its last column.
        last: usize,
    },
    /// The file does not say what there would be more of.
    #[error(
        "{race} does not say what more entries are: add `entries=1;` to its init block and write `entries` where it says how many pages (`pages=entries`, `copies=entries`)"
    )]
    Entries {
        /// The race.
        race: String,
    },
    /// Each column is needed.
    #[error("the race has {least} CPUs that do different things")]
    FewerCpus {
        /// So many.
        least: usize,
    },
    /// The file that it becomes is none.
    #[error(transparent)]
    Impossible(#[from] Error),
}

impl Race {
    /// The scope of the file as it stands.
    pub fn scope(&self) -> Scope {
        let entries = operations(&self.litmus).and_then(setting).and_then(|value| count(value).ok());
        Scope { cpus: self.litmus.cpus(), entries: entries.unwrap_or(1) }
    }

    /// The same race at another scope. It has another name, unless the scope is its own.
    ///
    /// # Errors
    /// The file does not say what that would be, or it cannot be.
    pub fn at(&self, scope: Scope) -> Result<Self, NoScope> {
        let own = self.scope();
        if scope == own {
            return Ok(self.clone());
        }
        // Not `self.litmus`, in which `entries` has become a number.
        let mut litmus = parse(&self.source)?;
        let race = || self.litmus.name.node.clone();
        if scope.entries != own.entries {
            let entries = match &mut litmus.body {
                Body::Operations(script) => setting_mut(script),
                Body::Instructions(_) => None,
            };
            *entries.ok_or_else(|| NoScope::Entries { race: race() })? = Value::Number(scope.entries.into());
        }
        if scope.cpus < own.cpus {
            return Err(NoScope::FewerCpus { least: own.cpus });
        }
        let like = replicated(self)?;
        if scope.cpus > own.cpus && like.is_empty() {
            return Err(NoScope::Cpus { race: race(), last: own.cpus.saturating_sub(1) });
        }
        for (cpu, like) in (own.cpus..scope.cpus).zip(like.iter().cycle()) {
            add_cpu(&mut litmus, cpu, *like);
        }
        let cpus = format!("{} CPU{}", scope.cpus, if scope.cpus == 1 { "" } else { "s" });
        let entries = format!("{} {}", scope.entries, if scope.entries == 1 { "entry" } else { "entries" });
        litmus.name.node = format!("{}+{}+{}", litmus.name, cpus, entries).replace(' ', "");
        let source = Source::new(format!("{} at {cpus}, {entries}", self.source.name()), litmus.to_string());
        Ok(Self::new(source)?)
    }
}

/// What a file says about scopes is what could be done.
pub(crate) fn check(race: &Race) -> Result<(), Error> {
    replicated(race).map(drop)
}

/// The columns that CPUs beyond those of the table repeat, in turn.
fn replicated(race: &Race) -> Result<Vec<usize>, Error> {
    let Some(line) = race.litmus.info(REPLICATE) else { return Ok(Vec::new()) };
    let cpus = race.litmus.cpus();
    let column = |word: &str| {
        let number = word.strip_prefix("CPU").or_else(|| word.strip_prefix('P'));
        number.and_then(|number| number.parse().ok()).filter(|number| *number < cpus)
    };
    let mut columns = Vec::new();
    for word in line.node.split([',', ' ']).filter(|word| !word.is_empty()) {
        let known = (0..cpus).map(|cpu| format!("P{cpu}")).collect();
        let unknown = || Problem::Unknown { what: "column", found: word.to_owned(), known };
        columns.push(column(word).ok_or_else(|| Error::new(&race.source, line.span, unknown()))?);
    }
    if columns.is_empty() {
        let problem = Problem::Missing { what: "a column".to_owned(), right: format!("`{REPLICATE}=P0`") };
        return Err(Error::new(&race.source, line.span, problem));
    }
    Ok(columns)
}

/// CPUs of a file of instructions that nobody can tell apart: the same program, the same registers at the start, and none of them in a condition. None unless the file says that
/// columns may be repeated. Files of operations have none: shootdowns go through CPUs one by one.
pub(crate) fn alike(race: &Race, program: &Program) -> Vec<Vec<usize>> {
    if race.litmus.info(REPLICATE).is_none() {
        return Vec::new();
    }
    let mut observed = HashSet::new();
    let mut note = |place: &Spanned<Place>| {
        if let Place::Register { cpu, .. } = place.node {
            observed.insert(cpu as usize);
        }
    };
    race.litmus.observed().into_iter().for_each(&mut note);
    if let Some(filter) = &race.litmus.filter {
        filter.for_each_place(&mut note);
    }
    let registers = |column: usize| -> Vec<_> {
        let of = program.init.iter().filter_map(|initial| match &initial.place.node {
            Place::Register { cpu, name } if *cpu as usize == column => Some((name, &initial.value)),
            _ => None,
        });
        of.collect()
    };
    let same =
        |one: usize, other: usize| program.columns[one] == program.columns[other] && registers(one) == registers(other);
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for column in (0..program.columns.len()).filter(|column| !observed.contains(column)) {
        match groups.iter_mut().find(|group| same(group[0], column)) {
            Some(group) => group.push(column),
            None => groups.push(vec![column]),
        }
    }
    groups.retain(|group| group.len() > 1);
    groups
}

/// One more CPU, which does what another one does, where that one is.
fn add_cpu(litmus: &mut Litmus, cpu: usize, like: usize) {
    let runs_on = |values: &mut Vec<Spanned<Value>>| {
        if values.iter().any(|value| value.node == Value::Number(like as i128)) {
            values.push(Spanned::new(Value::Number(cpu as i128), Span::default()));
        }
    };
    match &mut litmus.body {
        Body::Instructions(program) => {
            program.columns.push(program.columns[like].clone());
            let own = |initial: &&Initial| matches!(&initial.place.node, Place::Register { cpu, .. } if *cpu as usize == like);
            let mut registers: Vec<Initial> = program.init.iter().filter(own).cloned().collect();
            for initial in &mut registers {
                if let Place::Register { cpu: owner, .. } = &mut initial.place.node {
                    *owner = cpu as u32;
                }
            }
            program.init.extend(registers);
        }
        Body::Operations(script) => {
            script.columns.push(script.columns[like].clone());
            for statement in &mut script.init {
                match statement {
                    Statement::Setting(Argument { key: Some(key), values }) if key.node == "nmi" => runs_on(values),
                    Statement::Setting(Argument { key: Some(key), values }) if key.node == "cpus" => {
                        *values = vec![Spanned::new(Value::Number(cpu as i128 + 1), Span::default())];
                    }
                    Statement::Declaration { word, arguments, .. } if word.node == "space" => {
                        let is_cpus =
                            |argument: &&mut Argument| argument.key.as_ref().is_some_and(|key| key.node == "cpus");
                        arguments.iter_mut().filter(is_cpus).for_each(|argument| runs_on(&mut argument.values));
                    }
                    Statement::Setting(_) | Statement::Declaration { .. } => {}
                }
            }
        }
    }
}

/// The file, with the number in each place that says `entries`.
pub(crate) fn with_entries(source: &Source, mut litmus: Litmus) -> Result<Litmus, Error> {
    let Body::Operations(script) = &mut litmus.body else { return Ok(litmus) };
    let Some(setting) = setting(script) else { return Ok(litmus) };
    let entries = count(setting).map_err(|problem| Error::new(source, setting.span, problem))?;
    let replace = |value: &mut Spanned<Value>| {
        if value.node == Value::Name(ENTRIES.to_owned()) {
            value.node = Value::Number(entries.into());
        }
    };
    let replace_in = |argument: &mut Argument| argument.values.iter_mut().for_each(replace);
    for statement in &mut script.init {
        match statement {
            Statement::Setting(setting) => replace_in(setting),
            Statement::Declaration { values, arguments, .. } => {
                values.iter_mut().for_each(replace);
                arguments.iter_mut().for_each(replace_in);
            }
        }
    }
    let handlers = [&mut script.ipi, &mut script.nmi];
    for operation in script.columns.iter_mut().chain(handlers).flatten() {
        operation.arguments.iter_mut().for_each(replace_in);
    }
    for variant in &mut litmus.variants {
        variant.choices.iter_mut().for_each(replace_in);
    }
    Ok(litmus)
}

fn operations(litmus: &Litmus) -> Option<&Script> {
    match &litmus.body {
        Body::Operations(script) => Some(script),
        Body::Instructions(_) => None,
    }
}

/// The value of the setting `entries`.
fn setting(script: &Script) -> Option<&Spanned<Value>> {
    script.init.iter().find_map(|statement| match statement {
        Statement::Setting(Argument { key: Some(key), values }) if key.node == ENTRIES => values.first(),
        _ => None,
    })
}

fn setting_mut(script: &mut Script) -> Option<&mut Value> {
    script.init.iter_mut().find_map(|statement| match statement {
        Statement::Setting(Argument { key: Some(key), values }) if key.node == ENTRIES => {
            values.first_mut().map(|value| &mut value.node)
        }
        _ => None,
    })
}

fn count(value: &Spanned<Value>) -> Result<u64, Problem> {
    match &value.node {
        Value::Number(number) if (1..=i128::from(MOST_ENTRIES)).contains(number) => Ok(*number as u64),
        Value::Number(number) => {
            Err(Problem::NumberRange { found: number.to_string(), least: 1, most: MOST_ENTRIES.into() })
        }
        other => Err(Problem::Unexpected { expected: "a number".to_owned(), found: format!("`{other}`") }),
    }
}
