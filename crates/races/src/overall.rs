//! What several variants say together: a place is needed if one of them shows it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::needed::{Asked, Place};
use crate::report::MemoryOrder;

/// What the variants of one race, or of several, say of a place, or of two together.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Overall {
    /// One or two.
    pub places: Vec<Place>,
    /// What all say together.
    pub standing: Standing,
    /// How many variants, each under one memory order, came to the place.
    pub asked: usize,
    /// Where it is needed, and what breaks without it.
    pub needed_by: Vec<NeededBy>,
    /// How many could not be decided.
    pub undecided: usize,
}

/// A variant that needs a place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct NeededBy {
    /// The file, as the user named it.
    pub file: String,
    /// The variant.
    pub variant: Option<String>,
    /// The memory order.
    pub memory: MemoryOrder,
    /// The rule that is broken.
    pub breaks: String,
}

/// Whether a place is needed at all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Some variant breaks a rule without it.
    Needed,
    /// No variant does, and all were decided.
    NotNeeded,
    /// No variant is known to, and not all were decided.
    NotDecided,
}

impl Standing {
    /// In a word or two.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Needed => "needed",
            Self::NotNeeded => "not needed",
            Self::NotDecided => "not decided",
        }
    }
}

/// Puts the answers about variants together: places in the order of the source, then pairs. Of a pair of which one is needed by itself, nothing is said.
pub fn overall(asked: &[Asked]) -> Vec<Overall> {
    let mut places: BTreeMap<(usize, Vec<Place>), Overall> = BTreeMap::new();
    for (asked, need) in asked.iter().flat_map(|asked| asked.needs.iter().map(move |need| (asked, need))) {
        let entry = places.entry((need.places.len(), need.places.clone())).or_insert_with(|| Overall {
            places: need.places.clone(),
            standing: Standing::NotNeeded,
            asked: 0,
            needed_by: Vec::new(),
            undecided: 0,
        });
        entry.asked += 1;
        match need.needed {
            Some(true) => entry.needed_by.push(NeededBy {
                file: asked.file.clone(),
                variant: asked.variant.clone(),
                memory: asked.memory,
                breaks: need.breaks.clone().unwrap_or_default(),
            }),
            Some(false) => {}
            None => entry.undecided += 1,
        }
        entry.standing = match (entry.needed_by.is_empty(), entry.undecided) {
            (false, _) => Standing::Needed,
            (true, 0) => Standing::NotNeeded,
            (true, _) => Standing::NotDecided,
        };
    }
    let needed_alone: Vec<Place> = places
        .values()
        .filter(|overall| overall.places.len() == 1 && overall.standing == Standing::Needed)
        .map(|overall| overall.places[0].clone())
        .collect();
    let is_said = |overall: &Overall| {
        overall.places.len() == 1 || overall.places.iter().all(|place| !needed_alone.contains(place))
    };
    let mut all: Vec<Overall> = places.into_values().filter(is_said).collect();
    all.sort_by(|one, other| {
        let key = |overall: &Overall| {
            let places =
                overall.places.iter().map(|place| (place.file.clone(), place.line, place.column, place.what.clone()));
            (overall.places.len(), places.collect::<Vec<_>>())
        };
        key(one).cmp(&key(other))
    });
    all
}
