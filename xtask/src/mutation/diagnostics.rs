//! Whose fault is an error of the compiler?

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;

use super::list::Id;
use super::splice::Owned;

/// A line of cargo's JSON.
#[derive(Deserialize)]
pub(super) struct Line {
    reason: String,
    message: Option<Message>,
}

#[derive(Deserialize)]
struct Message {
    level: String,
    message: String,
    spans: Vec<Span>,
}

#[derive(Deserialize)]
struct Span {
    file_name: String,
    byte_start: usize,
    byte_end: usize,
    is_primary: bool,
}

/// An error, and who caused it.
pub(super) struct Blame {
    pub(super) ids: Vec<Id>,
    pub(super) message: String,
}

/// The errors that cargo's output names.
pub(super) fn blames(output: &str, owned: &BTreeMap<String, Vec<Owned>>) -> Vec<Blame> {
    let lines = output.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let messages = lines.filter(|line| line.reason == "compiler-message").filter_map(|line| line.message);
    messages
        .filter(|message| message.level == "error" && !message.spans.is_empty())
        .map(|message| Blame { ids: culprits(&message, owned), message: message.message })
        .collect()
}

fn culprits(message: &Message, owned: &BTreeMap<String, Vec<Owned>>) -> Vec<Id> {
    // Where the error is comes first, then what its notes point at.
    let (primary, other): (Vec<_>, Vec<_>) = message.spans.iter().partition(|span| span.is_primary);
    let spans = || primary.iter().chain(&other);
    let owned = |span: &Span| owned.get(&span.file_name).map_or(&[][..], |owned| owned);
    let around = spans().find_map(|span| smallest_around(owned(span), &(span.byte_start..span.byte_end)));
    around
        .or_else(|| spans().find_map(|span| inside(owned(span), &(span.byte_start..span.byte_end))))
        .unwrap_or_default()
}

fn smallest_around(owned: &[Owned], error: &Range<usize>) -> Option<Vec<Id>> {
    let around = owned.iter().filter(|part| part.range.start <= error.start && error.end <= part.range.end);
    around.min_by_key(|part| part.range.len()).map(|part| part.ids.clone())
}

fn inside(owned: &[Owned], error: &Range<usize>) -> Option<Vec<Id>> {
    let inside = owned.iter().filter(|part| error.start <= part.range.start && part.range.end <= error.end);
    let ids: Vec<Id> = inside.flat_map(|part| part.ids.clone()).collect();
    (!ids.is_empty()).then_some(ids)
}
