//! Writing to the terminal: text, JSON and small tables. A closed pipe is no reason to panic.

use crate::failure::Failure;
use serde::Serialize;
use std::io::Write;

/// Writes to standard output.
pub fn say(text: &str) -> Result<(), Failure> {
    let text = text.trim_end().to_owned() + "\n";
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::Closed),
        Err(error) => Err(Failure::new(format!("cannot write to standard output: {error}"))),
    }
}

/// Writes to standard error; there is nowhere to complain if that fails.
pub fn complain(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Writes a value as JSON to standard output.
pub fn say_json(value: &impl Serialize) -> Result<(), Failure> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?;
    say(&text)
}

/// Where a column's cells stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A table of a few columns, aligned by spaces.
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these column heads.
    pub fn new<'a>(columns: impl IntoIterator<Item = (&'a str, Align)>) -> Table {
        let columns = columns.into_iter().map(|(head, align)| (head.to_owned(), align)).collect();
        Table { columns, rows: Vec::new() }
    }

    /// Adds a row; cells that are left out are empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// The table as text, a line a row.
    pub fn render(&self) -> String {
        let heads: Vec<String> = self.columns.iter().map(|(head, _)| head.clone()).collect();
        let width = |column: usize| {
            std::iter::once(&heads)
                .chain(&self.rows)
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..heads.len()).map(width).collect();
        let mut text = String::new();
        for row in std::iter::once(&heads).chain(&self.rows) {
            let mut line = String::new();
            for (column, &width) in widths.iter().enumerate() {
                let cell = row.get(column).map_or("", String::as_str);
                let gap = " ".repeat(width - cell.chars().count());
                match self.columns[column].1 {
                    Align::Left => line += &format!("{cell}{gap}  "),
                    Align::Right => line += &format!("{gap}{cell}  "),
                }
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

/// A count with four significant digits and a unit prefix: `1.500 M`.
pub fn si(value: f64) -> String {
    // A difference of what is equal may be a little below 0.
    let value = if value.abs() < 0.5 { 0.0 } else { value };
    for (factor, prefix) in [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")] {
        if value.abs() >= factor {
            let scaled = value / factor;
            let digits = match scaled.abs() {
                100.0.. => 1,
                10.0.. => 2,
                _ => 3,
            };
            return format!("{scaled:.digits$} {prefix}");
        }
    }
    format!("{value:.0} ")
}

/// `1 kernel`, `2 kernels`.
pub fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// A number of bytes: `1.500 MB`.
pub fn bytes(value: f64) -> String {
    format!("{}B", si(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align() {
        let mut table = Table::new([("name", Align::Left), ("n", Align::Right)]);
        table.row(["a", "12"]);
        table.row(["long", "3"]);
        assert_eq!(table.render(), "name   n\na     12\nlong   3\n");
    }

    #[test]
    fn numbers_keep_four_digits() {
        assert_eq!(si(1_500_000.0), "1.500 M");
        assert_eq!(si(2_985_400_000.0), "2.985 G");
        assert_eq!(si(12.0), "12 ");
        assert_eq!(bytes(123_400.0), "123.4 kB");
    }
}
