//! The difference of two values, field by field, for the audit log.
//!
//! Laws: equal values have no difference; below the limits, the changes turn the first value into the
//! second.

use std::time::Duration;

use cless_proto::{bounds, duration};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Changes per entry; the last one counts the others.
const CHANGES_MAX: usize = 200;
/// Bytes of one value; a longer one becomes a text that says so.
const VALUE_MAX: usize = 2048;

/// A field that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// Path of the field, such as `settings.concurrency`.
    pub field: String,
    /// JSON; `None`: absent before.
    pub before: Option<String>,
    /// JSON; `None`: absent after.
    pub after: Option<String>,
}

/// The fields that differ. Objects are compared field by field, lists as a whole. Null,
/// an empty object and an empty list are absence.
#[must_use]
pub fn diff(before: &Value, after: &Value) -> Vec<FieldChange> {
    let mut found = Vec::new();
    let mut more = 0_usize;
    compare(String::new(), before, after, &mut |field, before, after| {
        if found.len() < CHANGES_MAX {
            found.push(FieldChange {
                field,
                before: shown(before),
                after: shown(after),
            });
        } else {
            more += 1;
        }
    });
    if more > 0 {
        found.push(FieldChange {
            field: "…".to_owned(),
            before: None,
            after: shown(&Value::from(format!("and {more} more fields"))),
        });
    }
    found
}

fn compare(
    path: String,
    before: &Value,
    after: &Value,
    found: &mut impl FnMut(String, &Value, &Value),
) {
    if before == after || (is_absent(before) && is_absent(after)) {
        return;
    }
    let (Some(old), Some(new)) = (fields(before), fields(after)) else {
        found(path, before, after);
        return;
    };
    let added = new.keys().filter(|key| !old.contains_key(*key));
    for key in old.keys().chain(added) {
        let at = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        let value = |of: &Map<String, Value>| of.get(key).cloned().unwrap_or_default();
        compare(at, &value(old), &value(new), found);
    }
}

/// Null, and objects and lists without content.
fn is_absent(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// The fields of an object; null and an empty object have none. `None` for a value that is compared as a whole.
fn fields(value: &Value) -> Option<&Map<String, Value>> {
    static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    match value {
        Value::Null => Some(&NONE),
        Value::Object(fields) if span(value).is_none() => Some(fields),
        _ => None,
    }
}

/// A duration, as serde writes it.
fn span(value: &Value) -> Option<Duration> {
    let fields = value.as_object().filter(|fields| fields.len() == 2)?;
    let nanos = u32::try_from(fields.get("nanos")?.as_u64()?).ok()?;
    (nanos < 1_000_000_000).then_some(())?;
    Some(Duration::new(fields.get("secs")?.as_u64()?, nanos))
}

fn shown(value: &Value) -> Option<String> {
    if is_absent(value) {
        return None;
    }
    let text = match span(value) {
        Some(span) => Value::from(duration::format(span)).to_string(),
        None => value.to_string(),
    };
    if text.len() <= VALUE_MAX {
        return Some(text);
    }
    let start = bounds::clipped(&text, VALUE_MAX / 2);
    Some(Value::from(format!("{start} ({} bytes)", text.len())).to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-z]{0,6}".prop_map(Value::from),
            proptest::collection::vec(0..9_i32, 1..4).prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            proptest::collection::btree_map("[a-d]", inner, 1..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect()))
        })
    }

    /// An object, as every resource is.
    fn any_resource() -> impl Strategy<Value = Value> {
        proptest::collection::btree_map("[a-d]", any_value(), 0..4)
            .prop_map(|fields| Value::Object(fields.into_iter().collect()))
    }

    fn set(value: &mut Value, path: &[&str], leaf: Option<Value>) {
        let Some((first, rest)) = path.split_first() else {
            return;
        };
        if !value.is_object() {
            *value = json!({});
        }
        let fields = value.as_object_mut().expect("an object");
        if !rest.is_empty() {
            set(fields.entry(*first).or_insert(json!({})), rest, leaf);
        } else if let Some(leaf) = leaf {
            fields.insert((*first).to_owned(), leaf);
        } else {
            fields.remove(*first);
        }
    }

    /// Removes objects without fields, which are absence.
    fn pruned(value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let fields = fields
                    .iter()
                    .map(|(key, value)| (key.clone(), pruned(value)));
                Value::Object(fields.filter(|(_, value)| *value != json!({})).collect())
            }
            other => other.clone(),
        }
    }

    #[test]
    fn a_difference_names_each_field() {
        let before = json!({"settings": {"concurrency": 1, "timeout": {"secs": 300, "nanos": 0}}});
        let after = json!({"settings": {"concurrency": 2, "timeout": {"secs": 1, "nanos": 500_000_000}}, "hosts": ["a"]});
        let change = |field: &str, before: Option<&str>, after: Option<&str>| FieldChange {
            field: field.into(),
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
        };
        assert_eq!(
            diff(&before, &after),
            [
                change("settings.concurrency", Some("1"), Some("2")),
                change("settings.timeout", Some("\"5m\""), Some("\"1s500ms\"")),
                change("hosts", None, Some("[\"a\"]")),
            ]
        );
    }

    #[test]
    fn large_values_and_many_changes_are_cut() {
        let many: Map<String, Value> = (0..1000).map(|at| (at.to_string(), json!(at))).collect();
        let found = diff(&Value::Null, &Value::Object(many));
        assert_eq!(found.len(), CHANGES_MAX + 1);
        assert_eq!(
            found[CHANGES_MAX].after.as_deref(),
            Some("\"and 800 more fields\"")
        );
        let found = diff(&json!({}), &json!({"env": "ä\"".repeat(5000)}));
        let text = found[0].after.as_deref().expect("a value");
        assert!(text.len() < 2 * VALUE_MAX, "{}", text.len());
        let read: String = serde_json::from_str(text).expect("JSON");
        assert!(read.ends_with("bytes)"), "{read}");
    }

    proptest! {
        #[test]
        fn equal_values_have_no_difference(value in any_value()) {
            prop_assert_eq!(diff(&value, &value), []);
        }

        #[test]
        fn the_changes_turn_the_first_value_into_the_second(
            before in any_resource(), after in any_resource(),
        ) {
            let mut value = before.clone();
            for change in diff(&before, &after) {
                let leaf = change.after.map(|text| serde_json::from_str(&text).expect("JSON"));
                set(&mut value, &change.field.split('.').collect::<Vec<_>>(), leaf);
            }
            prop_assert_eq!(pruned(&value), pruned(&after));
        }
    }
}
