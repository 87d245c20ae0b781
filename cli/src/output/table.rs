//! Tables with aligned columns and pages of `Key: value` lines. Pure: the time is an argument.

use std::io::Write as _;
use std::time::SystemTime;

use tabwriter::TabWriter;

use crate::text;

/// The environment of a rendering.
#[derive(Debug, Clone)]
pub(crate) struct RenderContext {
    /// The reference time of ages.
    pub(crate) now: SystemTime,
    /// URL that gives printed URLs their scheme and port.
    pub(crate) proxy: String,
}

/// Width of a table in columns of the terminal, if its cells can be shortened to it.
const WIDTH: usize = 80;
/// Spaces between columns.
const PADDING: usize = 2;
/// Width below which no cell is shortened.
const MIN_CELL: usize = 10;

/// A heading and rows, with two spaces between columns. Cells other than the first, which names the
/// row, are shortened in the middle until the table fits; `-o json` has the whole text.
pub(crate) fn table(columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let rows = rows.into_iter();
    let rows = rows.map(|row| row.iter().map(|cell| text::clean(cell)).collect());
    let rows: Vec<Vec<String>> = rows.collect();
    let widths = fitting_widths(columns, &rows);
    let mut text = columns.join("\t");
    for row in rows {
        let cells = row.iter().zip(&widths);
        let cells: Vec<String> = cells.map(|(cell, width)| shortened(cell, *width)).collect();
        text.push('\n');
        text.push_str(&cells.join("\t"));
    }
    text.push('\n');
    align(&text)
}

/// The width of each column with which the table fits, the widest cut first.
fn fitting_widths(columns: &[&str], rows: &[Vec<String>]) -> Vec<usize> {
    let width = |text: &str| text.chars().count();
    let widest = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at));
        cells.map(|cell| width(cell)).max().unwrap_or(0)
    };
    let least: Vec<usize> = columns
        .iter()
        .map(|name| width(name).max(MIN_CELL))
        .collect();
    let mut widths: Vec<usize> = (0..columns.len())
        .map(|at| widest(at).max(width(columns[at])))
        .collect();
    for _ in 1..columns.len() {
        let total = widths.iter().sum::<usize>() + PADDING * (columns.len() - 1);
        let excess = total.saturating_sub(WIDTH);
        let cut = (1..columns.len()).filter(|&at| widths[at] > least[at]);
        let Some(cut) = cut.max_by_key(|&at| widths[at]).filter(|_| excess > 0) else {
            break;
        };
        widths[cut] = widths[cut].saturating_sub(excess).max(least[cut]);
    }
    widths
}

/// The text within `width` characters, with `…` for what is left out of its middle.
fn shortened(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(1);
    let head = kept - kept / 2;
    let start: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(length - kept / 2).collect();
    format!("{start}…{end}")
}

/// A page of `Key: value` lines in sections; the values of a section are aligned.
#[derive(Debug, Default)]
pub(crate) struct DetailPage {
    text: String,
    pending: String,
}

impl DetailPage {
    /// Adds `Key:  value`, unless the value is empty.
    pub(crate) fn line(&mut self, key: &str, value: impl AsRef<str>) -> &mut Self {
        if !value.as_ref().is_empty() {
            let value = text::clean(value.as_ref());
            self.pending.push_str(&format!("{key}:\t{value}\n"));
        }
        self
    }

    /// Adds a heading above the following lines.
    pub(crate) fn section(&mut self, title: &str) -> &mut Self {
        self.flush();
        self.text.push_str(&format!("\n{title}:\n"));
        self
    }

    /// Adds indented lines.
    pub(crate) fn block(&mut self, text: &str) -> &mut Self {
        self.flush();
        for line in text.lines() {
            self.text.push_str(&format!("  {line}\n"));
        }
        self
    }

    /// Returns the page.
    pub(crate) fn finish(&mut self) -> String {
        self.flush();
        std::mem::take(&mut self.text)
    }

    fn flush(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        self.text.push_str(&align(&pending));
    }
}

fn align(text: &str) -> String {
    let mut writer = TabWriter::new(Vec::new()).minwidth(0).padding(PADDING);
    // Writing to memory cannot fail; unaligned text is the fallback.
    let aligned = writer
        .write_all(text.as_bytes())
        .ok()
        .and_then(|()| writer.into_inner().ok());
    let aligned = aligned.and_then(|bytes| String::from_utf8(bytes).ok());
    let aligned = aligned.unwrap_or_else(|| text.to_owned());
    aligned
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_without_trailing_blanks() {
        let rows = [
            vec!["a".to_owned(), "1".to_owned()],
            vec!["long name".to_owned(), String::new()],
        ];
        assert_eq!(
            table(&["NAME", "N"], rows),
            "NAME       N\na          1\nlong name\n"
        );
    }

    #[test]
    fn a_wide_table_is_shortened_to_80_columns_but_for_names() {
        let long = "x".repeat(70);
        let row = vec!["name".repeat(8), format!("start{long}end"), long.clone()];
        let text = table(&["NAME", "IMAGE", "REASON"], [row]);
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        assert!(
            text.contains(&"name".repeat(8)) && text.contains("start"),
            "{text}"
        );
        assert!(text.contains("end  "), "{text}");
        assert_eq!(shortened("abcdef", 4), "ab…f");
    }

    #[test]
    fn a_page_omits_empty_values() {
        let mut page = DetailPage::default();
        page.line("Name", "x")
            .line("Digest", "")
            .line("Created", "now");
        page.section("Nodes").line("a", "b").block("| log");
        assert_eq!(
            page.finish(),
            "Name:     x\nCreated:  now\n\nNodes:\na:  b\n  | log\n"
        );
    }
}
