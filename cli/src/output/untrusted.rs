//! Each text field of each resource with text that attacks a terminal, in each format.

use cless_proto::text::is_active;
use cless_proto::v1 as pb;
use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};
use tonic::{Code, Status as GrpcStatus};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::*;
use crate::error::{ConnectAttempt, Error, Idempotency};

/// ANSI, OSC 8, a title, C1, bidi, a separator, a tag and a line break before a forged line.
const HOSTILE: &str = "x\u{1b}[2J\u{1b}]8;;http://evil\u{1b}\\y\u{1b}]0;t\u{7}\u{9b}31m\u{202e}\u{2066}\
                       \u{61c}\u{2028}\u{e0041}\u{7f}\u{85}\r\nFORGED: z\ttail\u{8}";

/// A value of a field at each depth down to `depth`, with [`HOSTILE`] as every text.
fn hostile_value(field: &FieldDescriptor, depth: usize) -> Option<Value> {
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else {
            return None;
        };
        let value = hostile_value(&entry.map_entry_value_field(), depth)?;
        let key = MapKey::String(HOSTILE.to_owned());
        return Some(Value::Map([(key, value)].into()));
    }
    let one = match field.kind() {
        Kind::String => Value::String(HOSTILE.to_owned()),
        Kind::Message(message) => match message.full_name() {
            "google.protobuf.Timestamp" | "google.protobuf.Duration" => {
                Value::Message(DynamicMessage::new(message))
            }
            _ if depth == 0 => return None,
            _ => Value::Message(hostile_message(&message, depth - 1)),
        },
        Kind::Enum(_) => Value::EnumNumber(1),
        Kind::Uint32 => Value::U32(1),
        Kind::Int32 => Value::I32(1),
        Kind::Uint64 => Value::U64(1),
        Kind::Int64 => Value::I64(1),
        Kind::Bool => Value::Bool(true),
        _ => return None,
    };
    Some(if field.is_list() {
        Value::List(vec![one])
    } else {
        one
    })
}

fn hostile_message(descriptor: &MessageDescriptor, depth: usize) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        // Of a oneof, the last stays.
        if let Some(value) = hostile_value(&field, depth) {
            message.set_field(&field, value);
        }
    }
    message
}

/// Neither an active character nor a line that the text forged.
fn assert_safe(text: &str, place: &str) {
    let active = |c: char| is_active(c) && c != '\n';
    assert!(!text.contains(active), "{place}: {text:?}");
    let is_forged = |line: &str| line.trim_start().starts_with("FORGED");
    assert!(!text.lines().any(is_forged), "{place}: {text}");
}

fn check<R: Resource + Default>() {
    let descriptor = json::POOL.get_message_by_name(R::MESSAGE);
    let descriptor = descriptor.expect("it is in the API");
    let bytes = hostile_message(&descriptor, 6).encode_to_vec();
    let resource = R::decode(bytes.as_slice()).expect("it is of its descriptor");
    let context = RenderContext {
        now: SystemTime::UNIX_EPOCH,
        proxy: "http://127.0.0.1:8080".to_owned(),
    };
    let table = table::table(R::COLUMNS, [resource.row(&context)]);
    assert_eq!(table.lines().count(), 2, "{table}");
    assert_safe(&table, R::MESSAGE);
    assert_safe(&resource.detail(&context), R::MESSAGE);
    assert_safe(&name_line(resource.name()), R::MESSAGE);
    let shown = json::ProtoJson::new(&resource);
    let (json, yaml) = (json::json(&shown), json::yaml(&shown));
    assert_safe(&json, "json");
    assert_safe(&yaml.replace("\n\n", ""), "yaml");
    // The value is kept.
    let json: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    let yaml: serde_json::Value = serde_yaml_ng::from_str(&yaml).expect("it is YAML");
    assert_eq!(json, yaml);
    assert!(json.to_string().contains("evil"), "{json}");
}

#[test]
fn no_text_of_a_resource_acts_on_a_terminal_in_any_format() {
    check::<pb::Service>();
    check::<pb::Version>();
    check::<pb::Traffic>();
    check::<pb::TrafficRevision>();
    check::<pb::Node>();
    check::<pb::Instance>();
    check::<pb::Token>();
    check::<pb::AuditEntry>();
}

#[test]
fn no_text_of_an_error_acts_on_a_terminal() {
    for code in 1..=16 {
        let mut details = ErrorDetails::with_bad_request_violation(HOSTILE, HOSTILE);
        details.add_precondition_failure_violation(HOSTILE, HOSTILE, HOSTILE);
        details.set_resource_info(HOSTILE, format!("services/{HOSTILE}"), "", HOSTILE);
        details.set_error_info(HOSTILE, HOSTILE, [(HOSTILE.to_owned(), HOSTILE.to_owned())]);
        let named = ErrorDetails::with_resource_info("", format!("services/{HOSTILE}"), "", "");
        for details in [details, named, ErrorDetails::new()] {
            let status = GrpcStatus::with_error_details(Code::from(code), HOSTILE, details);
            let error = Error::Api {
                operation: format!("get {HOSTILE}"),
                idempotency: Idempotency::ReadOnly,
                status: Box::new(status),
            };
            let error = error.with_hints(vec![HOSTILE.to_owned()]);
            let report = error.report();
            for line in report.errors.iter().chain(&report.hints) {
                assert_safe(line, "error");
                assert!(!line.contains('\n'), "{line}");
            }
        }
    }
    let reasons = vec![HOSTILE.to_owned()];
    let attempts = vec![ConnectAttempt {
        server: HOSTILE.to_owned(),
        reason: HOSTILE.to_owned(),
        is_untrusted: true,
    }];
    for error in [
        Error::File { lines: reasons },
        Error::Connect { attempts },
        Error::Usage {
            message: HOSTILE.to_owned(),
            hint: Some(HOSTILE.to_owned()),
        },
    ] {
        let report = error.report();
        report
            .errors
            .iter()
            .for_each(|line| assert_safe(line, "error"));
        report
            .hints
            .iter()
            .for_each(|line| assert_safe(line, "hint"));
    }
}
