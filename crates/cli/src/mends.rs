//! Which single change of a broken variant closes the race: read off the verdicts of its siblings.

use std::collections::BTreeMap;

use races::syntax::Variant;
use races::{Race, VariantReport, Verdict};

/// Changes of one protocol choice, as the file writes them: `reader=cmpxchg8b`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Mends {
    /// With one of these the race is safe under every memory order that was decided.
    pub(crate) closing: Vec<String>,
    /// With one of these it is still broken.
    pub(crate) failing: Vec<String>,
}

/// What the variants that differ from `broken` in exactly one choice say.
pub(crate) fn mends(race: &Race, broken: &VariantReport, reports: &[VariantReport]) -> Mends {
    let variants = &race.litmus.variants;
    let mut mends = Mends::default();
    let Some(base) = variants.iter().find(|variant| broken.variant.as_deref() == Some(variant.name.node.as_str()))
    else {
        return mends;
    };
    for variant in variants {
        let [change] = &changes(base, variant)[..] else { continue };
        let verdicts = verdicts(variant, reports);
        if verdicts.contains(&Verdict::Violation) {
            mends.failing.push(change.clone());
        } else if !verdicts.is_empty() && verdicts.iter().all(|verdict| *verdict == Verdict::Safe) {
            mends.closing.push(change.clone());
        }
    }
    mends
}

fn verdicts(variant: &Variant, reports: &[VariantReport]) -> Vec<Verdict> {
    let name = Some(variant.name.node.as_str());
    reports.iter().filter(|report| report.variant.as_deref() == name).map(|report| report.verdict).collect()
}

/// The choices in which `to` differs from `from`, as `to` writes them.
fn changes(from: &Variant, to: &Variant) -> Vec<String> {
    let (before, after) = (choices(from), choices(to));
    let added = after.iter().filter(|(key, choice)| before.get(*key) != Some(choice)).map(|(_, choice)| choice.clone());
    let dropped = before.keys().filter(|key| !after.contains_key(*key)).map(|key| format!("{key} left out"));
    added.chain(dropped).collect()
}

fn choices(variant: &Variant) -> BTreeMap<String, String> {
    let entry = |choice: &races::syntax::Argument| {
        let text = choice.to_string();
        let key = choice.key.as_ref().map_or_else(|| text.clone(), |key| key.node.clone());
        (key, text)
    };
    variant.choices.iter().map(entry).collect()
}
