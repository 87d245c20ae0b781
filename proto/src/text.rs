//! Text from outside, made safe for a terminal, a log line and a JSON document.
//!
//! Nodes, containers and clients choose messages, names and log lines. A terminal obeys control
//! characters in them: ANSI sequences move the cursor or set the clipboard, a line break forges a
//! line, a bidirectional override shows text in another order. All programs escape such text here.
//!
//! Law: the result of each function holds no active character but those that its doc names, and a
//! JSON document keeps its value. Pure.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::iter::Peekable;
use std::str::Chars;

/// Whether a terminal acts on the character instead of showing it: C0, DEL and C1 controls, line
/// and paragraph separators, marks that change the direction of text (UAX #9), and characters
/// without a shape (deprecated format characters, annotations, tags).
#[must_use]
pub fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200e}' | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// One line for people: removes the sequences of ECMA-48, such as colours, titles and links (OSC 8),
/// turns line breaks and tabs into spaces, and other active characters into U+FFFD.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' | '\u{90}'..='\u{9f}' if skip_sequence(c, &mut chars) => {}
            '\n' | '\r' | '\t' => line.push(' '),
            c if is_active(c) => line.push('\u{fffd}'),
            c => line.push(c),
        }
    }
    line
}

/// Skips the rest of the sequence that `first` begins. False, with nothing skipped, if it begins
/// none, or a string without an end.
fn skip_sequence(first: char, chars: &mut Peekable<Chars<'_>>) -> bool {
    let mut rest = chars.clone();
    // In seven bits, ESC and a letter stand for a character of C1.
    let introducer = match first {
        '\u{1b}' => rest.next(),
        c => char::from_u32(c as u32 - 0x40),
    };
    match introducer {
        Some('[') => {
            // Parameter and intermediate bytes, then one final byte.
            while rest.next_if(|c| (' '..='?').contains(c)).is_some() {}
            rest.next_if(|c| ('@'..='~').contains(c));
        }
        // A string (DCS, SOS, OSC, PM, APC) ends with ST, or BEL. Another control character breaks
        // it, so no character is looked at twice.
        Some('P' | 'X' | ']' | '^' | '_') => loop {
            match rest.next() {
                Some('\u{7}' | '\u{9c}') => break,
                Some('\u{1b}') if rest.next_if_eq(&'\\').is_some() => break,
                Some(c) if !c.is_control() => {}
                _ => return false,
            }
        },
        _ => return false,
    }
    *chars = rest;
    true
}

/// Lines for people: keeps line breaks and tabs, and turns other active characters into U+FFFD.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    let is_kept = |c: char| matches!(c, '\n' | '\t') || !is_active(c);
    if text.chars().all(is_kept) {
        return Cow::Borrowed(text);
    }
    let shown = |c: char| if is_kept(c) { c } else { '\u{fffd}' };
    Cow::Owned(text.chars().map(shown).collect())
}

/// A JSON document with the same value, in which active characters of strings are `\uXXXX`. A JSON
/// writer escapes those below U+0020 itself; line breaks and tabs between values stay.
#[must_use]
pub fn json(document: &str) -> Cow<'_, str> {
    let is_raw = |c: char| c > '\u{1f}' && is_active(c);
    if !document.chars().any(is_raw) {
        return Cow::Borrowed(document);
    }
    let mut escaped = String::with_capacity(document.len() + 16);
    for c in document.chars() {
        if !is_raw(c) {
            escaped.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            escaped.push_str(&format!("\\u{unit:04x}"));
        }
    }
    Cow::Owned(escaped)
}

/// A writer that passes text on with active characters escaped as in Rust: `\n`, `\u{1b}`.
#[derive(Debug)]
pub struct Escaping<W>(pub W);

impl<W: Write> Write for Escaping<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_active(*c)) {
            let (plain, after) = rest.split_at(at);
            self.0.write_str(plain)?;
            match c {
                '\n' => self.0.write_str("\\n")?,
                '\r' => self.0.write_str("\\r")?,
                '\t' => self.0.write_str("\\t")?,
                c => write!(self.0, "\\u{{{:x}}}", u32::from(c))?,
            }
            rest = &after[c.len_utf8()..];
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Text of which every second character is one that matters here.
    fn hostile() -> impl Strategy<Value = String> {
        let parts = prop_oneof![
            Just("\u{1b}".to_owned()),
            Just("\u{9d}8;;".to_owned()),
            "[\u{1b}\u{7}\u{9b}\u{9c}\u{9d}\u{202e}\u{2066}\u{85}\u{e0041}\\\\\n\r\t\\[\\];?mJP\"]",
            any::<char>().prop_map(String::from),
        ];
        proptest::collection::vec(parts, 0..24).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn no_function_lets_an_active_character_through(text in hostile()) {
            prop_assert!(!one_line(&text).chars().any(is_active));
            let kept = |c: char| matches!(c, '\n' | '\t');
            prop_assert!(!lines(&text).chars().any(|c| is_active(c) && !kept(c)));
            let mut escaped = String::new();
            Escaping(&mut escaped).write_str(&text).unwrap();
            prop_assert!(!escaped.chars().any(is_active));
        }

        #[test]
        fn text_made_safe_stays_as_it_is(text in hostile()) {
            prop_assert_eq!(one_line(&one_line(&text)), one_line(&text));
            let shown = lines(&text);
            prop_assert_eq!(lines(&shown), shown.as_ref());
        }

        #[test]
        fn a_json_document_keeps_its_value(text in hostile()) {
            let document = serde_json::json!({ &text: [&text] });
            for printed in [document.to_string(), format!("{document:#}")] {
                let safe = json(&printed);
                prop_assert!(!safe.chars().any(|c| is_active(c) && c != '\n'));
                prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&safe).unwrap(), &document);
            }
        }
    }

    #[test]
    fn sequences_are_removed_with_what_they_carry() {
        for (text, shown) in [
            ("a\u{1b}[1;31m\tb\r\nc\u{202e}", "a b  c\u{fffd}"),
            ("\u{1b}]0;title\u{7}x\u{1b}[", "x"),
            (
                "\u{1b}]8;;https://evil.example\u{1b}\\here\u{1b}]8;;\u{1b}\\",
                "here",
            ),
            ("\u{9b}31mred", "red"),
            ("\u{9d}52;c;cm0=\u{9c}x", "x"),
            ("\u{1b}P+q\u{1b}\\x", "x"),
            // A string without an end hides nothing.
            ("\u{1b}]0;rest of the line", "\u{fffd}]0;rest of the line"),
            ("\u{1b}c", "\u{fffd}c"),
            (
                "naïve \u{5e9}\u{5dc}\u{5d5}\u{5dd} 👩\u{200d}🚀",
                "naïve \u{5e9}\u{5dc}\u{5d5}\u{5dd} 👩\u{200d}🚀",
            ),
        ] {
            assert_eq!(one_line(text), shown, "{text:?}");
        }
    }
}
