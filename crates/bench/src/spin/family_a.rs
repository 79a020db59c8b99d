//! Which definitions make a question of family A out of the Promela model: the choices of a variant by their names, and the columns of the file.

use races::syntax::{Value, Variant};
use races::{MemoryOrder, Race};

/// The model.
pub(super) const MODEL: &str = include_str!("family_a.pml");

/// A file of the catalogue, as the model asks it.
pub(super) struct File {
    pub(super) name: &'static str,
    /// What breaks the rule that the file is about.
    rule: &'static str,
    /// What the second and the third CPU do; the first one is the reader.
    cpu1: &'static str,
    cpu2: &'static str,
    /// More definitions.
    also: &'static [&'static str],
}

/// Files that the model does not ask, and why.
pub(super) const NOT_MODELLED: [(&str, &str); 1] =
    [("pae-pmd-reuse", "needs a collapse, and page tables that are allocated and given back: the model has one entry")];

const PHANTOM: &str = "RULE_PHANTOM_FRAME";
const IDLE: &str = "skip";

pub(super) const FILES: [File; 8] = [
    File { name: "pae-atomic-writer", rule: PHANTOM, cpu1: "zap(1)", cpu2: "touch(2)", also: &[] },
    File {
        name: "pae-four-threads",
        rule: PHANTOM,
        cpu1: "replace(1, X); replace(1, Y)",
        cpu2: "touch(2); touch(2)",
        also: &[],
    },
    File {
        name: "pae-how-many",
        rule: PHANTOM,
        cpu1: "do :: round < ROUNDS -> zap(1); touch(1); round++ :: else -> break od",
        cpu2: IDLE,
        also: &[],
    },
    File { name: "pae-pmd-populate", rule: PHANTOM, cpu1: "touch(1)", cpu2: IDLE, also: &["STARTS_UNMAPPED"] },
    File { name: "pae-pmd-readonce", rule: PHANTOM, cpu1: "zap(1)", cpu2: IDLE, also: &[] },
    File { name: "pae-special-dword", rule: "RULE_SPECIAL_PINNED", cpu1: "zap(1)", cpu2: "touch(2)", also: &[] },
    File { name: "pae-torn-recheck", rule: "RULE_WRONG_PAGE", cpu1: "zap(1)", cpu2: "touch(2); zap(2)", also: &[] },
    File { name: "pae-zap-refault", rule: PHANTOM, cpu1: "zap(1)", cpu2: "touch(2)", also: &[] },
];

impl File {
    /// The lines in front of the model. Choices that a variant does not make have the engine's defaults, as the model has them.
    pub(super) fn definitions(&self, race: &Race, variant: &str, order: MemoryOrder) -> String {
        let mut lines = vec![format!("#define CPU1 {}", self.cpu1), format!("#define CPU2 {}", self.cpu2)];
        let words = [self.rule].into_iter().chain(self.also.iter().copied());
        lines.extend(words.map(|word| format!("#define {word}")));
        if order == MemoryOrder::Tso {
            lines.push("#define TSO".to_owned());
        }
        let variant = race.litmus.variants.iter().find(|known| known.name.node == variant);
        lines.extend(variant.into_iter().flat_map(choices));
        lines.push(String::new());
        lines.join("\n")
    }
}

/// `read=low-high-low` is `READ_LOW_HIGH_LOW`, and `rounds=2` is `ROUNDS 2`.
fn choices(variant: &Variant) -> Vec<String> {
    let mut lines = Vec::new();
    for argument in &variant.choices {
        let Some(key) = &argument.key else { continue };
        let key = macro_name(&key.node);
        for value in &argument.values {
            lines.push(match &value.node {
                Value::Number(number) => format!("#define {key} {number}"),
                word => format!("#define {key}_{}", macro_name(&word.to_string())),
            });
        }
    }
    lines
}

fn macro_name(word: &str) -> String {
    word.replace('-', "_").to_uppercase()
}
