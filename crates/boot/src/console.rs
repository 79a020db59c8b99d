//! What the kernel says: lines that begin with `@fastgup ` and go on with one JSON object, and lines for people.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

const MARK: &str = "@fastgup ";

/// One line of the kernel for programs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// It runs.
    Boot {
        /// The paging mode.
        mode: String,
        /// CPUs that run.
        cpus: u32,
        /// Bytes of memory.
        memory: u64,
    },
    /// How far a load is.
    Progress {
        /// Which.
        load: String,
        /// Operations so far.
        done: u64,
        /// Operations in all.
        of: u64,
    },
    /// What a load, or the self-check, counted.
    Result(Counted),
    /// A trap that should not be.
    Fault(Fault),
    /// Something that should not be, or a refusal.
    Panic {
        /// In a sentence.
        message: String,
    },
    /// The last line.
    End {
        /// Whether everything is well.
        ok: bool,
    },
}

/// What a load counted.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Counted {
    /// Which load.
    pub load: String,
    /// Whether what it claims held.
    pub ok: bool,
    /// The counts, by their names in the kernel's README.
    #[serde(flatten)]
    pub counts: BTreeMap<String, u64>,
}

/// Why a machine stopped, and where it was.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fault {
    /// In a sentence.
    pub message: String,
    /// By name, in hexadecimal.
    pub registers: BTreeMap<String, String>,
    /// Entries that a walk for the address reads, the root's first.
    pub walk: Vec<String>,
}

/// One line.
#[derive(Clone, PartialEq, Debug)]
pub enum Line {
    /// For programs.
    Event(Event),
    /// For programs, but not understood.
    Garbled(String),
    /// For people.
    Text(String),
}

impl Line {
    /// Understands a line.
    pub fn of(text: &str) -> Self {
        let text = text.trim_end_matches(['\r', '\n']);
        match text.find(MARK).map(|at| &text[at + MARK.len()..]) {
            None => Self::Text(text.to_owned()),
            Some(json) => serde_json::from_str(json).map_or_else(|_| Self::Garbled(text.to_owned()), Self::Event),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_and_written_alike() {
        let lines = [
            r#"{"event":"boot","mode":"pae","cpus":4,"memory":536870912}"#,
            r#"{"event":"progress","load":"torn","done":10,"of":100}"#,
            r#"{"event":"result","load":"torn","ok":true,"changes":7,"reads_each":25}"#,
            r#"{"event":"fault","message":"unexpected trap 14","registers":{"eax":"0x1"},"walk":["pmd 0x80"]}"#,
            r#"{"event":"panic","message":"this CPU has no PAE"}"#,
            r#"{"event":"end","ok":false}"#,
        ];
        for json in lines {
            let Line::Event(event) = Line::of(&format!("{MARK}{json}\r\n")) else { panic!("not understood: {json}") };
            assert_eq!(serde_json::to_string(&event).expect("it can be written"), json);
        }
    }

    #[test]
    fn what_is_not_understood_is_kept() {
        assert_eq!(Line::of("hello\r\n"), Line::Text("hello".to_owned()));
        for garbled in ["@fastgup {", "@fastgup {\"event\":\"unheard of\"}", "@fastgup "] {
            assert_eq!(Line::of(garbled), Line::Garbled(garbled.to_owned()));
        }
        // A line of another CPU was cut in two by an event.
        assert_eq!(Line::of("hel@fastgup {\"event\":\"end\",\"ok\":true}"), Line::Event(Event::End { ok: true }));
    }
}
