//! Resources in proto3 JSON and YAML, by reflection over the descriptors of the API.
//!
//! New fields of the API need no code here. Names and formats (durations `"30s"`, RFC 3339 times,
//! 64-bit integers as strings) are those of other protobuf tools. Fields with default values are
//! included for scripts.

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde::{Serialize, Serializer};

use super::resource::Resource;

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
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

pub(crate) fn json(value: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(value).expect("all maps have string keys");
    format!("{text}\n")
}

pub(crate) fn yaml(value: &impl Serialize) -> String {
    serde_yaml_ng::to_string(value).expect("all maps have string keys")
}
