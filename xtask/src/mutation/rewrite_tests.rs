//! A snippet of each genre, and what becomes of it. `on(N)` is short for `::machine::mutant::on(N)`.

use std::collections::HashSet;

use super::list::{Function, Genre, Id, Mutant, Place, Span};
use super::rewrite::{State, rewrite};

/// A mutant at the first occurrence of `at` in `source`.
fn mutant(source: &str, id: Id, genre: Genre, at: &str, replacement: &str) -> Mutant {
    let offset = source.find(at).expect(at);
    let line = source[..offset].matches('\n').count() + 1;
    let column = source[..offset].rsplit('\n').next().unwrap_or("").chars().count() + 1;
    let start = Place { line, column };
    Mutant {
        id,
        name: format!("{genre:?} {at} {replacement}"),
        package: "p".into(),
        file: "f".into(),
        function: Some(Function { function_name: "f".into(), return_type: String::new() }),
        genre,
        replacement: replacement.into(),
        span: Span { start, end: start },
    }
}

/// What is written, and the state of each mutant. A mutant is its genre, the text at its place, and its replacement; numbers count from 1.
fn rewritten(source: &str, mutants: &[(Genre, &str, &str)]) -> (String, Vec<State>) {
    let mutants: Vec<Mutant> =
        (1..).zip(mutants).map(|(id, (genre, at, replacement))| mutant(source, id, *genre, at, replacement)).collect();
    let (spliced, states) = rewrite(source, &mutants.iter().collect::<Vec<_>>(), &HashSet::new()).expect("it is Rust");
    assert!(syn::parse_file(&spliced.text).is_ok(), "{}", spliced.text);
    for (old, new) in source.lines().zip(spliced.text.lines()) {
        let name = |line: &str| line.split_once("// ").map(|(_, name)| name.to_owned());
        assert_eq!(name(old), name(new), "lines stay where they are");
    }
    assert_eq!(source.lines().count(), spliced.text.lines().count());
    (spliced.text.replace("::machine::mutant::on", "on"), states.into_values().collect())
}

fn expect(source: &str, mutants: &[(Genre, &str, &str)], wanted: &str) {
    let (text, states) = rewritten(source, mutants);
    assert_eq!(text, wanted);
    assert!(states.iter().all(|state| *state == State::Built) && states.len() == mutants.len(), "{states:?}");
}

#[test]
fn a_function_returns_at_once() {
    expect(
        "fn f() -> u8 {\n    g(); // two\n    3\n}\n",
        &[(Genre::FnValue, "g()", "0"), (Genre::FnValue, "g()", "1")],
        "fn f() -> u8 {\n    if on(1) { return 0; } if on(2) { return 1; } g(); // two\n    3\n}\n",
    );
}

#[test]
fn operators_on_values_choose_when_both_are_known() {
    expect(
        "fn f() -> u8 { a() & // first\n b() }\n",
        &[(Genre::BinaryOperator, "&", "|"), (Genre::BinaryOperator, "&", "^")],
        "fn f() -> u8 { (match ((a() ), ( // first\n b())) { (mutant_l, mutant_r) => if on(1) { mutant_l | mutant_r } else if on(2) { mutant_l ^ mutant_r } else { mutant_l & mutant_r } }) }\n",
    );
    expect(
        "fn f() -> bool { a < b }\n",
        &[(Genre::BinaryOperator, "<", ">=")],
        "fn f() -> bool { (match (&(a ), &( b)) { (mutant_l, mutant_r) => if on(1) { *mutant_l >= *mutant_r } else { *mutant_l < *mutant_r } }) }\n",
    );
}

#[test]
fn comparisons_and_lazy_operators_are_turned() {
    expect(
        "fn f() -> bool { a == b }\n",
        &[(Genre::BinaryOperator, "==", "!=")],
        "fn f() -> bool { ((a == b) ^ on(1)) }\n",
    );
    expect(
        "fn f() -> bool { a && b }\n",
        &[(Genre::BinaryOperator, "&&", "||")],
        "fn f() -> bool { (on(1) ^ ((on(1) ^ (a )) && (on(1) ^ ( b)))) }\n",
    );
}

/// What is written for `&&` and `||` does what it should, and evaluates what it should.
#[test]
fn turned_lazy_operators_are_the_other_ones() {
    for (a, b, on) in (0..8).map(|bits| (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0)) {
        let asked = std::cell::Cell::new(0);
        let ask = |value: bool| {
            asked.set(asked.get() + 1);
            value
        };
        let and = on ^ ((on ^ ask(a)) && (on ^ ask(b)));
        let asked_for_and = asked.replace(0);
        let wanted = if on { ask(a) || ask(b) } else { ask(a) && ask(b) };
        assert_eq!((and, asked_for_and), (wanted, asked.replace(0)), "{a} {b} {on}");
        let or = on ^ ((on ^ ask(a)) || (on ^ ask(b)));
        let asked_for_or = asked.replace(0);
        let wanted = if on { ask(a) && ask(b) } else { ask(a) || ask(b) };
        assert_eq!((or, asked_for_or), (wanted, asked.replace(0)), "{a} {b} {on}");
    }
}

#[test]
fn operators_nest() {
    expect(
        "fn f() -> bool { !a == b && c }\n",
        &[(Genre::UnaryOperator, "!", ""), (Genre::BinaryOperator, "==", "!="), (Genre::BinaryOperator, "&&", "||")],
        "fn f() -> bool { (on(3) ^ ((on(3) ^ ((((match ( a) { mutant_v => if on(1) { mutant_v } else { !mutant_v } }) == b) ^ on(2)) )) && (on(3) ^ ( c)))) }\n",
    );
}

#[test]
fn compound_assignments_are_copied() {
    expect(
        "fn f() { x.y += 1; }\n",
        &[(Genre::BinaryOperator, "+=", "-="), (Genre::BinaryOperator, "+=", "*=")],
        "fn f() { { if on(1) { x.y -= 1 } else if on(2) { x.y *= 1 } else { x.y += 1 } }; }\n",
    );
}

#[test]
fn arms_are_guarded() {
    expect(
        "fn f() { match x { 1 => a, 2 if b => c, _ => d } }\n",
        &[
            (Genre::MatchArm, "1 =>", ""),
            (Genre::MatchArm, "2 if", ""),
            (Genre::MatchArmGuard, "b =>", "true"),
            (Genre::MatchArmGuard, "b =>", "false"),
        ],
        "fn f() { match x { 1 if !on(1) => a, 2 if !on(2) && (on(3) || (!on(4) && (b))) => c, _ => d } }\n",
    );
}

#[test]
fn fields_come_from_the_base() {
    expect(
        "fn f() -> S { S { a: 1, b, ..*self } }\n",
        &[(Genre::StructField, "a: 1", ""), (Genre::StructField, "b,", "")],
        "fn f() -> S { S { a: if on(1) { (*self).a } else { 1 }, b: if on(2) { (*self).b } else { b }, ..*self } }\n",
    );
    expect(
        "fn f() -> S { S { a: 1, ..S::new() } }\n",
        &[(Genre::StructField, "a: 1", "")],
        "fn f() -> S { S { a: if on(1) { S { ..S::new() }.a } else { 1 }, ..S::new() } }\n",
    );
}

#[test]
fn what_cannot_be_there_is_said_and_left_as_it_is() {
    let constant = "const C: u8 = 1 << 2;\n";
    let (text, states) = rewritten(constant, &[(Genre::BinaryOperator, "<<", ">>")]);
    assert_eq!((text.as_str(), &states[..]), (constant, &[State::NotInBuild("in a constant".into())][..]));
    let chain = "fn f() { if let Some(x) = y && x { } }\n";
    let (text, states) = rewritten(chain, &[(Genre::BinaryOperator, "&&", "||")]);
    assert_eq!(text, chain);
    assert!(matches!(states[..], [State::NotViable(_)]), "{states:?}");
}

#[test]
fn errors_belong_to_the_smallest_part_around_them() {
    let source = "fn f() -> bool { a & b == c }\n";
    let one = mutant(source, 1, Genre::BinaryOperator, "&", "|");
    let other = mutant(source, 2, Genre::BinaryOperator, "&", "^");
    let outer = mutant(source, 3, Genre::BinaryOperator, "==", "!=");
    let (spliced, _) = rewrite(source, &[&one, &other, &outer], &HashSet::new()).expect("it is Rust");
    let owner = |part: &str| {
        let at = spliced.text.find(part).expect(part);
        let around = spliced.owned.iter().filter(|owned| owned.range.start <= at && at + part.len() <= owned.range.end);
        around.min_by_key(|owned| owned.range.len()).map(|owned| owned.ids.clone())
    };
    assert_eq!(owner("mutant_l | mutant_r"), Some(vec![1]));
    assert_eq!(owner("mutant_l ^ mutant_r"), Some(vec![2]));
    assert_eq!(owner("mutant_l & mutant_r"), Some(vec![1, 2]));
    assert_eq!(owner("== c"), Some(vec![3]));
    assert_eq!(owner("fn f"), None);
    let (spliced, _) = rewrite(source, &[&one, &other, &outer], &HashSet::from([1, 3])).expect("it is Rust");
    assert!(!spliced.text.contains("on(1)") && spliced.text.contains("on(2)") && !spliced.text.contains("on(3)"));
}
