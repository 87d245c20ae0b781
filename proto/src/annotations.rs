//! The comments of fields agree with their `google.api.field_behavior`, which generators read.

use prost_reflect::{DescriptorPool, FieldDescriptor, MessageDescriptor, Value};

/// The numbers of `google.api.FieldBehavior`.
const REQUIRED: i32 = 2;
const OUTPUT_ONLY: i32 = 3;
const IMMUTABLE: i32 = 5;
const IDENTIFIER: i32 = 8;

fn behavior(field: &FieldDescriptor) -> Vec<i32> {
    let pool = field.parent_pool();
    let extension = pool
        .get_extension_by_name("google.api.field_behavior")
        .expect("vendored");
    let options = field.options();
    let Value::List(values) = options.get_extension(&extension).into_owned() else {
        panic!("a list");
    };
    values
        .iter()
        .filter_map(prost_reflect::Value::as_enum_number)
        .collect()
}

fn comment(field: &FieldDescriptor) -> String {
    let file = field.parent_file();
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let found = info
        .expect("source info")
        .location
        .iter()
        .find(|location| location.path == field.path())
        .and_then(|location| location.leading_comments.clone());
    found.unwrap_or_default()
}

fn messages() -> Vec<MessageDescriptor> {
    let pool = DescriptorPool::decode(crate::FILE_DESCRIPTOR_SET).expect("descriptors");
    pool.all_messages()
        .filter(|message| message.package_name() == "cless.v1")
        .collect()
}

#[test]
fn comments_and_annotations_agree() {
    let mut annotated = 0;
    for message in messages() {
        for field in message.fields() {
            let (comment, behavior) = (comment(&field), behavior(&field));
            let name = field.full_name();
            annotated += behavior.len();
            let words = comment.split_whitespace().collect::<Vec<_>>().join(" ");
            let required = words == "Required."
                || [". Required.", ") Required.", "` Required."]
                    .iter()
                    .any(|end| words.contains(end));
            if required {
                assert!(behavior.contains(&REQUIRED), "{name}: {words}");
            }
            if words.contains("Output only.") {
                assert!(behavior.contains(&OUTPUT_ONLY), "{name}");
            }
        }
    }
    assert!(annotated > 80, "{annotated}");
}

#[test]
fn resources_and_requests_are_annotated() {
    for message in messages() {
        let of = |name: &str| {
            message
                .get_field_by_name(name)
                .map(|field| behavior(&field))
        };
        match message.name() {
            "Service" | "Version" | "Traffic" | "TrafficRevision" | "Node" | "Instance" => {
                assert_eq!(of("name"), Some(vec![IDENTIFIER]), "{}", message.name());
            }
            request if request.ends_with("Request") => {
                for field in ["name", "parent", "service_id"] {
                    let found = of(field).unwrap_or_else(|| vec![REQUIRED]);
                    assert_eq!(found, [REQUIRED], "{request}.{field}");
                }
            }
            _ => {}
        }
        if message.name() == "Version" {
            assert_eq!(of("spec"), Some(vec![REQUIRED, IMMUTABLE]));
        }
    }
}
