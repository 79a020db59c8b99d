//! Under which memory orders a file is decided, and what it expects under each.

use crate::error::{Error, Problem};
use crate::race::Race;
use crate::report::{MemoryOrder, Observation};
use crate::source::{Span, Spanned};
use crate::syntax::{Argument, Body, Statement, Value, Variant};

/// The key of the init block and of variants: `memory=sc,tso`.
pub(crate) const KEY: &str = "memory";

/// The info line that says what a file without variants expects under a memory order: `TSO=Sometimes`.
const fn info_key(order: MemoryOrder) -> &'static str {
    match order {
        MemoryOrder::Sc => "SC",
        MemoryOrder::Tso => "TSO",
    }
}

/// The memory orders that the file asks for, `sc` first: those of the variant, or else of the init block, or else of the
/// info lines, or else TSO.
///
/// # Errors
/// Something else than `sc` and `tso` is written there.
pub(crate) fn of(race: &Race, variant: Option<&Variant>) -> Result<Vec<MemoryOrder>, Error> {
    let mut orders = match &race.litmus.body {
        Body::Instructions(_) => of_info_lines(race)?,
        Body::Operations(script) => {
            let of_variant = variant.and_then(|variant| variant.choices.iter().find(|choice| is_order(choice)));
            let of_file = || {
                script.init.iter().find_map(|statement| match statement {
                    Statement::Setting(setting) if is_order(setting) => Some(setting),
                    _ => None,
                })
            };
            match of_variant.or_else(of_file) {
                Some(setting) => named(race, setting)?,
                None if variant.is_none() => of_info_lines(race)?,
                None => Vec::new(),
            }
        }
    };
    if orders.is_empty() {
        orders.push(MemoryOrder::Tso);
    }
    orders.sort_unstable();
    orders.dedup();
    Ok(orders)
}

fn of_info_lines(race: &Race) -> Result<Vec<MemoryOrder>, Error> {
    let mut orders = Vec::new();
    for order in MemoryOrder::ALL {
        orders.extend(expected_observation(race, order)?.map(|_| order));
    }
    Ok(orders)
}

fn is_order(argument: &Argument) -> bool {
    argument.key.as_ref().is_some_and(|key| key.node == KEY)
}

fn named(race: &Race, setting: &Argument) -> Result<Vec<MemoryOrder>, Error> {
    let one = |value: &Spanned<Value>| {
        let order = match &value.node {
            Value::Name(name) => MemoryOrder::named(name),
            Value::Number(_) | Value::Offset(..) => None,
        };
        order.ok_or_else(|| wrong(race, value.span, KEY, value.to_string(), &MemoryOrder::ALL.map(MemoryOrder::name)))
    };
    setting.values.iter().map(one).collect()
}

fn wrong(race: &Race, span: Span, what: &str, found: String, right: &[&str]) -> Error {
    Error::new(&race.source, span, Problem::Value { what: what.to_owned(), found, right: right.join(", ") })
}

/// What the info lines of a file without variants expect under a memory order.
///
/// # Errors
/// Something else than an observation is written there.
pub(crate) fn expected_observation(race: &Race, order: MemoryOrder) -> Result<Option<Observation>, Error> {
    let key = info_key(order);
    let Some(value) = race.litmus.info(key) else { return Ok(None) };
    match Observation::named(&value.node) {
        Some(observation) => Ok(Some(observation)),
        None => {
            let found = value.node.clone();
            Err(wrong(race, value.span, key, found, &Observation::ALL.map(Observation::name)))
        }
    }
}
