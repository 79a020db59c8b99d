//! What a variant line chooses.

use super::choices::{self, Choices, Named};
use super::guards::Step;
use super::setup::{self, Setup};
use crate::arguments;
use crate::error::{Error, Problem};
use crate::machine_options::{self, MachineOptions};
use crate::race::Race;
use crate::source::Spanned;
use crate::syntax::{Argument, Mode, Value};

/// Key of the rules that are not held.
const TOLERATE: &str = "tolerate";
/// Key of the steps that are left out.
const WITHOUT: &str = "without";
/// The most rounds that a variant can ask for.
const MOST_ROUNDS: u64 = 8;

/// What a variant line chooses.
pub(super) fn choose(race: &Race, arguments: &[Argument], setup: &mut Setup) -> Result<Choices, Error> {
    let mode = race.litmus.mode.node;
    let mut choices = if mode == Mode::MmPae { Choices::PAE } else { Choices::LONG_MODE };
    for argument in arguments {
        let Some(key) = &argument.key else {
            let problem = Problem::Unexpected { expected: "key=value".into(), found: argument.to_string() };
            return Err(Error::new(&race.source, argument.span(), problem));
        };
        if key.node == crate::orders::KEY {
            // `crate::orders` reads it.
            continue;
        }
        if key.node == TOLERATE {
            for value in &argument.values {
                setup.tolerated.push(setup::tolerated(race, value)?);
            }
            continue;
        }
        if key.node == machine_options::KEY {
            setup.machine = MachineOptions::read(race, &argument.values)?;
            continue;
        }
        if key.node == WITHOUT {
            for value in &argument.values {
                choices.without.add(arguments::named(race, WITHOUT, value, &Step::NAMES)?);
            }
            continue;
        }
        let [value] = &argument.values[..] else {
            let problem = Problem::Unexpected { expected: format!("one value for `{key}`"), found: "several".into() };
            return Err(Error::new(&race.source, argument.span(), problem));
        };
        if !(set(race, key, value, &mut choices.read)?
            || set(race, key, value, &mut choices.recheck)?
            || set(race, key, value, &mut choices.write)?
            || set(race, key, value, &mut choices.flush)?
            || set(race, key, value, &mut choices.remote)?
            || set(race, key, value, &mut choices.lifetime)?
            || set(race, key, value, &mut choices.freed_tables)?
            || set(race, key, value, &mut choices.publish)?
            || set(race, key, value, &mut choices.special)?
            || set(race, key, value, &mut choices.special_check)?)
        {
            if key.node != "rounds" {
                let known = [
                    choices::Read::KEY,
                    choices::Check::KEY,
                    choices::Write::KEY,
                    choices::FlushTime::KEY,
                    choices::Remote::KEY,
                    choices::Lifetime::KEY,
                    choices::FreedTables::KEY,
                    choices::Link::KEY,
                    choices::SpecialMark::KEY,
                    choices::SpecialLevels::KEY,
                    WITHOUT,
                    machine_options::KEY,
                    "rounds",
                    TOLERATE,
                ];
                let known = known.map(str::to_owned).to_vec();
                return Err(Error::new(
                    &race.source,
                    key.span,
                    Problem::Unknown { what: "choice", found: key.node.clone(), known },
                ));
            }
            choices.rounds = arguments::number(race, value, MOST_ROUNDS)? as u32;
        }
        if choices.write.is_of_long_mode() == (mode == Mode::MmPae) {
            let why = format!("no {mode} machine writes entries like this");
            let right = if mode == Mode::MmPae { "write=two-step or write=xchg64" } else { "write=whole" };
            return Err(Error::new(&race.source, argument.span(), Problem::Impossible { why, right: right.into() }));
        }
        if choices.write.saves_dirty() && choices.special == choices::SpecialMark::High {
            let why = "bit 58 says that an entry is dirty, and cannot say that it is special".to_owned();
            return Err(Error::new(
                &race.source,
                argument.span(),
                Problem::Impossible { why, right: "special=low".into() },
            ));
        }
    }
    Ok(choices)
}

/// Sets a choice, if the key is its.
fn set<T: Named>(race: &Race, key: &Spanned<String>, value: &Spanned<Value>, choice: &mut T) -> Result<bool, Error> {
    if key.node != T::KEY {
        return Ok(false);
    }
    *choice = arguments::named(race, T::KEY, value, T::VALUES)?;
    Ok(true)
}
