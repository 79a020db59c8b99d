//! Text that is put into a file without moving a line, and whose it is.

use std::ops::Range;

use super::list::Id;

/// What comes first where several pieces go to the same place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Rank {
    /// Ends what began before: the innermost first.
    Close,
    /// Begins a statement.
    Statement,
    /// Begins an expression: the outermost first.
    Open,
    /// Takes the place of a token.
    Replace,
}

/// A piece of new text.
struct Piece {
    /// What it takes the place of; mostly nothing.
    old: Range<usize>,
    rank: Rank,
    text: String,
    /// Parts of `text` that belong to one mutant alone.
    owned: Vec<(Range<usize>, Id)>,
}

/// Text with mutants in it, as it is put together.
#[derive(Default)]
pub(super) struct Text {
    text: String,
    owned: Vec<(Range<usize>, Id)>,
}

impl Text {
    pub(super) fn push(mut self, text: &str) -> Self {
        self.text.push_str(text);
        self
    }

    /// Text that is there for one mutant: a compiler's error in it is that mutant's.
    pub(super) fn push_of(mut self, id: Id, text: &str) -> Self {
        let start = self.text.len();
        self.text.push_str(text);
        self.owned.push((start..self.text.len(), id));
        self
    }

    /// This, then `more`.
    pub(super) fn then(mut self, more: Self) -> Self {
        let start = self.text.len();
        self.text.push_str(&more.text);
        self.owned.extend(more.owned.into_iter().map(|(range, id)| (start + range.start..start + range.end, id)));
        self
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::default().push(text)
    }
}

/// A part of the new file that is there for some mutants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) range: Range<usize>,
    pub(super) ids: Vec<Id>,
}

/// A file with its pieces in it.
pub(super) struct Spliced {
    pub(super) text: String,
    pub(super) owned: Vec<Owned>,
}

/// The pieces for one file. Those that open are to be added from the outside in, those that close from the inside out.
#[derive(Default)]
pub(super) struct Splices {
    pieces: Vec<Piece>,
    /// Old ranges that were rewritten as a whole, and for whom.
    sites: Vec<(Range<usize>, Vec<Id>)>,
}

impl Splices {
    pub(super) fn insert(&mut self, at: usize, rank: Rank, text: impl Into<Text>) {
        self.replace(at..at, rank, text);
    }

    pub(super) fn replace(&mut self, old: Range<usize>, rank: Rank, text: impl Into<Text>) {
        let Text { text, owned } = text.into();
        assert!(!text.contains('\n'), "lines stay where they are");
        self.pieces.push(Piece { old, rank, text, owned });
    }

    /// Remembers that `old` was rewritten for `ids`: an error in it that is nobody's own is theirs.
    pub(super) fn site(&mut self, old: Range<usize>, ids: Vec<Id>) {
        self.sites.push((old, ids));
    }

    /// The file with everything in it.
    pub(super) fn into_text(mut self, source: &str) -> Spliced {
        self.pieces.sort_by_key(|piece| (piece.old.start, piece.rank));
        let mut text = String::with_capacity(source.len() * 2);
        let mut owned = Vec::new();
        let mut done = 0;
        // Where what was at an old offset begins now, before and after the pieces that were put there.
        let mut moved = vec![(0, 0)];
        for piece in &self.pieces {
            text.push_str(&source[done..piece.old.start]);
            moved.push((piece.old.start, text.len()));
            owned.extend(
                piece.owned.iter().map(|(range, id)| Owned {
                    range: text.len() + range.start..text.len() + range.end,
                    ids: vec![*id],
                }),
            );
            text.push_str(&piece.text);
            done = piece.old.end;
            moved.push((done, text.len()));
        }
        text.push_str(&source[done..]);
        let first = |at: usize| {
            let known = moved.partition_point(|(old, _)| *old < at);
            let (old, new) = moved.get(known).filter(|(old, _)| *old == at).unwrap_or(&moved[known - 1]);
            new + (at - old)
        };
        let last = |at: usize| {
            let (old, new) = moved[moved.partition_point(|(old, _)| *old <= at) - 1];
            new + (at - old)
        };
        for (old, ids) in self.sites {
            let start = if old.start == 0 { 0 } else { first(old.start) };
            owned.push(Owned { range: start..last(old.end), ids });
        }
        Spliced { text, owned }
    }
}
