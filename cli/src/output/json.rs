//! Proto3 JSON, and the same as YAML, by reflection over the contract's own descriptors.
//!
//! So a field added to the API is shown without a line of code here, names and formats (durations
//! `"30s"`, times RFC 3339, 64-bit integers as strings) are those of every other protobuf tool, and
//! fields at their default are written out, so that a script finds them.

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde::{Serialize, Serializer};

use super::resource::Resource;

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(cless_proto::FILE_DESCRIPTOR_SET)
        .expect("the descriptors were written by the build of the contract")
});

/// A resource that serialises as proto3 JSON.
#[derive(Debug)]
pub(crate) struct Shown(DynamicMessage);

impl Shown {
    pub(crate) fn new<R: Resource>(resource: &R) -> Self {
        let descriptor = POOL
            .get_message_by_name(R::MESSAGE)
            .expect("every resource names a message of the contract");
        let bytes = resource.encode_to_vec();
        let message = DynamicMessage::decode(descriptor, bytes.as_slice())
            .expect("generated code writes what the descriptors read");
        Self(message)
    }
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let options = SerializeOptions::new().skip_default_fields(false);
        self.0.serialize_with_options(serializer, &options)
    }
}

pub(crate) fn json(value: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(value).expect("maps here have text keys");
    format!("{text}\n")
}

pub(crate) fn yaml(value: &impl Serialize) -> String {
    serde_yaml_ng::to_string(value).expect("maps here have text keys")
}
