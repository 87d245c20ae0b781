//! Images that this node pulled, with the time each was last needed, stored on disk.
//!
//! Only these are candidates for removal; images that users pulled, built or loaded are not
//! recorded. One JSON file in the cache folder, replaced atomically. An unreadable file is moved
//! aside for inspection and the record starts empty, so its images are never removed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::warn;

use super::stored::{self, Schema, Stored, is_image_id};

/// Entries by the engine's image id.
pub type Entries = BTreeMap<String, PulledImage>;

/// An image pulled by this node.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PulledImage {
    /// Names given by the pull, in canonical form.
    pub names: BTreeSet<String>,
    /// Time when the image was last needed, in seconds since 1970.
    pub needed: u64,
}

#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    schema: Schema,
    images: Entries,
}

impl stored::Content for Content {
    const FILE: &str = "images.json";
    const DAMAGED: &str = "images.damaged";

    fn is_valid(&self) -> bool {
        self.images.keys().all(|id| is_image_id(id))
    }
}

/// The record; the default one has no file.
#[derive(Debug, Default)]
pub struct PullRecord(Stored<Content>);

impl PullRecord {
    /// Reads the record in the cache folder.
    ///
    /// # Errors
    /// If the file can be neither read nor moved aside.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let (stored, damaged) = Stored::open(folder)?;
        if let Some(path) = damaged {
            warn!(
                path = %path.display(),
                "the record of pulled images is damaged and was moved aside; this node no longer \
                 removes the images in it"
            );
        }
        Ok(Self(stored))
    }

    /// A copy of all entries.
    pub fn entries(&self) -> Entries {
        self.0.read(|content| content.images.clone())
    }

    /// Whether a pull of this node gave an image this name.
    pub fn has_name(&self, name: &str) -> bool {
        let has = |entry: &PulledImage| entry.names.contains(name);
        self.0.read(|content| content.images.values().any(has))
    }

    /// Records a pull. If a tag moved from another image, that image keeps the name too: a version
    /// that refers to it still needs it.
    pub async fn pulled(&self, id: &str, names: BTreeSet<String>, now: SystemTime) {
        self.change(|entries| {
            let entry = entries.entry(id.to_owned()).or_insert_with(|| PulledImage {
                names: BTreeSet::new(),
                needed: 0,
            });
            entry.names.extend(names);
            entry.needed = entry.needed.max(seconds(now));
        })
        .await;
    }

    /// Marks images as needed at `now`.
    pub async fn needed<'a>(&self, ids: impl Iterator<Item = &'a str>, now: SystemTime) {
        self.change(|entries| {
            for id in ids {
                if let Some(entry) = entries.get_mut(id) {
                    entry.needed = seconds(now);
                }
            }
        })
        .await;
    }

    /// Removes the entries of missing images.
    pub async fn forget<'a>(&self, ids: impl Iterator<Item = &'a str>) {
        self.change(|entries| {
            for id in ids {
                entries.remove(id);
            }
        })
        .await;
    }

    /// Changes the entries. A failed write is logged; its only effect is that a restart forgets an
    /// image.
    async fn change(&self, change: impl FnOnce(&mut Entries)) {
        let changed = self.0.change(|content| change(&mut content.images));
        if let Err(error) = changed.await {
            warn!(%error, "the record of pulled images cannot be written to the cache folder");
        }
    }
}

/// Seconds since 1970; 0 for earlier times.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::stored::Content as _;
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::time::Duration;

    const FILE: &str = Content::FILE;
    const DAMAGED: &str = Content::DAMAGED;

    fn parse(bytes: &[u8]) -> Option<Entries> {
        stored::parse(bytes).map(|content: Content| content.images)
    }

    fn id(of: char) -> String {
        format!("sha256:{}", of.to_string().repeat(64))
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[tokio::test]
    async fn pulled_images_are_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let record = Arc::new(PullRecord::open(folder.path()).unwrap());
        record
            .pulled(&id('a'), names(&["r/app:1", "r/app@sha256:1"]), at(5))
            .await;
        record.pulled(&id('b'), names(&["r/b:1"]), at(6)).await;
        record.forget([id('b').as_str()].into_iter()).await;
        record
            .needed([id('a').as_str(), id('b').as_str()].into_iter(), at(9))
            .await;
        let again = PullRecord::open(folder.path()).unwrap();
        let entry = PulledImage {
            names: names(&["r/app:1", "r/app@sha256:1"]),
            needed: 9,
        };
        assert_eq!(again.entries(), [(id('a'), entry)].into());
        assert!(again.has_name("r/app:1") && !again.has_name("r/b:1"));
    }

    #[tokio::test]
    async fn a_moved_tag_belongs_to_both_images() {
        let record = Arc::new(PullRecord::default());
        record
            .pulled(&id('a'), names(&["r/app:1", "r/app@sha256:1"]), at(5))
            .await;
        record
            .pulled(&id('b'), names(&["r/app:1", "r/app@sha256:2"]), at(6))
            .await;
        let entries = record.entries();
        assert_eq!(
            entries[&id('a')].names,
            names(&["r/app:1", "r/app@sha256:1"])
        );
        assert_eq!(
            entries[&id('b')].names,
            names(&["r/app:1", "r/app@sha256:2"])
        );
    }

    #[test]
    fn a_damaged_record_is_set_aside_and_holds_nothing() {
        let whole = r#"{"schema":1,"images":{"ID":{"names":["r/app:1"],"needed":5}}}"#;
        let whole = whole.replace("ID", &id('a'));
        for damage in [
            "",
            "nonsense",
            &whole[..whole.len() - 3],
            &whole.replace("\"schema\":1", "\"schema\":2"),
            &whole.replace("sha256:", ""),
            &whole.replace("needed", "other"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(FILE), damage).unwrap();
            let record = PullRecord::open(folder.path()).unwrap();
            assert!(record.entries().is_empty(), "{damage}");
            let aside = std::fs::read_to_string(folder.path().join(DAMAGED)).unwrap();
            assert_eq!(aside, damage);
        }
        assert_eq!(parse(whole.as_bytes()).unwrap().len(), 1);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
