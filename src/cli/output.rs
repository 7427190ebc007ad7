//! What goes to standard output: tables and lines.

use std::io::{self, Write as _};

/// Prints a text. A closed pipe (`| head`) is no failure of ours.
pub(super) fn print(text: &str) {
    let _closed = io::stdout().write_all(text.as_bytes());
}

/// Rows in columns, as wide as they have to be.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: [usize; N] = std::array::from_fn(|column| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
    });
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_have_to_be_and_lines_end_where_they_end() {
        let rows = [["NAME", "SIZE", ""], ["ä", "12345", "x"]].map(|row| row.map(String::from));
        assert_eq!(table(&rows), "NAME  SIZE\nä     12345  x\n");
        assert_eq!(table::<2>(&[]), "");
    }
}
