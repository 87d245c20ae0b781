//! Changes of the authority and of the master key.
//!
//! ```text
//!   rotate-ca            the new authority issues; both are trusted
//!     │  a day at least: nodes get the new one with their next certificate
//!   rotate-ca --finish   the old one is trusted no more
//! ```
//!
//! `rotate-keys` seals the private key by a new master key. That key is on disk before the database
//! needs it, as `master-key.next`, and takes its place afterwards; a crash between leaves a state
//! that the next start repairs.
//!
//! Running control planes follow both by themselves ([`follow`](super::follow)).

use super::ca::NewAuthority;
use super::establish::{CA_FILE, purpose, read_master_key, unseal};
use super::master_key::{MasterKey, NEXT_FILE};
use super::state_dir::StateDir;
use super::{Ca, Error};
use crate::domain::Timestamp;
use crate::domain::enrollment::CERTIFICATE_LIFETIME;
use crate::store::{Store, StoredAuthority};
use cless_proto::tls::Fingerprint;

/// A step of a change of authorities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Begin,
    /// Ends trust in the old authority; with `force` even if nodes may not know the new one.
    Finish {
        force: bool,
    },
}

/// The authority that issues certificates after a step.
pub(crate) async fn rotate_authority(
    store: &Store,
    dir: &StateDir,
    step: Step,
    now: Timestamp,
) -> Result<Fingerprint, Error> {
    let (stored, master, cluster) = read(store, dir).await?;
    let key = unseal(&cluster, &stored, &master)?;
    let ca = Ca::new(&cluster, &stored.authorities, &key)?;
    let changing = ca.authorities().len() > 1;
    let (authorities, key) = match step {
        Step::Begin if changing => {
            return Err(Error::Rotation(
                "the authority is changing already: end that with `rotate-ca --finish` first"
                    .to_owned(),
            ));
        }
        Step::Begin => {
            let new = NewAuthority::generate(&cluster, Some(&ca), now)?;
            let mut authorities = vec![new.pem];
            authorities.extend(stored.authorities.iter().cloned());
            authorities.extend(new.cross);
            (authorities, new.key)
        }
        Step::Finish { .. } if !changing => {
            return Err(Error::Rotation(
                "no change of authority has begun: begin one with `rotate-ca`".to_owned(),
            ));
        }
        Step::Finish { force } => {
            check_age(&ca, force, now)?;
            let first = stored.authorities.iter().take(1).cloned();
            (first.collect(), key)
        }
    };
    let next = StoredAuthority {
        sealed_key: master.seal(&purpose(&cluster), &key),
        authorities,
        master_key_id: master.id(),
    };
    let ca = Ca::new(&cluster, &next.authorities, &key)?;
    replace(store, &stored, &next).await?;
    dir.replace(CA_FILE, &ca.to_pem())?;
    Ok(ca.fingerprint())
}

/// A node learns of the new authority with its next certificate, so after the life of one.
fn check_age(ca: &Ca, force: bool, now: Timestamp) -> Result<(), Error> {
    let age = ca.since().until(now);
    if force || age >= CERTIFICATE_LIFETIME {
        return Ok(());
    }
    let hours = (CERTIFICATE_LIFETIME - age).as_secs() / 3600 + 1;
    Err(Error::Rotation(format!(
        "nodes may not know the new authority yet: try again in {hours} h, or pass --force and join \
         those nodes again that then refuse the control plane"
    )))
}

/// Seals by a new master key. Returns its id.
pub(crate) async fn rotate_master_key(store: &Store, dir: &StateDir) -> Result<String, Error> {
    let (stored, master, cluster) = read(store, dir).await?;
    let key = unseal(&cluster, &stored, &master)?;
    let new = MasterKey::generate();
    let id = new.id();
    // One that was never needed, or `read` would have adopted it.
    dir.remove(NEXT_FILE)?;
    dir.create_secret(NEXT_FILE, &new.to_text())?;
    let next = StoredAuthority {
        authorities: stored.authorities.clone(),
        sealed_key: new.seal(&purpose(&cluster), &key),
        master_key_id: id.clone(),
    };
    replace(store, &stored, &next).await?;
    MasterKey::adopt_next(dir, &id)?;
    Ok(id)
}

async fn read(
    store: &Store,
    dir: &StateDir,
) -> Result<(StoredAuthority, MasterKey, String), Error> {
    let stored = store.authority().await?.ok_or_else(|| {
        Error::Rotation(
            "the cluster has no authority yet: its first start without --insecure makes one"
                .to_owned(),
        )
    })?;
    let master = read_master_key(dir, &stored)?;
    let cluster = store.head().await?.cluster;
    Ok((stored, master, cluster))
}

async fn replace(
    store: &Store,
    previous: &StoredAuthority,
    next: &StoredAuthority,
) -> Result<(), Error> {
    if store.replace_authority(Some(previous), next).await? == *next {
        return Ok(());
    }
    Err(Error::Rotation(
        "another process changed the authority meanwhile: look at `ca.pem` and try again"
            .to_owned(),
    ))
}
