//! What the lab says of the question that the load `torn` counts answers to.

use boot::{Mode, Report};
use races::{MemoryOrder, Options, Race, VariantReport, Witnesses};
use serde::Serialize;

/// What the lab says of a reader, beside what was counted.
#[derive(Serialize)]
pub(super) struct Beside {
    pub(super) reader: &'static str,
    pub(super) mixtures: u64,
    pub(super) per_million: f64,
    pub(super) lab: String,
}

/// The readers of the load `torn`: the count's name, what it is called, and the variant of the seed's race that asks about it. Of a word that is read whole there is
/// one, whatever instruction does.
const READERS: [(&str, &str, &str); 5] = [
    ("read_once", "read-once", "read-once"),
    ("low_high_low", "low-high-low", "low-high-low"),
    ("cmpxchg8b", "cmpxchg8b", "cmpxchg8b"),
    ("movq", "movq", "cmpxchg8b"),
    ("sequence", "sequence-count", "sequence-count"),
];

/// The lab's verdicts on what the load `torn` counted. Only where an entry is read in halves.
pub(super) fn beside_the_lab(report: &Report) -> Vec<Beside> {
    let torn = report.results.iter().find(|counted| counted.load == "torn");
    let Some(torn) = torn.filter(|_| report.mode == Mode::Pae.name()) else { return Vec::new() };
    let Ok(race) = Race::find("pae-zap-refault") else { return Vec::new() };
    let options = Options {
        memory: Some(MemoryOrder::Tso),
        variants: READERS.iter().map(|reader| reader.2.to_owned()).collect(),
        witnesses: Witnesses::Skipped,
        ..Options::default()
    };
    let mut verdicts: Vec<VariantReport> = Vec::new();
    races::decide(&[race], &options, |report| verdicts.push(report));
    let reads = torn.counts.get("reads_each").copied().unwrap_or(0).max(1);
    let readers = READERS.iter().filter_map(|&(count, reader, variant)| {
        let mixtures = *torn.counts.get(count)?;
        let verdict = verdicts.iter().find(|report| report.variant.as_deref() == Some(variant))?;
        let lab = match &verdict.rule {
            Some(rule) => format!("breaks {rule} in {} steps", verdict.steps.unwrap_or(0)),
            None => verdict.verdict.name().to_owned(),
        };
        Some(Beside { reader, mixtures, per_million: mixtures as f64 * 1e6 / reads as f64, lab })
    });
    readers.collect()
}
