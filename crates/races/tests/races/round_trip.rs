//! Printing a litmus test and parsing what was printed gives the same test.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use races::parse::parse;
use races::syntax::*;
use races::{Source, Span, Spanned};

fn here<T>(node: T) -> Spanned<T> {
    Spanned::new(node, Span::default())
}

/// Words that no rule of the grammar takes for something else.
fn name() -> impl Strategy<Value = String> {
    "[a-z_][a-z0-9_]{0,6}".prop_filter("a keyword", |word| {
        !["exists", "forall", "not", "true", "false", "locations", "filter", "variant", "lock", "safe"]
            .contains(&word.as_str())
            && !["int", "char", "long"].contains(&word.as_str())
            && Register::named(word).is_none()
    })
}

fn dashed() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9]{0,3}(-[a-z0-9]{1,4}){0,2}".prop_filter("a keyword", |word| {
        !["exists", "forall", "not", "true", "false", "locations", "filter", "variant", "safe"].contains(&word.as_str())
    })
}

fn number() -> impl Strategy<Value = i128> {
    prop_oneof![(-9_i128..9), any::<u64>().prop_map(i128::from), any::<i64>().prop_map(i128::from)]
}

fn value(word: BoxedStrategy<String>) -> impl Strategy<Value = Spanned<Value>> {
    prop_oneof![
        number().prop_map(Value::Number),
        word.clone().prop_map(Value::Name),
        (word, any::<u32>()).prop_map(|(name, offset)| Value::Offset(name, offset.into())),
    ]
    .prop_map(here)
}

fn register() -> impl Strategy<Value = Register> {
    let part = prop_oneof![Just(Part::Low), Just(Part::Word), Just(Part::Long), Just(Part::Quad)];
    (0_u8..16, part).prop_map(|(number, part)| Register { number, part })
}

fn place() -> impl Strategy<Value = Spanned<Place>> {
    prop_oneof![
        (0_u32..4, register()).prop_map(|(cpu, register)| Place::Register { cpu, name: register.to_string() }),
        name().prop_map(Place::Location),
        (name(), any::<u64>()).prop_map(|(name, index)| Place::Element(name, index)),
    ]
    .prop_map(here)
}

fn proposition() -> impl Strategy<Value = Proposition> {
    let relation = prop_oneof![Just(Relation::Equal), Just(Relation::NotEqual)];
    let leaf = prop_oneof![
        Just(Proposition::True),
        Just(Proposition::False),
        (place(), relation, value(name().boxed())).prop_map(|(place, relation, value)| Proposition::Compare {
            place,
            relation,
            value
        }),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|one| Proposition::Not(Box::new(one))),
            vec(inner.clone(), 2..4).prop_map(Proposition::And),
            vec(inner.clone(), 2..4).prop_map(Proposition::Or),
            (inner.clone(), inner).prop_map(|(left, right)| Proposition::Implies(Box::new(left), Box::new(right))),
        ]
    })
}

fn condition() -> impl Strategy<Value = Condition> {
    let quantifier = prop_oneof![Just(Quantifier::Exists), Just(Quantifier::NotExists), Just(Quantifier::Forall)];
    (quantifier, proposition())
        .prop_map(|(quantifier, proposition)| Condition { quantifier: here(quantifier), proposition })
}

fn argument(between_lists: usize) -> impl Strategy<Value = Argument> {
    let keyed = (dashed(), vec(value(dashed().boxed()), 1..=between_lists))
        .prop_map(|(key, values)| Argument { key: Some(here(key)), values });
    let lone = value(dashed().boxed()).prop_map(|value| Argument { key: None, values: vec![value] });
    prop_oneof![keyed, lone]
}

fn keyed() -> impl Strategy<Value = Argument> {
    (dashed(), vec(value(dashed().boxed()), 1..4)).prop_map(|(key, values)| Argument { key: Some(here(key)), values })
}

fn statement() -> impl Strategy<Value = Statement> {
    let declaration = (dashed(), dashed(), vec(value(dashed().boxed()), 0..3), vec(argument(3), 0..4)).prop_map(
        |(word, name, values, mut arguments)| {
            // A flag right after values would be one of them.
            if !values.is_empty() {
                arguments.retain(|argument| argument.key.is_some());
            }
            Statement::Declaration { word: here(word), name: here(name), values, arguments }
        },
    );
    prop_oneof![keyed().prop_map(Statement::Setting), declaration]
}

fn operation() -> impl Strategy<Value = Operation> {
    (option::of(dashed()), dashed(), vec(argument(3), 0..4)).prop_map(|(result, word, arguments)| Operation {
        result: result.map(here),
        word: here(word),
        arguments,
        span: Span::default(),
    })
}

fn variant() -> impl Strategy<Value = Variant> {
    let expectation = prop_oneof![
        Just(Expectation::Undecided),
        Just(Expectation::Safe),
        vec(dashed().prop_map(here), 1..3).prop_map(Expectation::Breaks),
    ];
    (dashed(), vec(keyed(), 0..3), expectation, option::of("[^\"]{0,20}")).prop_map(
        |(name, choices, expectation, explanation)| Variant {
            name: here(name),
            choices,
            expectation: here(expectation),
            explanation,
        },
    )
}

/// Operations differ in a span of their own, which says nothing about what was written.
fn without_spans(mut litmus: Litmus) -> Litmus {
    if let Body::Operations(script) = &mut litmus.body {
        let handlers = script.ipi.iter_mut().chain(&mut script.nmi);
        script.columns.iter_mut().flatten().chain(handlers).for_each(|operation| operation.span = Span::default());
    }
    litmus
}

fn frame(mode: Mode, body: Body, variants: Vec<Variant>) -> impl Strategy<Value = Litmus> {
    let info = ("[A-Za-z][A-Za-z0-9]{0,5}", "[!-~]([ -~]{0,10}[!-~])?").prop_map(|(key, text)| (here(key), here(text)));
    (
        "[A-Za-z0-9_+.-]{1,10}",
        vec("[^\"]{0,30}", 0..3),
        vec(info, 0..3),
        vec(place(), 0..3),
        option::of(proposition()),
        option::of(condition()),
    )
        .prop_map(move |(name, quotes, info, locations, filter, condition)| Litmus {
            mode: here(mode),
            name: here(name),
            quotes,
            info,
            body: body.clone(),
            variants: variants.clone(),
            locations,
            filter,
            condition,
        })
}

fn scripts() -> impl Strategy<Value = Litmus> {
    let mode = prop_oneof![
        Just(Mode::MmPae),
        Just(Mode::MmX86_64),
        Just(Mode::MmLa57),
        Just(Mode::EltPae),
        Just(Mode::EltX86_64)
    ];
    let handlers = (vec(operation(), 0..3), vec(operation(), 0..3));
    (mode, vec(statement(), 0..5), vec(vec(operation(), 0..4), 1..4), handlers, vec(variant(), 0..4)).prop_flat_map(
        |(mode, init, columns, (ipi, nmi), mut variants)| {
            variants.sort_by(|left, right| left.name.node.cmp(&right.name.node));
            variants.dedup_by(|left, right| left.name.node == right.name.node);
            frame(mode, Body::Operations(Script { init, columns, ipi, nmi }), variants)
        },
    )
}

/// Instructions are taken from a list of texts that the parser accepts: what they may be combined of is its business.
const CELLS: [&str; 22] = [
    "movq $1,(x)",
    "movl %eax,4(x)",
    "mov -8(%rax,%rbx,4),%r10",
    "movq $x,%rax",
    "movb %ah,(%rcx)",
    "lea x+16(%rbx),%rdx",
    "mfence",
    "lock addl $0xffffffff,(x)",
    "lock cmpxchgq %rbx,(x)",
    "xchg %rax,(x)",
    "lock; xaddw %ax,8(t)",
    "L: M: decq %rsi",
    "jne L",
    "setae %dil",
    "cmovgel (y),%ebp",
    "shrq %cl,(x)",
    "btsq %rax,(x)",
    "cmpq $-1,(y)",
    "notb %r8b",
    "nopw 0(%rax)",
    "ret",
    "N:",
];

fn programs() -> impl Strategy<Value = Litmus> {
    let ty =
        option::of(prop_oneof![Just(Type::Scalar(Scalar::Uint64)), Just(Type::Pointer(Scalar::Int32))].prop_map(here));
    let given = prop_oneof![
        Just(InitialValue::Zero),
        value(name().boxed()).prop_map(InitialValue::One),
        vec(value(name().boxed()), 1..4).prop_map(InitialValue::Many),
    ];
    let initial = (ty, place(), given).prop_map(|(ty, place, value)| Initial { ty, place, value });
    let cells = vec(proptest::sample::subsequence(CELLS.to_vec(), 0..CELLS.len()), 1..4);
    (vec(initial, 0..4), cells).prop_flat_map(|(init, cells)| {
        let mut columns = Vec::new();
        for mut column in cells {
            // What jumps go to must be there.
            if column.contains(&"jne L") && !column.contains(&"L: M: decq %rsi") {
                column.push("L: M: decq %rsi");
            }
            let text = format!("X86_64 t\n{{}}\nP0;\n{};\n", column.join(";\n"));
            let parsed = parse(&Source::new("cells", text)).expect("every cell is an instruction");
            let Body::Instructions(program) = parsed.body else { panic!("X86_64 has instructions") };
            columns.extend(program.columns);
        }
        frame(Mode::X86_64, Body::Instructions(Program { init, columns }), Vec::new())
    })
}

#[track_caller]
fn same_again(litmus: &Litmus) {
    let printed = litmus.to_string();
    let again =
        parse(&Source::new("printed", printed.clone())).unwrap_or_else(|e| panic!("{}\n{printed}", e.one_line()));
    assert_eq!(without_spans(again), without_spans(litmus.clone()), "{printed}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn of_operations(litmus in scripts()) {
        same_again(&litmus);
    }

    #[test]
    fn of_instructions(litmus in programs()) {
        same_again(&litmus);
    }
}

#[test]
fn of_the_catalogue() {
    for entry in races::catalogue::entries() {
        let litmus =
            parse(&Source::new(entry.path(), entry.text)).unwrap_or_else(|error| panic!("{}", error.one_line()));
        same_again(&litmus);
    }
}

#[test]
fn of_both_ways_of_writing_instructions() {
    let text = "X86 t\n{ x=1; }\nP0;\nMOV [x+4],$1;\nMOV EAX,[EBX+ECX*4-8];\nLOCK; CMPXCHG [x],ECX;\nXCHG [x],EAX;\n";
    same_again(&parse(&Source::new("intel", text)).expect("Intel's way"));
}
