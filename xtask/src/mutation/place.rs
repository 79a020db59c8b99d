//! From line and column to the byte.

use super::list::Place;

/// Where the lines of a text begin.
pub(super) struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(super) fn of(text: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// The byte at a place; `None` where there is no such place.
    pub(super) fn offset(&self, place: Place) -> Option<usize> {
        let start = *self.starts.get(place.line.checked_sub(1)?)?;
        let column = place.column.checked_sub(1)?;
        let mut offsets =
            self.text[start..].char_indices().map(|(at, _)| at).chain(std::iter::once(self.text.len() - start));
        offsets.nth(column).map(|at| start + at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_characters() {
        let lines = Lines::of("a\nbäc\n");
        let offset = |line, column| lines.offset(Place { line, column });
        assert_eq!([offset(1, 1), offset(2, 1), offset(2, 3), offset(2, 4)], [Some(0), Some(2), Some(5), Some(6)]);
        assert_eq!([offset(0, 1), offset(9, 1), offset(1, 0)], [None; 3]);
    }
}
