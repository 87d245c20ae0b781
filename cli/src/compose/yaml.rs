//! YAML as nodes with lines.
//!
//! An alias shares its node, so that reading takes linear space; its size still counts, so that
//! whoever walks the nodes takes bounded time.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

use super::plan::Remark;

/// Maximum number of nodes, aliases expanded.
pub(super) const NODES_MAX: usize = 100_000;
/// Maximum depth of nodes; compose files need six.
const DEPTH_MAX: usize = 32;

#[derive(Debug)]
pub(super) struct Node {
    /// From 1.
    pub(super) line: usize,
    pub(super) value: Value,
    /// Number of nodes, aliases expanded.
    size: usize,
    depth: usize,
}

#[derive(Debug)]
pub(super) enum Value {
    Null,
    Text(String),
    List(Vec<Rc<Node>>),
    /// In the order of the file; merged keys come last.
    Map(Vec<Entry>),
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Line of the key.
    pub(super) line: usize,
    pub(super) node: Rc<Node>,
}

/// A list or map whose end has not come.
struct Open {
    line: usize,
    anchor: usize,
    items: Items,
    size: usize,
    depth: usize,
}

enum Items {
    List(Vec<Rc<Node>>),
    Map {
        entries: Vec<Entry>,
        keys: HashSet<String>,
        /// A key whose value has not come, with its line.
        key: Option<(String, usize)>,
        merged: Vec<Rc<Node>>,
    },
}

fn error(line: usize, text: impl Into<String>) -> Remark {
    Remark {
        line,
        path: String::new(),
        text: text.into(),
    }
}

/// Reads the one document of a text.
///
/// # Errors
/// The line that is not YAML, or exceeds a limit.
pub(super) fn parse(text: &str) -> Result<Rc<Node>, Remark> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|failed| {
            let problem = failed.info();
            error(failed.marker().line(), format!("is not YAML: {problem}"))
        })?;
        builder.event(event, span.start.line())?;
    }
    let empty = || error(1, "is empty: write a compose file with `services`");
    builder.root.ok_or_else(empty)
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    total: usize,
    root: Option<Rc<Node>>,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, line: usize) -> Result<(), Remark> {
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(error(line, "a second document begins: give one per file"))
            }
            Event::Scalar(text, style, anchor, tag) => {
                check_tag(tag.as_deref(), line)?;
                let is_plain = style == ScalarStyle::Plain;
                let is_null = is_plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                if self.takes_key() && !is_null {
                    return self.key(text.into_owned(), is_plain, line);
                }
                let value = match is_null {
                    true => Value::Null,
                    false => Value::Text(text.into_owned()),
                };
                self.complete(line, anchor, value, 1, 1)
            }
            Event::SequenceStart(anchor, tag) => {
                check_tag(tag.as_deref(), line)?;
                self.begin(line, anchor, Items::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                check_tag(tag.as_deref(), line)?;
                let items = Items::Map {
                    entries: Vec::new(),
                    keys: HashSet::new(),
                    key: None,
                    merged: Vec::new(),
                };
                self.begin(line, anchor, items)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                let node = node.ok_or_else(|| error(line, "an alias is inside its own anchor"))?;
                self.count(node.size, line)?;
                self.add(node, line)
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    /// Whether the next node is the key of a map.
    fn takes_key(&self) -> bool {
        let items = self.open.last().map(|open| &open.items);
        matches!(items, Some(Items::Map { key: None, .. }))
    }

    fn key(&mut self, text: String, is_plain: bool, line: usize) -> Result<(), Remark> {
        if let Some(Open {
            items: Items::Map { keys, key, .. },
            ..
        }) = self.open.last_mut()
        {
            let is_merge = is_plain && text == "<<";
            if !is_merge && !keys.insert(text.clone()) {
                return Err(error(line, format!("`{text}` is given twice: remove one")));
            }
            *key = Some((text, line));
        }
        Ok(())
    }

    fn begin(&mut self, line: usize, anchor: usize, items: Items) -> Result<(), Remark> {
        if self.takes_key() {
            return Err(error(line, "a key is not a text: write a word"));
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(error(line, format!("is nested over {DEPTH_MAX} deep")));
        }
        self.open.push(Open {
            line,
            anchor,
            items,
            size: 1,
            depth: 1,
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Remark> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let value = match open.items {
            Items::List(items) => Value::List(items),
            Items::Map {
                mut entries,
                mut keys,
                merged,
                ..
            } => {
                for node in merged {
                    let Value::Map(inherited) = &node.value else {
                        return Err(error(open.line, "`<<` takes a map, or a list of maps"));
                    };
                    for entry in inherited {
                        if keys.insert(entry.key.clone()) {
                            entries.push(entry.clone());
                        }
                    }
                }
                Value::Map(entries)
            }
        };
        self.complete(open.line, open.anchor, value, open.size, open.depth)
    }

    fn complete(
        &mut self,
        line: usize,
        anchor: usize,
        value: Value,
        size: usize,
        depth: usize,
    ) -> Result<(), Remark> {
        let node = Rc::new(Node {
            line,
            value,
            size,
            depth,
        });
        // 0: no anchor.
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.count(1, line)?;
        self.add(node, line)
    }

    fn count(&mut self, nodes: usize, line: usize) -> Result<(), Remark> {
        self.total = self.total.saturating_add(nodes);
        if self.total > NODES_MAX {
            return Err(error(
                line,
                format!("has over {NODES_MAX} values, aliases expanded: split the file"),
            ));
        }
        Ok(())
    }

    /// Gives a node its place.
    fn add(&mut self, node: Rc<Node>, line: usize) -> Result<(), Remark> {
        let depth = self.open.len() + node.depth;
        if depth > DEPTH_MAX {
            return Err(error(line, format!("is nested over {DEPTH_MAX} deep")));
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.size = open.size.saturating_add(node.size);
        open.depth = open.depth.max(node.depth + 1);
        match &mut open.items {
            Items::List(items) => items.push(node),
            Items::Map {
                entries,
                key,
                merged,
                ..
            } => match key.take() {
                Some((key, _)) if key == "<<" => match &node.value {
                    Value::List(maps) => merged.extend(maps.iter().cloned()),
                    _ => merged.push(node),
                },
                Some((key, line)) => entries.push(Entry { key, line, node }),
                None => return Err(error(line, "a key is not a text: write a word")),
            },
        }
        Ok(())
    }
}

/// Refuses tags other than those of YAML, such as `!reset`.
fn check_tag(tag: Option<&Tag>, line: usize) -> Result<(), Remark> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema() => Err(error(
            line,
            format!(
                "the tag `{}{}` is not supported: remove it",
                tag.handle, tag.suffix
            ),
        )),
        _ => Ok(()),
    }
}
