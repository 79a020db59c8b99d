//! Runs SPIN: makes a verifier of a model, compiles it, runs it, and reads what it says.

use std::process::{Command, Output};
use std::{fmt, fs, io};

use tempfile::TempDir;

/// Why SPIN gave no answer.
#[derive(Debug)]
pub(crate) enum Problem {
    /// A program is not there.
    Missing { program: &'static str, package: &'static str },
    /// It cannot be started, or a file not be written.
    Io { what: String, error: io::Error },
    /// It ended with an error.
    Failed { program: &'static str, output: String },
    /// The verifier's output has no such line.
    Unreadable { line: &'static str, output: String },
    /// The model gets stuck: a mistake in the model, not an answer.
    Stuck { output: String },
    /// The search was cut.
    NotExhausted { output: String },
    /// The catalogue has no such file any more.
    NoSuchRace(&'static str),
    /// The lab did not decide a variant.
    NoAnswerOfTheLab { race: String, why: String },
    /// The table cannot be written.
    Print(io::Error),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { program, package } => {
                write!(f, "`{program}` is not installed (Debian: apt-get install {package})")
            }
            Self::Io { what, error } => write!(f, "{what}: {error}"),
            Self::Failed { program, output } => write!(f, "`{program}` failed:\n{output}"),
            Self::Unreadable { line, output } => write!(f, "no line `{line}` in what the verifier says:\n{output}"),
            Self::Stuck { output } => write!(f, "the model gets stuck; that is a mistake in it:\n{output}"),
            Self::NotExhausted { output } => write!(f, "the verifier's search was cut:\n{output}"),
            Self::NoSuchRace(name) => write!(f, "the catalogue has no file {name}"),
            Self::NoAnswerOfTheLab { race, why } => write!(f, "the lab did not decide {race}: {why}"),
            Self::Print(error) => write!(f, "cannot write the table: {error}"),
        }
    }
}

/// What a verifier found.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Found {
    pub(crate) is_assertion_violated: bool,
    pub(crate) states: u64,
    pub(crate) transitions: u64,
}

/// How a verifier is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Built {
    /// Quickly: making one takes longer than running it on a small model.
    ForOneVerdict,
    /// Optimised, and without partial-order reduction, so that the graph is the whole one.
    /// Its hash table and its stack, which it clears before it begins, are as large as so many states need: much larger ones would only cost it time.
    ForSpeed { states: u64 },
}

/// SPIN and a C compiler, both there.
pub(crate) struct Spin {
    _private: (),
}

impl Spin {
    /// # Errors
    /// If `spin` or `gcc` cannot be started.
    pub(crate) fn find() -> Result<Self, Problem> {
        for (program, argument, package) in [("spin", "-V", "spin"), ("gcc", "--version", "gcc")] {
            match Command::new(program).arg(argument).output() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(Problem::Missing { program, package });
                }
                started => {
                    drop(started.map_err(|error| Problem::Io { what: format!("cannot start {program}"), error })?)
                }
            }
        }
        Ok(Self { _private: () })
    }

    /// Explores a model with these lines in front of it, until an assertion is violated or nothing is left. Returns also the seconds of processor time that the
    /// verifier's run took, without making it.
    ///
    /// # Errors
    /// If there is no answer. A model that gets stuck is no answer.
    pub(crate) fn decide(&self, definitions: &str, model: &str) -> Result<(Found, f64), Problem> {
        let Verifier { folder, command: pan } = self.make(Built::ForOneVerdict, definitions, model)?;
        let words: Vec<_> =
            [pan.get_program()].into_iter().chain(pan.get_args()).map(|word| word.to_string_lossy()).collect();
        // The shell says how much processor time its children took; SPIN's own clock is the one on the wall.
        let command = format!("{}; status=$?; times; exit $status", words.join(" "));
        let output = run("pan", Command::new("sh").args(["-c", &command]).current_dir(folder.path()))?;
        Ok((read(&output)?, processor_seconds(&output)?))
    }

    /// Makes a verifier of a model with these lines in front of it.
    ///
    /// # Errors
    /// If the model is wrong, or something cannot be written.
    pub(crate) fn make(&self, built: Built, definitions: &str, model: &str) -> Result<Verifier, Problem> {
        let io = |what: &str| {
            let what = what.to_owned();
            |error| Problem::Io { what, error }
        };
        let folder = tempfile::tempdir().map_err(io("cannot make a folder for the verifier"))?;
        let path = folder.path();
        fs::write(path.join("model.pml"), format!("{definitions}{model}")).map_err(io("cannot write the model"))?;
        run("spin", Command::new("spin").args(["-a", "model.pml"]).current_dir(path))?;
        let (flags, bounds): (&[&str], [String; 2]) = match built {
            Built::ForOneVerdict => (&["-O0"], ["-m1000000".to_owned(), "-w18".to_owned()]),
            Built::ForSpeed { states } => {
                let bounds = [format!("-m{}", (states + 1000).min(40_000_000)), format!("-w{}", states.ilog2() + 1)];
                (&["-O2", "-DNOREDUCE"], bounds)
            }
        };
        run("gcc", Command::new("gcc").args(flags).args(["-w", "-DSAFETY", "-o", "pan", "pan.c"]).current_dir(path))?;
        let mut command = Command::new(path.join("pan"));
        command.args(bounds).current_dir(path);
        Ok(Verifier { folder, command })
    }
}

/// A verifier that SPIN has made.
pub(crate) struct Verifier {
    /// Where it is.
    pub(crate) folder: TempDir,
    /// Runs it.
    pub(crate) command: Command,
}

fn run(program: &'static str, command: &mut Command) -> Result<String, Problem> {
    let output: Output =
        command.output().map_err(|error| Problem::Io { what: format!("cannot start {program}"), error })?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(text) } else { Err(Problem::Failed { program, output: text }) }
}

/// Reads what a verifier has written. How long it took is not there.
pub(crate) fn read(output: &str) -> Result<Found, Problem> {
    if output.contains("max search depth too small")
        || output.contains("Search not completed") && output.contains("errors: 0")
    {
        return Err(Problem::NotExhausted { output: output.to_owned() });
    }
    if output.contains("pan:1: invalid end state") {
        return Err(Problem::Stuck { output: output.to_owned() });
    }
    let number = |line: &'static str| {
        let before = output.lines().find_map(|text| text.trim_end().strip_suffix(line));
        let before = before.and_then(|text| whole_number(text.trim()));
        before.ok_or_else(|| Problem::Unreadable { line, output: output.to_owned() })
    };
    Ok(Found {
        is_assertion_violated: output.contains("assertion violated"),
        states: number("states, stored")?,
        transitions: number("transitions (= stored+matched)")?,
    })
}

/// A count as the verifier prints it: from 100 million on it has eight digits and an exponent, `1.5783427e+08`.
fn whole_number(text: &str) -> Option<u64> {
    let (digits, exponent) = text.split_once("e+").unwrap_or((text, "0"));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let zeros = exponent.parse::<usize>().ok()?.checked_sub(fraction.len())?;
    format!("{whole}{fraction}").parse::<u64>().ok()?.checked_mul(10_u64.checked_pow(zeros.try_into().ok()?)?)
}

/// The last such line: `0m1.234000s 0m0.050000s`, user and system time of what the shell started.
fn processor_seconds(output: &str) -> Result<f64, Problem> {
    let of = |word: &str| {
        let (minutes, seconds) = word.strip_suffix('s')?.split_once('m')?;
        Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
    };
    let mut lines = output.lines().rev().filter(|line| !line.trim().is_empty());
    let sum = lines.find_map(|line| line.split_whitespace().map(of).sum::<Option<f64>>());
    sum.ok_or_else(|| Problem::Unreadable { line: "0m0s 0m0s", output: output.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_with_and_without_an_exponent() {
        assert_eq!(whole_number("443768"), Some(443_768));
        assert_eq!(whole_number("1.5783427e+08"), Some(157_834_270));
        assert_eq!(whole_number("3.687784e+08"), Some(368_778_400));
        assert_eq!(whole_number("1e+08"), Some(100_000_000));
        for wrong in ["", "1.5", "1.5783427e+03", "1e+99", "many"] {
            assert_eq!(whole_number(wrong), None, "{wrong}");
        }
    }
}
