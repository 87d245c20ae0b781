//! Lists of a limited number of items, each read by itself.

use crate::domain::error::{Reason, Violations};

/// The refusal of a list that is too long.
pub(super) fn over(given: usize, max: usize) -> String {
    format!("{given} are given, at most {max} are allowed: remove some")
}

/// Reads the items of the list at `field`, at most `max`; adds refusals to `violations`. `None` if
/// any is refused.
pub(super) fn read_list<T, L: FromIterator<T>>(
    field: &str,
    input: &[String],
    max: usize,
    violations: &mut Violations,
    read: impl Fn(&str) -> Result<T, Reason>,
) -> Option<L> {
    if input.len() > max {
        violations.push(field, over(input.len(), max));
        return None;
    }
    let items: Vec<Option<T>> = (0..)
        .zip(input)
        .map(|(at, item)| violations.take(format!("{field}[{at}]"), read(item)))
        .collect();
    items.into_iter().collect()
}
