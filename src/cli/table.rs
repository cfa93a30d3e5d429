//! A table that fits.

use super::print::{Paint, Print, clean, cut};

/// One field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// What it says.
    pub text: String,
    /// In which colour.
    pub paint: Paint,
}

impl Cell {
    /// A field without colour.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), paint: Paint::None }
    }
}

/// The narrowest a last column gets; on a terminal that is narrower still, lines wrap.
const NARROWEST: usize = 12;

/// Lays out rows, the first of which is the head: columns as wide as their widest field, two
/// spaces apart, and the last one cut where `width` ends.
#[must_use]
pub fn lay_out(rows: &[Vec<Cell>], width: Option<usize>, print: &Print) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widest = |column: usize| {
        let texts = rows.iter().filter_map(|row| row.get(column));
        texts.map(|cell| clean(&cell.text).chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(widest).collect();
    let before_last: usize = widths.iter().rev().skip(1).map(|width| width + 2).sum();
    let room = width.map(|width| width.saturating_sub(before_last).max(NARROWEST));
    rows.iter().map(|row| line(row, &widths, room, print)).collect()
}

fn line(row: &[Cell], widths: &[usize], room: Option<usize>, print: &Print) -> String {
    let mut line = String::new();
    // What is not there needs no spaces before it.
    let end = row.iter().rposition(|cell| !cell.text.is_empty()).map_or(0, |last| last + 1);
    for (column, cell) in row[..end].iter().enumerate() {
        let text = clean(&cell.text).replace(['\n', '\t'], " ");
        if column + 1 == widths.len() {
            let text = room.map_or_else(|| text.clone(), |room| cut(&text, room));
            line.push_str(&print.paint(cell.paint, &text));
        } else {
            line.push_str(&print.paint(cell.paint, &text));
            if column + 1 < end {
                let spaces = widths[column] + 2 - text.chars().count();
                line.extend(std::iter::repeat_n(' ', spaces));
            }
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::session::Environment;

    fn rows() -> Vec<Vec<Cell>> {
        [
            ["USER", "STATE", "NOTE"],
            ["alice", "up", ""],
            ["bob", "cooling", "exited with status 1, 3rd time in a row"],
        ]
        .iter()
        .map(|row| row.iter().map(|text| Cell::new(*text)).collect())
        .collect()
    }

    fn plain() -> Print {
        Print::new(&Environment::read())
    }

    #[test]
    fn a_table_is_whole_where_nobody_limits_it() {
        assert_eq!(
            lay_out(&rows(), None, &plain()),
            ["USER   STATE    NOTE", "alice  up", "bob    cooling  exited with status 1, 3rd time in a row",]
        );
    }

    #[test]
    fn a_narrow_terminal_cuts_the_last_column_only() {
        let lines = lay_out(&rows(), Some(30), &plain());
        assert_eq!(lines[2], "bob    cooling  exited with s…");
        assert_eq!(lines[2].chars().count(), 30);
        let lines = lay_out(&rows(), Some(5), &plain());
        assert_eq!(lines[2], "bob    cooling  exited with…");
    }

    #[test]
    fn a_field_with_a_line_in_it_stays_in_its_line() {
        let rows = vec![vec![Cell::new("a\nb"), Cell::new("c\x1b[0m")]];
        assert_eq!(lay_out(&rows, None, &plain()), ["a b  c\u{fffd}[0m"]);
    }
}
