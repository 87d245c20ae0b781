//! Resources in proto3 JSON and YAML, by reflection over the descriptors of the API.
//!
//! New fields of the API need no code here. Names and formats (durations `"30s"`, RFC 3339 times,
//! 64-bit integers as strings) are those of other protobuf tools. Fields with default values are
//! included for scripts. Characters that a terminal obeys are escaped; the value stays the same.

use std::sync::LazyLock;

use cless_proto::text::is_active;
use cless_proto::v1 as pb;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, SerializeOptions,
};
use serde::{Serialize, Serializer};
use serde_yaml_ng::Value;

use super::resource::Resource;
use crate::{suggest, text};

pub(super) static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(cless_proto::FILE_DESCRIPTOR_SET)
        .expect("the descriptors come from the build of the API")
});

/// A resource that serialises as proto3 JSON.
#[derive(Debug)]
pub(crate) struct ProtoJson(DynamicMessage);

impl ProtoJson {
    pub(crate) fn new<R: Resource>(resource: &R) -> Self {
        let descriptor = POOL
            .get_message_by_name(R::MESSAGE)
            .expect("every resource is a message of the API");
        let bytes = resource.encode_to_vec();
        let message = DynamicMessage::decode(descriptor, bytes.as_slice())
            .expect("the code and the descriptors have one source");
        Self(message)
    }
}

impl Serialize for ProtoJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let options = SerializeOptions::new().skip_default_fields(false);
        self.0.serialize_with_options(serializer, &options)
    }
}

/// The value as JSON over several lines.
pub(crate) fn json(value: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(value).expect("all maps have string keys");
    format!("{}\n", cless_proto::text::json(&text))
}

/// The value as JSON on one line.
pub(crate) fn line(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).expect("all maps have string keys");
    format!("{}\n", cless_proto::text::json(&text))
}

/// The value as YAML.
pub(crate) fn yaml(value: &impl Serialize) -> String {
    let print = |value: &Value| serde_yaml_ng::to_string(value).expect("all maps have string keys");
    let mut value = serde_yaml_ng::to_value(value).expect("all maps have string keys");
    let text = print(&value);
    // The library quotes and escapes C0 and C1, but neither separators of lines nor bidi characters.
    if !text.contains(is_raw) {
        return text;
    }
    let mut mark = "CLESS-TEXT-".to_owned();
    while text.contains(&mark) {
        mark.push('X');
    }
    let mut quoted = Vec::new();
    value = with_marks(value, &mark, &mut quoted);
    let marked = print(&value);
    let mut parts = marked.split(&mark);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (number, rest) = part.split_once('-').unwrap_or_default();
        let string = number.parse().ok().and_then(|at: usize| quoted.get(at));
        text.push_str(string.map_or("", String::as_str));
        text.push_str(rest);
    }
    text
}

/// Whether the YAML writer leaves the character as it is, though a terminal acts on it.
fn is_raw(c: char) -> bool {
    is_active(c) && !matches!(c, '\n' | '\t')
}

/// Replaces strings with raw characters by `MARK` and their number and `-`, which is a plain scalar.
fn with_marks(value: Value, mark: &str, quoted: &mut Vec<String>) -> Value {
    match value {
        Value::String(text) if text.contains(is_raw) => {
            quoted.push(double_quoted(&text));
            Value::String(format!("{mark}{}-", quoted.len() - 1))
        }
        Value::Sequence(items) => {
            let items = items.into_iter();
            let items = items.map(|item| with_marks(item, mark, quoted));
            Value::Sequence(items.collect())
        }
        Value::Mapping(entries) => {
            let mut marked = serde_yaml_ng::Mapping::new();
            for (key, value) in entries {
                let key = with_marks(key, mark, quoted);
                marked.insert(key, with_marks(value, mark, quoted));
            }
            Value::Mapping(marked)
        }
        value => value,
    }
}

/// A double-quoted scalar of YAML 1.2 (section 5.7).
fn double_quoted(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for c in text.chars() {
        match (c, u32::from(c)) {
            ('"' | '\\', _) => quoted.extend(['\\', c]),
            (c, code) if is_active(c) && code > 0xffff => {
                quoted.push_str(&format!("\\U{code:08x}"))
            }
            (c, code) if is_active(c) => quoted.push_str(&format!("\\u{code:04x}")),
            (c, _) => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// The specification in a version as `-o yaml` or `-o json` prints it. Fields that only the server
/// sets are ignored; JSON is YAML too.
///
/// # Errors
/// The reason, which names the field, and the nearest known field for an unknown one.
pub(crate) fn version_from_yaml(text: &str) -> Result<pb::VersionSpec, String> {
    let value: Value = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
    let descriptor = |name| {
        POOL.get_message_by_name(name)
            .ok_or_else(|| format!("{name} is not in the API"))
    };
    check_keys(&value, &descriptor(pb::Version::MESSAGE)?, "")?;
    let spec = value.get("spec").filter(|spec| !spec.is_null());
    let spec =
        spec.ok_or("`spec` is missing: give a version as `cless version get -o yaml` prints it")?;
    let message = DynamicMessage::deserialize(descriptor("cless.v1.VersionSpec")?, spec)
        .map_err(|error| format!("spec: {error}"))?;
    message.transcode_to().map_err(|error| error.to_string())
}

/// Checks that every key is a field, at any depth that the messages of the API have.
fn check_keys(value: &Value, message: &MessageDescriptor, path: &str) -> Result<(), String> {
    // The JSON of well-known types differs from their fields.
    if message.full_name().starts_with("google.protobuf.") || value.is_null() {
        return Ok(());
    }
    let Value::Mapping(entries) = value else {
        let at = if path.is_empty() { "the file" } else { path };
        return Err(format!("{at}: expected fields"));
    };
    for (key, value) in entries {
        let key = key
            .as_str()
            .ok_or_else(|| format!("{path}: a key is not a text"))?;
        let at = match path {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        };
        let by_json = message.get_field_by_json_name(key);
        let field = by_json.or_else(|| message.get_field_by_name(key));
        let Some(field) = field else {
            let known: Vec<FieldDescriptor> = message.fields().collect();
            let nearest = suggest::nearest(key, known.iter().map(FieldDescriptor::json_name));
            let nearest =
                nearest.map_or_else(String::new, |name| format!("; did you mean `{name}`?"));
            return Err(format!("`{}` is not a field{nearest}", text::clean(&at)));
        };
        let Kind::Message(inner) = field.kind() else {
            continue;
        };
        match value {
            _ if field.is_map() => {}
            Value::Sequence(items) if field.is_list() => {
                for item in items {
                    check_keys(item, &inner, &at)?;
                }
            }
            _ => check_keys(value, &inner, &at)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version() -> pb::Version {
        pb::Version {
            name: "services/hello/versions/3".to_owned(),
            number: 3,
            spec: Some(pb::VersionSpec {
                image: "hello:1".to_owned(),
                port: 80,
                env: [("A".to_owned(), "1".to_owned())].into(),
                args: vec!["-v".to_owned()],
                memory_bytes: 1 << 40,
                tmpfs: [("/tmp".to_owned(), 1 << 20)].into(),
                stop_grace: Some(prost_types::Duration {
                    seconds: 10,
                    nanos: 0,
                }),
                readiness: Some(pb::ReadinessProbe {
                    kind: Some(pb::readiness_probe::Kind::Http(pb::HttpProbe {
                        path: "/".to_owned(),
                        host: "shop.example.org".to_owned(),
                        ..Default::default()
                    })),
                    ..Default::default()
                }),
                no_init: true,
                cap_add: vec!["NET_RAW".to_owned()],
                tmpfs_exec: vec!["/tmp".to_owned()],
                shm_bytes: 1 << 20,
                ulimits: vec![pb::Ulimit {
                    name: "memlock".to_owned(),
                    soft: 1 << 40,
                    hard: -1,
                }],
                extra_hosts: [("db".to_owned(), "10.0.0.5".to_owned())].into(),
                dns: vec!["10.0.0.53".to_owned()],
                egress: vec!["db:5432".to_owned()],
                ..Default::default()
            }),
            create_time: Some(prost_types::Timestamp {
                seconds: 1,
                nanos: 0,
            }),
            verification: Some(pb::Verification {
                nodes: vec![pb::NodeVerification::default()],
                ..Default::default()
            }),
            status: Some(pb::VersionStatus::default()),
            resolved_image: Some(pb::ResolvedImage::default()),
            ..Default::default()
        }
    }

    #[test]
    fn a_version_as_printed_is_read_back() {
        let version = version();
        let printed = ProtoJson::new(&version);
        for text in [yaml(&printed), json(&printed)] {
            assert_eq!(version_from_yaml(&text).ok(), version.spec, "{text}");
        }
    }

    #[test]
    fn yaml_keeps_values_and_quotes_what_a_terminal_obeys() {
        let value = serde_json::json!({
            "key\u{202e}": ["a\"\\\u{85}b\n", "CLESS-TEXT-0-", "\u{e0041}\u{2028}", "plain", 1, null],
        });
        let text = yaml(&value);
        assert!(!text.contains(is_raw), "{text:?}");
        assert!(text.contains(r#""a\"\\\u0085b\u000a""#), "{text}");
        assert_eq!(
            serde_yaml_ng::from_str::<serde_json::Value>(&text).unwrap(),
            value,
            "{text}"
        );
        assert_eq!(yaml(&["plain"]), "- plain\n");
    }

    #[test]
    fn unknown_keys_are_refused_with_the_nearest_field() {
        let refused = |text| version_from_yaml(text).expect_err("it is refused");
        assert_eq!(
            refused("spec: {imge: x}"),
            "`spec.imge` is not a field; did you mean `image`?"
        );
        assert_eq!(
            refused("spec: {image: x, ulimits: [{name: core, sofd: 0}]}"),
            "`spec.ulimits.sofd` is not a field; did you mean `soft`?"
        );
        assert_eq!(
            refused("spec: {image: x, readiness: {http: {pth: /}}}"),
            "`spec.readiness.http.pth` is not a field; did you mean `path`?"
        );
        assert!(refused("{}").starts_with("`spec` is missing"));
        assert!(refused("- 1").contains("expected fields"));
        assert!(refused("spec: {image: [}").contains("line"));
        assert!(refused("spec: {image: 1}").starts_with("spec: "));
    }
}
