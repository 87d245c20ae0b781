//! Aligned columns and `Key: value` pages. Pure: the time is an argument.

use std::io::Write as _;
use std::time::SystemTime;

use tabwriter::TabWriter;

/// What a rendering needs from outside.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// Ages are counted to this time.
    pub(crate) now: SystemTime,
    /// Gives addresses their scheme and port.
    pub(crate) proxy: String,
}

/// A heading and its rows, two spaces between columns.
pub(crate) fn table(columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut text = columns.join("\t");
    for row in rows {
        text.push('\n');
        text.push_str(&row.join("\t"));
    }
    text.push('\n');
    align(&text)
}

/// A page of keys and values with sections, each value on the column of its section.
#[derive(Debug, Default)]
pub(crate) struct Page {
    text: String,
    pending: String,
}

impl Page {
    /// `Key:  value`; an empty value leaves the line out.
    pub(crate) fn line(&mut self, key: &str, value: impl AsRef<str>) -> &mut Self {
        if !value.as_ref().is_empty() {
            self.pending
                .push_str(&format!("{key}:\t{}\n", value.as_ref()));
        }
        self
    }

    /// A heading above the lines that follow.
    pub(crate) fn section(&mut self, title: &str) -> &mut Self {
        self.flush();
        self.text.push_str(&format!("\n{title}:\n"));
        self
    }

    /// Lines as they are, indented.
    pub(crate) fn block(&mut self, text: &str) -> &mut Self {
        self.flush();
        for line in text.lines() {
            self.text.push_str(&format!("  {line}\n"));
        }
        self
    }

    /// The whole page.
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
    let mut writer = TabWriter::new(Vec::new()).minwidth(0).padding(2);
    // Writing to memory cannot fail; were it to, unaligned text is better than none.
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
    fn a_page_leaves_out_what_is_not_there() {
        let mut page = Page::default();
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
