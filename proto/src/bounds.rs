//! Checks the bytes of a request before anything is built from them.
//!
//! One walk over the encoded message, driven by the descriptors, so that no new field can be
//! forgotten. It allocates only to report a violation, and takes one pass over the bytes. Refused are:
//! - a repeated or map field with more items than [`LIMITS`] allows, a singular message given twice;
//! - a text or bytes field above [`TEXT_MAX`], a text that holds NUL or is not UTF-8;
//! - a `Duration` or `Timestamp` outside the rules of its type;
//! - bytes that are no message of the type.
//!
//! Only messages whose name ends in `Request` are checked: responses come from a trusted server.

mod schema;
mod wire;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use schema::{FieldType, Kind, SCHEMA, Schema};
use wire::{Malformed, Value, next, time};

/// Maximum number of items of each repeated field that a request can hold.
pub const LIMITS: &[(&str, usize)] = &[
    ("cless.v1.Ack.quarantined", 10_000),
    ("cless.v1.ReportNodeStatusRequest.allowed_capabilities", 64),
    ("cless.v1.ReportNodeStatusRequest.allowed_egress", 1000),
    ("cless.v1.ReportNodeStatusRequest.instances", 10_000),
    ("cless.v1.ReportNodeStatusRequest.versions", 10_000),
    ("cless.v1.ReportNodeStatusRequest.warnings", 100),
    ("cless.v1.Service.hosts", 100),
    ("cless.v1.Service.labels", 64),
    ("cless.v1.StartFailure.log_tail", 100),
    ("cless.v1.Token.Scope.hosts", 100),
    ("cless.v1.Token.Scope.services", 100),
    ("cless.v1.Traffic.targets", 1000),
    ("cless.v1.Verification.nodes", 10_000),
    ("cless.v1.Verification.skip_nodes", 100),
    ("cless.v1.VerifyVersionRequest.skip_nodes", 100),
    ("cless.v1.Version.tags", 1000),
    ("cless.v1.VersionSpec.args", 4096),
    ("cless.v1.VersionSpec.cap_add", 16),
    ("cless.v1.VersionSpec.command", 4096),
    ("cless.v1.VersionSpec.dns", 3),
    ("cless.v1.VersionSpec.egress", 16),
    ("cless.v1.VersionSpec.env", 4096),
    ("cless.v1.VersionSpec.extra_hosts", 64),
    ("cless.v1.VersionSpec.tmpfs", 16),
    ("cless.v1.VersionSpec.tmpfs_exec", 16),
    ("cless.v1.VersionSpec.ulimits", 12),
    ("cless.v1.VersionStatus.nodes", 10_000),
    ("google.protobuf.FieldMask.paths", 100),
];
/// Maximum bytes of one text or bytes field.
pub const TEXT_MAX: usize = 32 * 1024;
/// Maximum number of violations that are told.
pub const VIOLATIONS_MAX: usize = 20;
/// Domain of the error reasons (AIP-193).
pub const ERROR_DOMAIN: &str = "cless.dev";

/// Maximum bytes of all told violations. As base64 and with the message they fit into the 16 KiB
/// of trailers that clients accept.
const DETAILS_MAX: usize = 5 * 1024;
/// Maximum bytes of one text in an error.
const SHOWN_MAX: usize = 400;
/// Maximum bytes of the message of an error; its percent encoding takes at most three times as many.
const MESSAGE_MAX: usize = 1000;
/// Far above the depth of any message of the API.
const DEPTH_MAX: usize = 16;
/// No message of a request has more fields.
const FIELDS_MAX: usize = 32;
/// Bounds of `Duration.seconds`, about 10 000 years (duration.proto).
const DURATION_SECONDS_MAX: i64 = 315_576_000_000;
/// Bounds of `Timestamp.seconds`, years 1 to 9999 (timestamp.proto).
const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
const NANOS_MAX: i64 = 999_999_999;

/// An invalid field: its dotted path, the problem and the remedy.
type Violation = (String, String);

/// Maximum number of items of a repeated field, such as `cless.v1.Traffic.targets`. 100 for a field
/// that is not listed.
#[must_use]
pub fn max_items(field: &str) -> usize {
    LIMITS
        .iter()
        .find(|(name, _)| *name == field)
        .map_or(100, |(_, limit)| *limit)
}

/// Clips a text to `max` bytes at the end of a character; a clipped text ends with an ellipsis.
#[must_use]
pub fn clipped(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return text.into();
    }
    let end = text.floor_char_boundary(max.saturating_sub('…'.len_utf8()));
    format!("{}…", &text[..end]).into()
}

/// A text of a program or an engine, clipped to `max` bytes and without NUL, so that a request may
/// hold it.
#[must_use]
pub fn sendable(text: &str, max: usize) -> String {
    clipped(text, max).replace('\0', "\u{fffd}")
}

/// The status of a request with invalid fields. `more` is the number of violations left out.
pub fn invalid_argument<'a>(
    violations: impl IntoIterator<Item = (&'a str, &'a str)>,
    mut more: usize,
) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info("INVALID_FIELD", ERROR_DOMAIN, HashMap::new());
    let mut message = String::new();
    let mut room = DETAILS_MAX;
    let mut told = 0;
    for (field, reason) in violations {
        let (field, reason) = (clipped(field, SHOWN_MAX), clipped(reason, SHOWN_MAX));
        let left = room.checked_sub(field.len() + reason.len());
        let Some(left) = left.filter(|_| told < VIOLATIONS_MAX) else {
            more += 1;
            continue;
        };
        (room, told) = (left, told + 1);
        let separator = if message.is_empty() { "" } else { "; " };
        // Writing to a string cannot fail.
        let _ = write!(message, "{separator}{field}: {reason}");
        details.add_bad_request_violation(field, reason);
    }
    let mut message = clipped(&message, MESSAGE_MAX).into_owned();
    if more > 0 {
        let _ = write!(message, "; and {more} more");
    }
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// Checks the encoding of the message with this full name, such as
/// `cless.v1.UpdateTrafficRequest`. A name that is unknown or does not end in `Request` passes.
///
/// # Errors
/// INVALID_ARGUMENT, which names the fields and the remedies.
pub fn check(name: &str, bytes: &[u8]) -> Result<(), Status> {
    if !name.ends_with("Request") {
        return Ok(());
    }
    let schema = &*SCHEMA;
    let Some(&message) = schema.by_name.get(name) else {
        return Ok(());
    };
    let mut walk = Walk {
        schema,
        told: Vec::new(),
        more: 0,
    };
    if walk.message(message, bytes, None, 0).is_err() {
        walk.violation(None, &format!("is no valid {name}: encode it as one"));
    }
    if walk.told.is_empty() {
        return Ok(());
    }
    let told = walk.told.iter();
    Err(invalid_argument(
        told.map(|(field, reason)| (&**field, &**reason)),
        walk.more,
    ))
}

/// The place of a value: the fields that lead to it. Rendered only for a violation.
#[derive(Debug, Clone, Copy)]
struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    field: &'a str,
    item: Item<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Item<'a> {
    Only,
    Index(usize),
    /// The encoded entry of a map.
    Entry(&'a [u8]),
    /// Key or value of a map entry, which the path of the entry names.
    InEntry,
}

impl Path<'_> {
    fn render(&self) -> String {
        let mut text = self.parent.map(Path::render).unwrap_or_default();
        let separator = if text.is_empty() { "" } else { "." };
        let _ = match self.item {
            Item::InEntry => Ok(()),
            Item::Only => write!(text, "{separator}{}", self.field),
            Item::Index(at) => write!(text, "{separator}{}[{at}]", self.field),
            Item::Entry(entry) => {
                let key = entry_key(entry).unwrap_or_default();
                let key = String::from_utf8_lossy(&key[..key.len().min(SHOWN_MAX)]);
                let shown = key.escape_debug().to_string();
                write!(text, "{separator}{}[{}]", self.field, clipped(&shown, 200))
            }
        };
        text
    }
}

/// The bytes of a map entry's key, if it is a text.
fn entry_key(entry: &[u8]) -> Option<&[u8]> {
    let mut rest = entry;
    let mut key = None;
    while !rest.is_empty() {
        if let (1, Value::Sized(bytes)) = next(&mut rest).ok()? {
            key = Some(bytes);
        }
    }
    key
}

struct Walk<'s> {
    schema: &'s Schema,
    told: Vec<Violation>,
    more: usize,
}

impl<'s> Walk<'s> {
    fn violation(&mut self, at: Option<&Path<'_>>, reason: &str) {
        if self.told.len() >= VIOLATIONS_MAX {
            self.more += 1;
            return;
        }
        let field = at.map_or_else(|| "request".to_owned(), Path::render);
        self.told.push((field, reason.to_owned()));
    }

    fn message(
        &mut self,
        message: usize,
        mut bytes: &[u8],
        at: Option<&Path<'_>>,
        depth: usize,
    ) -> Result<(), Malformed> {
        let schema: &'s Schema = self.schema;
        let of = schema.messages.get(message).ok_or(Malformed)?;
        if depth > DEPTH_MAX || of.fields.len() > FIELDS_MAX {
            return Err(Malformed);
        }
        let mut counts = [0_usize; FIELDS_MAX];
        while !bytes.is_empty() {
            let (number, value) = next(&mut bytes)?;
            let found = of
                .fields
                .binary_search_by_key(&number, |field| field.number);
            // An unknown field is skipped, here and by the decoder.
            let Ok(index) = found else { continue };
            let (Some(field), Some(count)) = (of.fields.get(index), counts.get_mut(index)) else {
                continue;
            };
            let place = *count;
            *count += match (&value, field.kind) {
                // A packed field: every item takes at least one byte.
                (Value::Sized(items), Kind::Varint) => items.len(),
                (Value::Sized(items), Kind::Fixed32) => items.len().div_ceil(4),
                (Value::Sized(items), Kind::Fixed64) => items.len().div_ceil(8),
                _ => 1,
            };
            if *count > field.limit && (field.repeated || field.kind.is_message()) {
                continue;
            }
            let path = Path {
                parent: at,
                field: &field.name,
                item: match &value {
                    Value::Sized(entry) if field.map => Item::Entry(entry),
                    _ if matches!(at, Some(at) if matches!(at.item, Item::Entry(_))) => {
                        Item::InEntry
                    }
                    _ if field.repeated => Item::Index(place),
                    _ => Item::Only,
                },
            };
            if self.value(field, value, &path, depth).is_err() {
                self.violation(Some(&path), "is malformed: encode it as its type");
            }
        }
        for (field, &count) in of.fields.iter().zip(&counts) {
            if count <= field.limit {
                continue;
            }
            let path = Path {
                parent: at,
                field: &field.name,
                item: Item::Only,
            };
            let limit = field.limit;
            if field.repeated {
                let reason =
                    format!("{count} items are given, at most {limit} are taken: leave some out");
                self.violation(Some(&path), &reason);
            } else if field.kind.is_message() {
                self.violation(
                    Some(&path),
                    &format!("is given {count} times: give it once"),
                );
            }
        }
        Ok(())
    }

    fn value(
        &mut self,
        field: &FieldType,
        value: Value<'_>,
        at: &Path<'_>,
        depth: usize,
    ) -> Result<(), Malformed> {
        match (field.kind, value) {
            (Kind::Varint, Value::Varint(_))
            | (Kind::Fixed32, Value::Fixed32)
            | (Kind::Fixed64, Value::Fixed64) => Ok(()),
            // Packed.
            (Kind::Varint | Kind::Fixed32 | Kind::Fixed64, Value::Sized(_)) if field.repeated => {
                Ok(())
            }
            (Kind::Text | Kind::Bytes, Value::Sized(bytes)) => {
                if bytes.len() > TEXT_MAX {
                    let length = bytes.len();
                    let reason =
                        format!("has {length} bytes, at most {TEXT_MAX} are taken: shorten it");
                    self.violation(Some(at), &reason);
                } else if field.kind == Kind::Text {
                    self.text(bytes, at);
                }
                Ok(())
            }
            (Kind::Duration, Value::Sized(bytes)) => {
                let (seconds, nanos) = time(bytes)?;
                if let Some(reason) = bad_duration(seconds, nanos) {
                    self.violation(Some(at), reason);
                }
                Ok(())
            }
            (Kind::Timestamp, Value::Sized(bytes)) => {
                let (seconds, nanos) = time(bytes)?;
                if let Some(reason) = bad_timestamp(seconds, nanos) {
                    self.violation(Some(at), reason);
                }
                Ok(())
            }
            (Kind::Message(inner), Value::Sized(bytes)) => {
                self.message(inner, bytes, Some(at), depth + 1)
            }
            _ => Err(Malformed),
        }
    }

    fn text(&mut self, bytes: &[u8], at: &Path<'_>) {
        if std::str::from_utf8(bytes).is_err() {
            self.violation(Some(at), "is not UTF-8: send text");
        } else if bytes.contains(&0) {
            self.violation(Some(at), "holds a NUL character: leave it out");
        }
    }
}

fn bad_duration(seconds: i64, nanos: i64) -> Option<&'static str> {
    if nanos.abs() > NANOS_MAX {
        Some("has nanos beyond 999999999: carry whole seconds over to `seconds`")
    } else if (seconds < 0 && nanos > 0) || (seconds > 0 && nanos < 0) {
        Some("has seconds and nanos of different signs: give both the same sign")
    } else if seconds.unsigned_abs() > DURATION_SECONDS_MAX.unsigned_abs() {
        Some("is beyond 315576000000 s: give a shorter duration")
    } else {
        None
    }
}

fn bad_timestamp(seconds: i64, nanos: i64) -> Option<&'static str> {
    if !(0..=NANOS_MAX).contains(&nanos) {
        Some("has nanos outside 0 to 999999999: count them forward from `seconds`")
    } else if !TIMESTAMP_SECONDS.contains(&seconds) {
        Some("is outside the years 1 to 9999: give a time within")
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
