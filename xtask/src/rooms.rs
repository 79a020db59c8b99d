//! Which room may know which: the table in `docs/architecture.md` is the rule, and a test holds the workspace to it.
#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::cargo::{cargo, output, workspace};

/// What `cargo metadata` says, as far as it matters here.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `dev`, `build`, or nothing for an ordinary one.
    kind: Option<String>,
}

/// One row of the table.
#[derive(Debug)]
struct Room {
    /// Packages of ours that it may depend on.
    may_know: BTreeSet<String>,
    /// Packages of ours that only its tests may depend on.
    tests_may_know: BTreeSet<String>,
    outside: Outside,
}

/// Which crates of other people it may depend on.
#[derive(Debug, PartialEq, Eq)]
enum Outside {
    None,
    Any,
}

/// The rows `| room | package | may know | its tests also | outside crates | ...`; package names are given without `fastgup-`.
fn read_table(text: &str) -> BTreeMap<String, Room> {
    let names = |cell: &str| cell.split(['`', ',', ' ']).filter(|name| !name.is_empty()).map(full_name).collect();
    let mut rooms = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [_, package, may_know, tests_may_know, outside, ..] = cells[..] else { panic!("a short row: {line}") };
        let list = |cell| if cell == "nothing" { BTreeSet::new() } else { names(cell) };
        let room = Room {
            may_know: list(may_know),
            tests_may_know: list(tests_may_know),
            outside: match outside {
                "none" => Outside::None,
                "any" => Outside::Any,
                other => panic!("outside crates are `none` or `any`, not `{other}`: {line}"),
            },
        };
        assert!(rooms.insert(full_name(package.trim_matches('`')), room).is_none(), "two rows for {package}");
    }
    rooms
}

fn full_name(short: &str) -> String {
    match short {
        "xtask" | "fastgup" => short.to_owned(),
        room => format!("fastgup-{room}"),
    }
}

/// The arrows that the table does not draw.
fn forbidden(rooms: &BTreeMap<String, Room>, packages: &[Package]) -> Vec<String> {
    let ours: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let mut found = Vec::new();
    for package in packages {
        let Some(room) = rooms.get(&package.name) else {
            found.push(format!("{} has no row in docs/architecture.md", package.name));
            continue;
        };
        for dependency in &package.dependencies {
            let is_for_tests = dependency.kind.as_deref() == Some("dev");
            let is_drawn = if ours.contains(dependency.name.as_str()) {
                room.may_know.contains(&dependency.name)
                    || is_for_tests && room.tests_may_know.contains(&dependency.name)
            } else {
                is_for_tests || room.outside == Outside::Any
            };
            if !is_drawn {
                found.push(format!("{} must not know {}", package.name, dependency.name));
            }
        }
    }
    for name in rooms.keys().filter(|name| !ours.contains(name.as_str())) {
        found.push(format!("docs/architecture.md has a row for {name}, which does not exist"));
    }
    found
}

#[test]
fn arrows_point_down_only() {
    let table =
        std::fs::read_to_string(workspace().join("docs/architecture.md")).expect("the architecture is written down");
    let rooms = read_table(&table);
    let metadata = output(cargo(&workspace()).args(["metadata", "--no-deps", "--format-version", "1", "--offline"]))
        .expect("cargo metadata runs");
    let metadata: Metadata = serde_json::from_str(&metadata).expect("cargo metadata prints JSON");
    assert!(metadata.packages.len() > 5, "these are all our packages");
    assert_eq!(forbidden(&rooms, &metadata.packages), Vec::<String>::new());
}

#[test]
fn an_arrow_that_points_up_is_found() {
    let rooms = read_table(
        "| `crates/machine` | `machine` | nothing | nothing | none | x |\n\
         | `crates/mm` | `mm` | `machine` | `lab` | none | x |\n\
         | `crates/lab` | `lab` | `machine` | nothing | any | x |\n",
    );
    let package = |name: &str, dependencies: &[(&str, Option<&str>)]| Package {
        name: name.into(),
        dependencies: dependencies
            .iter()
            .map(|(name, kind)| Dependency { name: (*name).into(), kind: kind.map(str::to_owned) })
            .collect(),
    };
    let check = |mm: &[(&str, Option<&str>)]| {
        forbidden(
            &rooms,
            &[package("fastgup-machine", &[]), package("fastgup-mm", mm), package("fastgup-lab", &[("serde", None)])],
        )
    };
    assert_eq!(check(&[("fastgup-machine", None), ("fastgup-lab", Some("dev")), ("proptest", Some("dev"))]), [""; 0]);
    assert_eq!(check(&[("fastgup-lab", None)]), ["fastgup-mm must not know fastgup-lab"]);
    assert_eq!(check(&[("serde", None)]), ["fastgup-mm must not know serde"]);
    assert_eq!(
        forbidden(&rooms, &[package("fastgup-new", &[])]).len(),
        4,
        "a package without a row, and three rows without a package"
    );
}
