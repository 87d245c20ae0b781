//! Tables with aligned columns and pages of `Key: value` lines. Pure: the time is an argument.

use std::io::Write as _;
use std::time::SystemTime;

use tabwriter::TabWriter;

/// The environment of a rendering.
#[derive(Debug, Clone)]
pub(crate) struct RenderContext {
    /// The reference time of ages.
    pub(crate) now: SystemTime,
    /// URL that gives printed URLs their scheme and port.
    pub(crate) proxy: String,
}

/// A heading and rows, with two spaces between columns.
pub(crate) fn table(columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut text = columns.join("\t");
    for row in rows {
        text.push('\n');
        text.push_str(&row.join("\t"));
    }
    text.push('\n');
    align(&text)
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
            self.pending
                .push_str(&format!("{key}:\t{}\n", value.as_ref()));
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
    let mut writer = TabWriter::new(Vec::new()).minwidth(0).padding(2);
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
