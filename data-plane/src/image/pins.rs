//! The image ids that versions of this node run, stored on disk.
//!
//! An image that was never in a registry has no digest, and its tag may be given to another image at
//! any time. So the first start of a version records the id of the image, and all later starts
//! create their containers from that id.
//!
//! Laws of [`PinTable`], tested below: the id of a version and generation never changes; a newer
//! generation replaces an older one and never the reverse; no content of the file causes a panic,
//! and a damaged file never yields pins.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use tracing::warn;

use super::stored::{self, Schema, Stored, is_image_id};

/// A pinned image.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Pin {
    /// Number of resets of the version's image at the time; see `RouteVersion.image_generation`.
    generation: u32,
    /// Reference of the version, for people who read the file.
    image: String,
    /// Id of the image in the engine.
    id: Arc<str>,
}

/// The pins by uid of the version.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinTable {
    schema: Schema,
    pins: BTreeMap<String, Pin>,
}

impl stored::Content for PinTable {
    const FILE: &str = "pins.json";
    const DAMAGED: &str = "pins.damaged";

    fn is_valid(&self) -> bool {
        self.pins.values().all(|pin| is_image_id(&pin.id))
    }
}

impl PinTable {
    /// The id that a version runs. `None`: not pinned since its image was reset last.
    pub fn get(&self, version: &str, generation: u32) -> Option<&Arc<str>> {
        let pin = self.pins.get(version);
        pin.filter(|pin| pin.generation == generation)
            .map(|pin| &pin.id)
    }

    /// Pins a version to an id, unless it is pinned already. Returns the id that it runs, which is
    /// `id` without effect if a newer generation is pinned.
    pub fn pin(&mut self, version: &str, generation: u32, image: &str, id: &str) -> Arc<str> {
        match self.pins.get(version) {
            Some(pin) if pin.generation == generation => return pin.id.clone(),
            Some(pin) if pin.generation > generation => return id.into(),
            _ => {}
        }
        let id: Arc<str> = id.into();
        let pin = Pin {
            generation,
            image: image.to_owned(),
            id: id.clone(),
        };
        self.pins.insert(version.to_owned(), pin);
        id
    }

    /// Uids of the pinned versions.
    pub fn versions(&self) -> BTreeSet<String> {
        self.pins.keys().cloned().collect()
    }

    /// Removes the pins of versions.
    pub fn forget(&mut self, versions: &BTreeSet<String>) {
        self.pins.retain(|version, _| !versions.contains(version));
    }

    /// Ids of the pinned images.
    pub fn ids(&self) -> BTreeSet<String> {
        self.pins.values().map(|pin| pin.id.to_string()).collect()
    }
}

/// The pins of a node on disk; the default has no file.
#[derive(Debug, Default)]
pub struct Pins {
    stored: Stored<PinTable>,
    /// Where a damaged file was moved at the start of this process; `None` if it was not damaged.
    damaged: Option<String>,
}

impl Pins {
    /// Reads the pins in the cache folder.
    ///
    /// # Errors
    /// If the file can be neither read nor moved aside.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let (stored, damaged) = Stored::open(folder)?;
        let damaged = damaged.map(|path| path.display().to_string());
        if let Some(path) = &damaged {
            warn!(
                path,
                "the record of pinned images is damaged and was moved aside; local images are \
                 pinned anew at the next start of each version"
            );
        }
        Ok(Self { stored, damaged })
    }

    /// See [`PinTable::get`].
    pub fn get(&self, version: &str, generation: u32) -> Option<Arc<str>> {
        self.stored
            .read(|table| table.get(version, generation).cloned())
    }

    /// See [`PinTable::pin`]. Returns once the pin is on disk.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub async fn pin(
        &self,
        version: &str,
        generation: u32,
        image: &str,
        id: &str,
    ) -> io::Result<Arc<str>> {
        let pin = |table: &mut PinTable| table.pin(version, generation, image, id);
        self.stored.change(pin).await
    }

    /// See [`PinTable::versions`].
    pub fn versions(&self) -> BTreeSet<String> {
        self.stored.read(PinTable::versions)
    }

    /// See [`PinTable::forget`]. A failed write is logged: the pins are then removed later.
    pub async fn forget(&self, versions: &BTreeSet<String>) {
        if let Err(error) = self.stored.change(|table| table.forget(versions)).await {
            warn!(%error, "the record of pinned images cannot be written to the cache folder");
        }
    }

    /// See [`PinTable::ids`].
    pub fn ids(&self) -> BTreeSet<String> {
        self.stored.read(PinTable::ids)
    }

    /// A warning for people if the file was damaged when this process started.
    pub fn warning(&self) -> Option<String> {
        self.damaged.as_ref().map(|path| {
            format!(
                "images: the record of pinned images was damaged and moved to {path}; versions with \
                 local images may run another image than before: check them with `cless version get`"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::stored::Content as _;
    use super::*;
    use proptest::prelude::*;

    fn id(of: char) -> String {
        format!("sha256:{}", of.to_string().repeat(64))
    }

    #[tokio::test]
    async fn pins_outlive_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let pins = Pins::open(folder.path()).unwrap();
        assert_eq!(
            &*pins.pin("v1", 0, "app:1", &id('a')).await.unwrap(),
            id('a')
        );
        assert_eq!(
            &*pins.pin("v1", 0, "app:1", &id('b')).await.unwrap(),
            id('a')
        );
        pins.pin("v2", 3, "app:1", &id('b')).await.unwrap();
        pins.forget(&["v2".to_owned()].into()).await;
        let again = Pins::open(folder.path()).unwrap();
        assert_eq!(again.get("v1", 0).as_deref(), Some(&*id('a')));
        assert_eq!((again.get("v1", 1), again.get("v2", 3)), (None, None));
        assert_eq!(again.warning(), None);
    }

    #[tokio::test]
    async fn a_pin_that_cannot_be_written_is_an_error_until_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let pins = Pins::open(folder.path()).unwrap();
        let blocker = folder.path().join("pins.new");
        std::fs::create_dir(&blocker).unwrap();
        for _ in 0..2 {
            assert!(pins.pin("v1", 0, "app:1", &id('a')).await.is_err());
        }
        std::fs::remove_dir(&blocker).unwrap();
        pins.pin("v1", 0, "app:1", &id('b')).await.unwrap();
        let again = Pins::open(folder.path()).unwrap();
        assert_eq!(again.get("v1", 0).as_deref(), Some(&*id('a')));
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_said() {
        let whole = r#"{"schema":1,"pins":{"v1":{"generation":0,"image":"app:1","id":"ID"}}}"#;
        let whole = whole.replace("ID", &id('a'));
        for damage in [
            "",
            "nonsense",
            &whole[..whole.len() - 3],
            &whole.replace("\"schema\":1", "\"schema\":2"),
            &whole.replace("sha256:a", "sha256:"),
            &whole.replace("generation", "other"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(PinTable::FILE), damage).unwrap();
            let pins = Pins::open(folder.path()).unwrap();
            assert_eq!(pins.versions(), BTreeSet::new(), "{damage}");
            assert!(pins.warning().unwrap().contains("pins.damaged"));
            let aside = std::fs::read_to_string(folder.path().join(PinTable::DAMAGED)).unwrap();
            assert_eq!(aside, damage);
        }
        assert!(stored::parse::<PinTable>(whole.as_bytes()).is_some());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Pin(u8, u32, char),
        Forget(u8),
        Restart,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (0u8..3, 0u32..4, prop::char::range('a', 'f'))
                .prop_map(|(version, generation, id)| Step::Pin(version, generation, id)),
            1 => (0u8..3).prop_map(Step::Forget),
            1 => Just(Step::Restart),
        ];
        prop::collection::vec(step, 0..40)
    }

    proptest! {
        #[test]
        fn a_pin_never_changes_within_a_generation(steps in steps()) {
            let mut table = PinTable::default();
            // The first pin of each version's newest generation.
            let mut model: BTreeMap<u8, (u32, String)> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Pin(version, generation, of) => {
                        let runs = table.pin(&version.to_string(), generation, "app:1", &id(of));
                        let known = model.get(&version).cloned();
                        let expected = match known {
                            Some((at, first)) if at == generation => first,
                            Some((at, _)) if at > generation => id(of),
                            _ => {
                                model.insert(version, (generation, id(of)));
                                id(of)
                            }
                        };
                        prop_assert_eq!(&*runs, expected);
                    }
                    Step::Forget(version) => {
                        table.forget(&[version.to_string()].into());
                        model.remove(&version);
                    }
                    Step::Restart => {
                        let text = serde_json::to_vec(&table).unwrap();
                        prop_assert_eq!(stored::parse(&text), Some(table.clone()));
                    }
                }
                for version in 0..3u8 {
                    for generation in 0..4 {
                        let pinned = table.get(&version.to_string(), generation);
                        let expected = model.get(&version).filter(|(at, _)| *at == generation);
                        prop_assert_eq!(pinned.map(|id| &**id), expected.map(|(_, id)| &**id));
                    }
                }
                let ids = model.values().map(|(_, id)| id.clone()).collect();
                prop_assert_eq!(table.ids(), ids);
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = stored::parse::<PinTable>(&bytes);
        }
    }
}
