//! The messages of the API, from their descriptors.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorSet};

use super::max_items;

#[derive(Debug)]
pub(super) struct Schema {
    pub(super) messages: Vec<MessageType>,
    pub(super) by_name: HashMap<String, usize>,
}

#[derive(Debug)]
pub(super) struct MessageType {
    /// By ascending number.
    pub(super) fields: Vec<FieldType>,
}

#[derive(Debug)]
pub(super) struct FieldType {
    pub(super) number: u64,
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Maximum number of items; 1 unless repeated.
    pub(super) limit: usize,
    pub(super) repeated: bool,
    pub(super) map: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Varint,
    Fixed32,
    Fixed64,
    Text,
    Bytes,
    Message(usize),
    Duration,
    Timestamp,
}

impl Kind {
    /// Whether several singular values would be merged; of scalars the last counts.
    pub(super) fn is_message(self) -> bool {
        matches!(self, Self::Message(_) | Self::Duration | Self::Timestamp)
    }
}

pub(super) static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    // Written by this crate's build script.
    let set = FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET).unwrap_or_default();
    Schema::new(&set)
});

impl Schema {
    fn new(set: &FileDescriptorSet) -> Self {
        let mut found = Vec::new();
        for file in &set.file {
            for message in &file.message_type {
                collect(file.package(), message, &mut found);
            }
        }
        let by_name: HashMap<String, usize> = found
            .iter()
            .enumerate()
            .map(|(at, (name, _))| (name.clone(), at))
            .collect();
        let is_map = |name: &str| {
            let message = by_name.get(name).and_then(|&at| found.get(at));
            let options = message.and_then(|(_, message)| message.options.as_ref());
            options.is_some_and(|options| options.map_entry())
        };
        let messages = found
            .iter()
            .map(|(name, message)| {
                let mut fields: Vec<FieldType> = message
                    .field
                    .iter()
                    .map(|field| {
                        let of = field.type_name().trim_start_matches('.');
                        let repeated = field.label() == Label::Repeated;
                        FieldType {
                            number: u64::try_from(field.number()).unwrap_or_default(),
                            name: field.name().to_owned(),
                            kind: kind(field.r#type(), of, &by_name),
                            limit: if repeated {
                                max_items(&format!("{name}.{}", field.name()))
                            } else {
                                1
                            },
                            repeated,
                            map: repeated && is_map(of),
                        }
                    })
                    .collect();
                fields.sort_by_key(|field| field.number);
                MessageType { fields }
            })
            .collect();
        Self { messages, by_name }
    }
}

pub(super) fn collect<'a>(
    prefix: &str,
    message: &'a DescriptorProto,
    into: &mut Vec<(String, &'a DescriptorProto)>,
) {
    let name = format!("{prefix}.{}", message.name());
    for inner in &message.nested_type {
        collect(&name, inner, into);
    }
    into.push((name, message));
}

fn kind(of: Type, name: &str, by_name: &HashMap<String, usize>) -> Kind {
    match of {
        Type::Message | Type::Group => match (name, by_name.get(name)) {
            ("google.protobuf.Duration", _) => Kind::Duration,
            ("google.protobuf.Timestamp", _) => Kind::Timestamp,
            (_, Some(&at)) => Kind::Message(at),
            // A set of descriptors is complete.
            (_, None) => Kind::Bytes,
        },
        Type::String => Kind::Text,
        Type::Bytes => Kind::Bytes,
        Type::Fixed32 | Type::Sfixed32 | Type::Float => Kind::Fixed32,
        Type::Fixed64 | Type::Sfixed64 | Type::Double => Kind::Fixed64,
        Type::Int32
        | Type::Int64
        | Type::Uint32
        | Type::Uint64
        | Type::Sint32
        | Type::Sint64
        | Type::Bool
        | Type::Enum => Kind::Varint,
    }
}
