//! Whatever a file holds, reading it gives a test or an error that points into the file. Nothing panics.

use proptest::collection::vec;
use proptest::prelude::*;
use races::{Race, Source};

/// What mutations insert: pieces that mean something somewhere.
const PIECES: [&str; 44] = [
    "(*",
    "*)",
    "\"",
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    ";",
    "|",
    ",",
    ":",
    "=",
    "=>",
    "~",
    "/\\",
    "\\/",
    "$",
    "%",
    "+",
    "-",
    "*",
    "\n",
    " ",
    "0",
    "1",
    "0x",
    "99999999999999999999",
    "-9223372036854775809",
    "x",
    "P0",
    "P7",
    "0:rax",
    "rax",
    "lock",
    "movq",
    "exists",
    "forall",
    "variant",
    "memory",
    "int",
    "é",
    "\u{0}",
];

#[derive(Clone, Debug)]
enum Mutation {
    Delete(prop::sample::Index, usize),
    Insert(prop::sample::Index, &'static str),
    Repeat(prop::sample::Index, usize, usize),
    Exchange(prop::sample::Index, prop::sample::Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let place = any::<prop::sample::Index>;
    prop_oneof![
        (place(), 1_usize..12).prop_map(|(at, length)| Mutation::Delete(at, length)),
        (place(), prop::sample::select(PIECES.to_vec())).prop_map(|(at, piece)| Mutation::Insert(at, piece)),
        (place(), 1_usize..30, 1_usize..4).prop_map(|(at, length, times)| Mutation::Repeat(at, length, times)),
        (place(), place()).prop_map(|(one, other)| Mutation::Exchange(one, other)),
    ]
}

fn apply(text: &mut Vec<char>, mutation: &Mutation) {
    if text.is_empty() {
        return;
    }
    match mutation {
        Mutation::Delete(at, length) => {
            let start = at.index(text.len());
            text.drain(start..(start + length).min(text.len()));
        }
        Mutation::Insert(at, piece) => {
            let start = at.index(text.len());
            text.splice(start..start, piece.chars());
        }
        Mutation::Repeat(at, length, times) => {
            let start = at.index(text.len());
            let piece: Vec<char> = text[start..(start + length).min(text.len())].to_vec();
            text.splice(start..start, piece.repeat(*times));
        }
        Mutation::Exchange(one, other) => {
            let (one, other) = (one.index(text.len()), other.index(text.len()));
            text.swap(one, other);
        }
    }
}

fn texts() -> Vec<&'static str> {
    const OPERATIONS: &str = "MM_PAE story\n\"A quote.\"\nKey=value\n{ cpus=2; memory=sc,tso; frame A=0x12_3456;\n  \
         file f = A B; area x file=f offset=0 at=0x4000_0000 rights=rw shared; }\n\
         P0 | P1 ;\n r0 = gup_fast(x, flags=pin|write) | zap(x+0x1000) ;\n | touch(x) ;\n\
         variant a : read=low-high-low, memory=tso => phantom-frame | wrong-page \"why\"\n\
         variant b => safe\nvariant c => ?\nexists (0:r0=1 /\\ ~(x!=3))\n";
    races::catalogue::entries().map(|entry| entry.text).chain([OPERATIONS]).collect()
}

fn read(text: String) {
    let lines = text.split('\n').count();
    let source = Source::new("mutated", text);
    if let Err(error) = Race::new(source) {
        let place = error.position();
        assert!((1..=lines).contains(&place.line), "line {} of {lines}", place.line);
        assert!(!error.to_string().is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutations_of_valid_files(text in prop::sample::select(texts()), mutations in vec(mutation(), 1..5)) {
        let mut text: Vec<char> = text.chars().collect();
        mutations.iter().for_each(|mutation| apply(&mut text, mutation));
        read(text.into_iter().collect());
    }

    #[test]
    fn anything_after_a_heading(mode in "(X86|X86_64|MM_PAE|MM_LA57) t\n", text in ".{0,200}") {
        read(mode + &text);
    }

    #[test]
    fn pieces_after_a_heading(
        mode in "(X86|X86_64|MM_PAE) t\n",
        pieces in vec(prop::sample::select(PIECES.to_vec()), 0..40),
    ) {
        read(mode + &pieces.concat());
    }
}

#[test]
fn every_prefix_of_a_valid_file() {
    for text in texts() {
        for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
            read(text[..end].to_owned());
        }
    }
}
