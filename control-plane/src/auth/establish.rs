//! The authority at the start of a control plane: read, or made by the first one.
//!
//! ```text
//!   authority in the database?
//!     yes ─▶ the master key of the folder must be the one that sealed it
//!     no  ─▶ master key on disk, then the authority under the lock of `feed_state`;
//!            another plane was first: its authority, and this key only if it is the same
//! ```
//!
//! The master key is on disk before anything is sealed by it, so that a crash loses no key.

use super::ca::NewAuthority;
use super::master_key::{self, MasterKey};
use super::state_dir::StateDir;
use super::{Ca, Error};
use crate::domain::Timestamp;
use crate::store::{Store, StoredAuthority};

/// The file with the certificates of the authorities.
pub(crate) const CA_FILE: &str = "ca.pem";
/// The purpose of the seal of the authority's key.
const PURPOSE: &str = "cless authority key";

/// The authority of the cluster.
pub(crate) struct Established {
    pub(crate) ca: Ca,
    pub(crate) stored: StoredAuthority,
    /// Whether this call made it: the first start of the cluster with TLS.
    pub(crate) is_new: bool,
}

/// Reads the authority, or makes it. Writes its certificates to the folder.
pub(crate) async fn establish(
    store: &Store,
    dir: &StateDir,
    now: Timestamp,
) -> Result<Established, Error> {
    let cluster = store.head().await?.cluster;
    let (stored, master, is_new) = match store.authority().await? {
        Some(stored) => {
            let master = read_master_key(dir, &stored)?;
            (stored, master, false)
        }
        None => create(store, dir, &cluster, now).await?,
    };
    let key = unseal(&cluster, &stored, &master)?;
    let ca = Ca::new(&cluster, &stored.authorities, &key)?;
    dir.replace(CA_FILE, &ca.to_pem())?;
    Ok(Established { ca, stored, is_new })
}

/// The key of the folder, which must be the one of the cluster.
pub(super) fn read_master_key(
    dir: &StateDir,
    stored: &StoredAuthority,
) -> Result<MasterKey, Error> {
    let path = || dir.path_of(master_key::FILE);
    let wanted = || stored.master_key_id.clone();
    let found = MasterKey::read(dir)?;
    if found.as_ref().is_none_or(|key| key.id() != wanted())
        && let Some(next) = MasterKey::adopt_next(dir, &wanted())?
    {
        return Ok(next);
    }
    let master = found.ok_or_else(|| Error::NoMasterKey {
        path: path(),
        wanted: wanted(),
    })?;
    if master.id() != stored.master_key_id {
        return Err(Error::OtherMasterKey {
            path: path(),
            found: master.id(),
            wanted: wanted(),
        });
    }
    Ok(master)
}

async fn create(
    store: &Store,
    dir: &StateDir,
    cluster: &str,
    now: Timestamp,
) -> Result<(StoredAuthority, MasterKey, bool), Error> {
    let (master, generated) = match MasterKey::read(dir)? {
        Some(master) => (master, false),
        None => {
            let master = MasterKey::generate();
            if dir.create_secret(master_key::FILE, &master.to_text())? {
                (master, true)
            } else {
                // Another process of the same folder was first.
                let read = MasterKey::read(dir)?;
                (read.unwrap_or(master), false)
            }
        }
    };
    let new = NewAuthority::generate(cluster, None, now)?;
    let ours = StoredAuthority {
        authorities: vec![new.pem],
        sealed_key: master.seal(&purpose(cluster), &new.key),
        master_key_id: master.id(),
    };
    let stored = store.replace_authority(None, &ours).await?;
    if stored == ours {
        return Ok((stored, master, true));
    }
    if generated && stored.master_key_id != master.id() {
        // Sealed nothing, and would be in the way of the copy that is needed now.
        dir.remove(master_key::FILE)?;
    }
    let master = read_master_key(dir, &stored)?;
    Ok((stored, master, false))
}

pub(super) fn purpose(cluster: &str) -> String {
    format!("{PURPOSE} of {cluster}")
}

/// The private key of the stored authority.
pub(super) fn unseal(
    cluster: &str,
    stored: &StoredAuthority,
    master: &MasterKey,
) -> Result<Vec<u8>, Error> {
    master
        .open(&purpose(cluster), &stored.sealed_key)
        .map_err(|error| Error::Damaged(error.to_string()))
}
