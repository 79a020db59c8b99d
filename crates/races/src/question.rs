//! What is asked about final states, with every name resolved: places are numbers, values are bits.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::Error;
use crate::report::{FinalState, Observation};
use crate::source::Spanned;
use crate::syntax::{Litmus, Place, Proposition, Quantifier, Relation, Value};

/// Gives meaning to the names in conditions. The order in which [`Self::place`] is called is the order of a
/// [`crate::scenario::Reader`]'s answer.
pub(crate) trait Names {
    /// Makes `place` the next observed one, and says how its bits are printed.
    ///
    /// # Errors
    /// There is no such place.
    fn place(&mut self, place: &Spanned<Place>) -> Result<Show, Error>;

    /// The bits of a place that holds `value`.
    ///
    /// # Errors
    /// The place can hold no such value.
    fn value(&self, place: &Spanned<Place>, value: &Spanned<Value>) -> Result<u64, Error>;
}

/// Prints the bits of a place.
pub(crate) type Show = Arc<dyn Fn(u64) -> String + Send + Sync>;

/// What is asked about the final states of a file.
#[derive(Clone)]
pub(crate) struct Question {
    /// Every place that a reader reads. The first `shown` tell final states apart; the filter names the others.
    places: Vec<(Place, Show)>,
    shown: usize,
    filter: Option<Formula>,
    condition: Option<(Quantifier, Formula)>,
}

/// A [`Proposition`] over the numbers of places.
#[derive(Clone)]
enum Formula {
    Constant(Truth),
    Compare { place: usize, relation: Relation, bits: u64 },
    Not(Box<Self>),
    And(Vec<Self>),
    Or(Vec<Self>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Truth {
    True,
    False,
}

impl Question {
    /// Resolves the names of the file's condition, `locations` and filter.
    ///
    /// # Errors
    /// The first name or value that does not exist.
    pub(crate) fn new(litmus: &Litmus, names: &mut impl Names) -> Result<Self, Error> {
        let mut places: Vec<&Spanned<Place>> = litmus.observed();
        let shown = places.len();
        if let Some(filter) = &litmus.filter {
            filter.for_each_place(&mut |place| {
                if !places.contains(&place) {
                    places.push(place);
                }
            });
        }
        let mut shows = Vec::new();
        for place in &places {
            shows.push(names.place(place)?);
        }
        let formula = |proposition| Formula::new(proposition, &places, names);
        let filter = litmus.filter.as_ref().map(formula).transpose()?;
        let condition = match &litmus.condition {
            Some(condition) => Some((condition.quantifier.node, formula(&condition.proposition)?)),
            None => None,
        };
        let places = places.into_iter().map(|place| place.node.clone()).zip(shows).collect();
        Ok(Self { places, shown, filter, condition })
    }

    /// Whether final states matter at all.
    pub(crate) fn asks_something(&self) -> bool {
        self.shown > 0 || self.condition.is_some()
    }

    /// The quantifier, if there is a condition.
    pub(crate) fn quantifier(&self) -> Option<Quantifier> {
        self.condition.as_ref().map(|(quantifier, _)| *quantifier)
    }

    fn counts(&self, state: &[u64]) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.holds(state))
    }

    /// Whether a run to this final state is what a reader wants to see: it satisfies what is asked for, or breaks what is claimed.
    pub(crate) fn is_witness(&self, state: &[u64]) -> bool {
        self.counts(state)
            && self.condition.as_ref().is_some_and(|(quantifier, formula)| match quantifier {
                Quantifier::Exists | Quantifier::NotExists => formula.holds(state),
                Quantifier::Forall => !formula.holds(state),
            })
    }

    /// The answer, given everything that a reader read.
    pub(crate) fn answer(&self, states: &BTreeSet<Vec<u64>>) -> Answer {
        // States that differ only in what the filter names are one.
        let mut distinct: Vec<&[u64]> = Vec::new();
        for state in states.iter().filter(|state| self.counts(state)) {
            let shown = state.get(..self.shown).unwrap_or(state);
            if !distinct.contains(&shown) {
                distinct.push(shown);
            }
        }
        let finals: Vec<FinalState> = distinct
            .into_iter()
            .map(|state| FinalState {
                values: state
                    .iter()
                    .zip(&self.places)
                    .map(|(bits, (place, show))| (place.to_string(), show(*bits)))
                    .collect(),
                satisfies: self.condition.as_ref().is_none_or(|(_, formula)| formula.holds(state)),
            })
            .collect();
        let positive = finals.iter().filter(|state| state.satisfies).count();
        let observation = self.condition.as_ref().map(|_| Observation::of(positive, finals.len() - positive));
        Answer { observation, finals }
    }
}

/// The final states of a file and what its condition makes of them.
pub(crate) struct Answer {
    /// `None` without a condition.
    pub(crate) observation: Option<Observation>,
    /// In the order of their values.
    pub(crate) finals: Vec<FinalState>,
}

impl Answer {
    /// Whether what `quantifier` claims of all final states is true. `exists` claims nothing.
    pub(crate) fn keeps_claim(&self, quantifier: Quantifier) -> bool {
        match quantifier {
            Quantifier::Exists => true,
            Quantifier::NotExists => self.finals.iter().all(|state| !state.satisfies),
            Quantifier::Forall => self.finals.iter().all(|state| state.satisfies),
        }
    }
}

impl Formula {
    fn new(proposition: &Proposition, places: &[&Spanned<Place>], names: &impl Names) -> Result<Self, Error> {
        let part = |inner: &Proposition| Self::new(inner, places, names);
        Ok(match proposition {
            Proposition::True => Self::Constant(Truth::True),
            Proposition::False => Self::Constant(Truth::False),
            Proposition::Compare { place, relation, value } => {
                let bits = names.value(place, value)?;
                match places.iter().position(|known| *known == place) {
                    Some(index) => Self::Compare { place: index, relation: *relation, bits },
                    None => Self::Constant(Truth::False),
                }
            }
            Proposition::Not(inner) => Self::Not(Box::new(part(inner)?)),
            Proposition::And(parts) => Self::And(parts.iter().map(part).collect::<Result<_, _>>()?),
            Proposition::Or(parts) => Self::Or(parts.iter().map(part).collect::<Result<_, _>>()?),
            Proposition::Implies(left, right) => Self::Or(vec![Self::Not(Box::new(part(left)?)), part(right)?]),
        })
    }

    fn holds(&self, state: &[u64]) -> bool {
        match self {
            Self::Constant(truth) => *truth == Truth::True,
            Self::Compare { place, relation, bits } => relation.holds(state.get(*place) == Some(bits)),
            Self::Not(inner) => !inner.holds(state),
            Self::And(parts) => parts.iter().all(|part| part.holds(state)),
            Self::Or(parts) => parts.iter().any(|part| part.holds(state)),
        }
    }
}
