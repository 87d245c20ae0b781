//! Filters of lists: a subset of AIP-160.
//!
//! ```text
//! filter = [ term { "AND" term } ]
//! term   = FIELD ( "=" | "!=" ) VALUE | "labels." KEY ( "=" | "!=" ) VALUE | "labels:" KEY
//! VALUE  = WORD | '"' text with \" and \\ '"'        WORD, KEY = letters, digits, "_", "-", ".", "/"
//! ```
//!
//! Law: parsing takes time and memory linear in the text, never panics, and a text that is printed
//! from terms parses to these terms.

use std::collections::BTreeMap;

use super::error::Reason;

/// Maximum bytes of a filter.
const TEXT_MAX: usize = 2048;
/// Maximum number of terms of a filter.
const TERMS_MAX: usize = 20;

/// A field that the filter of a list may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterField {
    /// `labels.KEY = "VALUE"` and `labels:KEY`.
    Labels,
    /// A field with any text as its value.
    Text(&'static str),
    /// A field with one of these values.
    OneOf(&'static str, &'static [&'static str]),
}

impl FilterField {
    fn shown(self) -> String {
        match self {
            Self::Labels => "`labels.KEY = \"VALUE\"`, `labels:KEY`".to_owned(),
            Self::Text(name) => format!("`{name} = VALUE`"),
            Self::OneOf(name, values) => format!("`{name} = {}`", values.join("|")),
        }
    }
}

/// A condition on one field.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    /// The field has, or has not, the value.
    Field {
        name: &'static str,
        value: String,
        equal: bool,
    },
    /// The label has, or has not, the value.
    Label {
        key: String,
        value: String,
        equal: bool,
    },
    /// There is a label with this key.
    HasLabel(String),
}

/// A valid filter: all its terms hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    terms: Vec<Term>,
}

impl Filter {
    /// Parses a filter over the given fields. An empty text selects everything.
    ///
    /// # Errors
    /// The position in the text, and what is allowed there.
    pub fn parse(text: &str, fields: &[FilterField]) -> Result<Self, Reason> {
        if text.len() > TEXT_MAX {
            return Err(Reason::new(format!(
                "has {} bytes, at most {TEXT_MAX} are taken: shorten it",
                text.len()
            )));
        }
        let mut parser = Parser {
            text,
            at: 0,
            fields,
        };
        let mut terms = Vec::new();
        parser.skip_space();
        while parser.at < text.len() {
            if terms.len() >= TERMS_MAX {
                return Err(Reason::new(format!(
                    "has more than {TERMS_MAX} terms: leave some out"
                )));
            }
            terms.push(parser.term()?);
            parser.skip_space();
            if parser.at == text.len() {
                break;
            }
            let joined = parser.at;
            if parser.word() != "AND" {
                return Err(parser.expected(joined, "`AND` or the end"));
            }
            parser.skip_space();
            if parser.at == text.len() {
                return Err(parser.expected(parser.at, &parser.allowed()));
            }
        }
        Ok(Self { terms })
    }

    /// Whether it selects everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether all terms hold for an item with these values of its fields and these labels.
    pub fn matches<'a>(
        &self,
        value_of: impl Fn(&str) -> &'a str,
        labels: &BTreeMap<String, String>,
    ) -> bool {
        self.terms.iter().all(|term| match term {
            Term::Field { name, value, equal } => (value_of(name) == value) == *equal,
            Term::Label { key, value, equal } => {
                (labels.get(key).is_some_and(|found| found == value)) == *equal
            }
            Term::HasLabel(key) => labels.contains_key(key),
        })
    }
}

struct Parser<'a> {
    text: &'a str,
    /// A byte offset at the start of a character.
    at: usize,
    fields: &'a [FilterField],
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t']).len();
    }

    /// The letters, digits and `_-./` from here.
    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let in_word = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
        let end = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn allowed(&self) -> String {
        let fields: Vec<_> = self.fields.iter().map(|field| field.shown()).collect();
        fields.join(", ")
    }

    fn expected(&self, at: usize, what: &str) -> Reason {
        let found: String = self.text[at..].chars().take(20).collect();
        let found = if found.is_empty() {
            "the end".to_owned()
        } else {
            format!("`{}`", found.escape_debug())
        };
        Reason::new(format!(
            "has {found} at position {}: give {what}",
            self.text[..at].chars().count() + 1
        ))
    }

    fn term(&mut self) -> Result<Term, Reason> {
        let start = self.at;
        let name = self.word();
        let labels = self.fields.contains(&FilterField::Labels);
        self.skip_space();
        if labels && name == "labels" && self.rest().starts_with(':') {
            self.at += 1;
            self.skip_space();
            return Ok(Term::HasLabel(self.value("the key of a label")?));
        }
        const TEXT: &str = "a value, in `\"` unless it is a word";
        let label = name
            .strip_prefix("labels.")
            .filter(|key| labels && !key.is_empty());
        if let Some(key) = label {
            let equal = self.operator()?;
            let (key, value) = (key.to_owned(), self.value(TEXT)?);
            return Ok(Term::Label { key, value, equal });
        }
        let named = self.fields.iter().find_map(|field| match *field {
            FilterField::Text(known) if known == name => Some((known, None)),
            FilterField::OneOf(known, values) if known == name => Some((known, Some(values))),
            _ => None,
        });
        let Some((name, values)) = named else {
            return Err(self.expected(start, &self.allowed()));
        };
        let equal = self.operator()?;
        let at = self.at;
        let value = match values {
            None => self.value(TEXT)?,
            Some(values) => {
                let allowed = values.join(", ");
                let value = self.value(&allowed)?;
                if !values.contains(&&*value) {
                    return Err(self.expected(at, &format!("one of {allowed}")));
                }
                value
            }
        };
        Ok(Term::Field { name, value, equal })
    }

    /// Whether the operator is `=`; the other is `!=`. Skips the space behind it.
    fn operator(&mut self) -> Result<bool, Reason> {
        for (operator, equal) in [("=", true), ("!=", false)] {
            if self.rest().starts_with(operator) {
                self.at += operator.len();
                self.skip_space();
                return Ok(equal);
            }
        }
        Err(self.expected(self.at, "`=` or `!=`"))
    }

    fn value(&mut self, what: &str) -> Result<String, Reason> {
        let start = self.at;
        if !self.rest().starts_with('"') {
            let word = self.word();
            if word.is_empty() {
                return Err(self.expected(start, what));
            }
            return Ok(word.to_owned());
        }
        let mut value = String::new();
        let mut escaped = false;
        for (offset, c) in self.rest().char_indices().skip(1) {
            match c {
                _ if escaped => {
                    value.push(c);
                    escaped = false;
                }
                '\\' => escaped = true,
                '"' => {
                    self.at += offset + 1;
                    return Ok(value);
                }
                _ => value.push(c),
            }
        }
        Err(self.expected(start, "a closing `\"`"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIELDS: [FilterField; 3] = [
        FilterField::Labels,
        FilterField::Text("service"),
        FilterField::OneOf("state", &["SERVING", "NO_TRAFFIC"]),
    ];

    fn parse(text: &str) -> Result<Filter, String> {
        Filter::parse(text, &FIELDS).map_err(|reason| reason.to_string())
    }

    fn matches(text: &str, state: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let filter = parse(text).expect(text);
        filter.matches(
            |name| if name == "state" { state } else { "services/a" },
            &labels,
        )
    }

    #[test]
    fn all_terms_must_hold() {
        let labels = [("team", "shop"), ("a-b", "x y")];
        for (text, expected) in [
            ("", true),
            ("  ", true),
            ("state = SERVING", true),
            ("state=SERVING", true),
            ("state != SERVING", false),
            ("labels.team = shop", true),
            ("labels.team = \"shop\" AND state = SERVING", true),
            ("labels.team = \"shop\" AND state = NO_TRAFFIC", false),
            ("labels:team", true),
            ("labels:\"a-b\"", true),
            ("labels:other", false),
            ("labels.a-b = \"x y\"", true),
            ("labels.other = \"\"", false),
            ("labels.other != \"x\"", true),
            ("service = services/a", true),
            ("service = \"services/b\"", false),
        ] {
            assert_eq!(matches(text, "SERVING", &labels), expected, "{text}");
        }
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn errors_name_the_position_and_what_is_allowed() {
        for (text, position, allowed) in [
            ("stat = SERVING", "position 1", "labels:KEY"),
            ("state SERVING", "position 7", "`=`"),
            ("state = BROKEN", "position 9", "NO_TRAFFIC"),
            ("state = SERVING OR labels:a", "position 17", "`AND`"),
            ("state = SERVING AND", "position 20", "state = SERVING"),
            ("labels.a = \"x", "position 12", "closing"),
            ("labels.a =", "position 11", "value"),
            ("labels. = x", "position 1", "labels.KEY"),
            ("labels.\u{e4} = x", "position 1", "labels.KEY"),
            ("(state = SERVING)", "position 1", "state"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(position), "{text}: {error}");
            assert!(error.contains(allowed), "{text}: {error}");
        }
        assert!(parse(&"a".repeat(3000)).is_err());
        let many = ["labels:a"; 21].join(" AND ");
        assert!(parse(&many).expect_err("many").contains("20 terms"));
        assert!(parse(&["labels:a"; 20].join(" AND ")).is_ok());
    }

    fn quoted(text: &str) -> String {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    }

    fn any_term() -> impl Strategy<Value = (String, Term)> {
        prop_oneof![
            ("[a-z0-9_.-]{1,8}", "\\PC{0,10}", any::<bool>()).prop_map(|(key, value, equal)| {
                let operator = if equal { "=" } else { "!=" };
                let text = format!("labels.{key} {operator} {}", quoted(&value));
                (text, Term::Label { key, value, equal })
            }),
            "\\PC{0,10}".prop_map(|key| (format!("labels:{}", quoted(&key)), Term::HasLabel(key))),
            any::<bool>().prop_map(|equal| {
                let operator = if equal { "=" } else { "!=" };
                let term = Term::Field {
                    name: "state",
                    value: "SERVING".to_owned(),
                    equal,
                };
                (format!("state{operator}SERVING"), term)
            }),
        ]
    }

    proptest! {
        #[test]
        fn printed_terms_parse_back(terms in proptest::collection::vec(any_term(), 0..8)) {
            let (texts, terms): (Vec<_>, Vec<_>) = terms.into_iter().unzip();
            prop_assert_eq!(parse(&texts.join(" AND ")), Ok(Filter { terms }));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,60}|[a-z.:=!\" \\\\A-Z]{0,60}") {
            let _ = parse(&text);
        }
    }
}
