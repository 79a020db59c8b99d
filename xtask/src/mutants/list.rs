//! The list of edits.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::judge::NoticedBy;

/// One edit that makes the engine wrong.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Mutant {
    /// What it is called on the command line.
    pub(super) name: String,
    /// What goes wrong, in a few words.
    pub(super) breaks: String,
    /// The source file, from the folder of the workspace.
    pub(super) file: String,
    /// The text to replace; it must be there exactly once.
    pub(super) find: String,
    /// What to put there.
    pub(super) replace: String,
    /// Who must notice.
    pub(super) noticed_by: NoticedBy,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    mutant: Vec<Mutant>,
}

/// Reads the list.
///
/// # Errors
/// It cannot be read, is not such a list, two edits share a name, or an edit changes nothing.
pub(super) fn read_list(path: &Path) -> Result<Vec<Mutant>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let List { mutant: mutants } = toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
    let mut names = HashSet::new();
    for mutant in &mutants {
        ensure!(names.insert(mutant.name.as_str()), "{}: two edits are called {}", path.display(), mutant.name);
        ensure!(mutant.find != mutant.replace, "{}: edit {} changes nothing", path.display(), mutant.name);
    }
    Ok(mutants)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Mutant>> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), text).expect("it can be written");
        read_list(file.path())
    }

    const ONE: &str = "[[mutant]]\nname = 'a'\nbreaks = 'b'\nfile = 'f'\nfind = 'x'\nreplace = 'y'\n";

    #[test]
    fn both_kinds_of_judge_are_read() {
        let race = read(&format!("{ONE}noticed_by = {{ race = 'r', rule = 'wrong-page' }}")).expect("it is good");
        assert_eq!(race[0].noticed_by, NoticedBy::Race { race: "r".into(), rule: "wrong-page".into() });
        let test = read(&format!("{ONE}noticed_by = {{ package = 'p', test = 't' }}")).expect("it is good");
        assert_eq!(test[0].noticed_by, NoticedBy::Test { package: "p".into(), test: "t".into() });
    }

    #[test]
    fn bad_lists_are_refused() {
        let judge = "noticed_by = { package = 'p', test = 't' }\n";
        for bad in [
            ONE.to_owned(),
            format!("{ONE}noticed_by = {{ race = 'r' }}"),
            format!("{ONE}{judge}surplus = 1"),
            format!("{ONE}{judge}{ONE}{judge}"),
            format!("{}{judge}", ONE.replace("'y'", "'x'")),
        ] {
            assert!(read(&bad).is_err(), "{bad}");
        }
    }
}
