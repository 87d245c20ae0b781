//! A service as read so far.

use std::collections::BTreeMap;

use cless_proto::v1 as pb;

use crate::compose::plan::Remark;
use crate::compose::reader::{Cursor, Reader};

/// Maximum characters of a label's key and of its value, as the control plane has it.
const LABEL_MAX: usize = 63;

/// The service as read so far.
#[derive(Debug, Default)]
pub(super) struct Builder {
    pub(super) spec: pb::VersionSpec,
    pub(super) settings: pb::ServiceSettings,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) places: BTreeMap<String, Remark>,
}

impl Builder {
    /// Records the place that sets a field of the version.
    pub(super) fn set(&mut self, field: &str, at: &Cursor<'_>) {
        self.place(&format!("version.spec.{field}"), at);
    }

    pub(super) fn place(&mut self, field: &str, at: &Cursor<'_>) {
        self.places.insert(field.to_owned(), at.error(""));
    }
}

/// Labels of a container or of its deployment become those of the service.
pub(super) fn labels(
    reader: &mut Reader<'_>,
    builder: &mut Builder,
    at: &Cursor<'_>,
) -> Result<(), Remark> {
    for pair in reader.pairs(at, &['='])? {
        let value = pair.value.unwrap_or_default();
        if [&pair.key, &value]
            .iter()
            .any(|text| text.chars().count() > LABEL_MAX)
        {
            let text = format!(
                "a label has at most {LABEL_MAX} characters a side: shorten it, or use `service update --host` for a host name"
            );
            reader.remark(&pair.at, &text);
            continue;
        }
        builder.place(
            &format!("service.labels[{}]", pair.key.escape_debug()),
            &pair.at,
        );
        builder.labels.insert(pair.key, value);
    }
    Ok(())
}
