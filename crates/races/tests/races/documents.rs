//! What README.md and GRAMMAR.md show is what there is: their examples are decided as they say, and every name that a file
//! of operations may use is explained.

use races::{Options, Problem, Race, Source};

const README: &str = include_str!("../../README.md");
const GRAMMAR: &str = include_str!("../../GRAMMAR.md");

fn examples() -> Vec<&'static str> {
    let blocks = |text: &'static str| text.split("```litmus\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks(README).chain(blocks(GRAMMAR)).collect()
}

#[test]
fn examples_are_decided_as_they_say() {
    let read = |text: &&str| Race::new(Source::new("example", *text)).unwrap_or_else(|e| panic!("{}", e.one_line()));
    let races: Vec<Race> = examples().iter().map(read).collect();
    assert_eq!(races.len(), 3);
    let mut answers = 0;
    races::decide(&races, &Options::default(), |report| {
        assert_eq!(
            report.as_expected,
            Some(true),
            "{} {:?} {:?}: {:?} {:?}",
            report.race,
            report.variant,
            report.memory,
            report.verdict,
            report.message
        );
        answers += 1;
    });
    assert_eq!(answers, 4 + 2 + 1);
}

/// The names that would have been right in the place of `nonsense`.
fn known(init: &str, cell: &str, choice: &str, expectation: &str) -> Vec<String> {
    let text = format!(
        "MM_X86_64 t\n{{ frame A = 0x1234; file f = A; area x file=f; {init} }}\n\
         P0;\n {cell} ;\nvariant v : rounds=1{choice} => {expectation}\n"
    );
    let error = Race::new(Source::new("nonsense", text.clone())).err().unwrap_or_else(|| panic!("accepted:\n{text}"));
    match error.problem() {
        Problem::Unknown { known, .. } => known.clone(),
        Problem::Value { right, .. } => right.split(", ").map(str::to_owned).collect(),
        other => panic!("another problem: {other}\n{text}"),
    }
}

#[test]
fn every_name_is_explained() {
    let choices = known("", "touch(x)", ", nonsense=1", "?");
    let mut names = choices.clone();
    names.extend(known("nonsense=1;", "touch(x)", "", "?"));
    names.extend(known("nonsense y;", "touch(x)", "", "?"));
    names.extend(known("", "nonsense(x)", "", "?"));
    names.extend(known("", "touch(x)", "", "nonsense"));
    for choice in choices.iter().filter(|choice| *choice != "rounds" && *choice != "tolerate") {
        names.extend(known("", "touch(x)", &format!(", {choice}=nonsense"), "?"));
    }
    assert!(names.len() > 50, "{names:?}");
    let explained = |name: &String| {
        let start = format!("`{name}");
        README.match_indices(&start).any(|(at, _)| {
            README[at + start.len()..]
                .starts_with(|next: char| !next.is_ascii_alphanumeric() && next != '-' && next != '_')
        }) || README.contains(&format!("`r = {name}("))
    };
    let missing: Vec<&String> = names.iter().filter(|name| !explained(name)).collect();
    assert!(missing.is_empty(), "README.md does not explain {missing:?}");
}
