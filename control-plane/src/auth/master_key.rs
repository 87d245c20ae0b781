//! The master key, which seals the private keys in the database.
//!
//! The key is a file of its own, so that a copy of the database alone gives nobody the cluster. All
//! control planes of a cluster have the same file. Its id tells keys apart and says nothing about
//! them.
//!
//! Law: what a key sealed for a purpose, only that key opens, and only for that purpose.

use super::Error;
use super::state_dir::StateDir;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand::Rng as _;
use sha2::{Digest as _, Sha256};
use std::fmt;

/// The file in the state folder.
pub(crate) const FILE: &str = "master-key";
/// The next master key, while keys change. It takes the place of the first once the database needs it.
pub(crate) const NEXT_FILE: &str = "master-key.next";
/// The text before the key's digits, so that the file is recognised wherever it lies.
const PREFIX: &str = "cless-master-key-v1:";
/// First byte of sealed data.
const SEAL_VERSION: u8 = 1;
const NONCE_LENGTH: usize = 24;

/// 32 random bytes.
#[derive(Clone)]
pub(crate) struct MasterKey {
    key: [u8; 32],
}

/// A text that is no master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is no master key, which is `{PREFIX}` and 64 hexadecimal digits: copy the file from \
     another control plane of this cluster, or from where it is kept"
)]
pub(crate) struct InvalidMasterKey;

/// Sealed data that this key does not open: damaged, of another key, or for another purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it was not sealed by this master key for this purpose")]
pub(crate) struct Unsealable;

impl MasterKey {
    /// A new key.
    pub(crate) fn generate() -> Self {
        let mut key = [0; 32];
        rand::rng().fill_bytes(&mut key);
        Self { key }
    }

    /// Reads the file; `None` if there is none.
    pub(crate) fn read(dir: &StateDir) -> Result<Option<Self>, Error> {
        Self::read_file(dir, FILE)
    }

    /// Makes the next key the key, if it has this id. A process that ended while keys changed has
    /// left it.
    pub(crate) fn adopt_next(dir: &StateDir, id: &str) -> Result<Option<Self>, Error> {
        let next = Self::read_file(dir, NEXT_FILE)?.filter(|next| next.id() == id);
        if next.is_some() {
            dir.rename(NEXT_FILE, FILE)?;
        }
        Ok(next)
    }

    fn read_file(dir: &StateDir, name: &str) -> Result<Option<Self>, Error> {
        let text = dir.read_secret(name)?;
        let key = text.map(|text| Self::parse(&text)).transpose();
        key.map_err(|problem| Error::Invalid {
            path: dir.path_of(name),
            problem: problem.to_string(),
        })
    }

    /// The contents of the file.
    pub(crate) fn to_text(&self) -> String {
        let digits = self.key.iter().map(|byte| format!("{byte:02x}"));
        format!("{PREFIX}{}\n", digits.collect::<String>())
    }

    fn parse(text: &str) -> Result<Self, InvalidMasterKey> {
        let digits = text.trim().strip_prefix(PREFIX).ok_or(InvalidMasterKey)?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        if digits.len() != 64 {
            return Err(InvalidMasterKey);
        }
        let mut key = [0; 32];
        for (byte, pair) in key.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let (high, low) = digit(pair[0]).zip(digit(pair[1])).ok_or(InvalidMasterKey)?;
            *byte = u8::try_from(high << 4 | low).map_err(|_| InvalidMasterKey)?;
        }
        Ok(Self { key })
    }

    /// 16 hexadecimal digits that differ between keys.
    pub(crate) fn id(&self) -> String {
        let hash = Sha256::new_with_prefix(b"cless master key id\0")
            .chain_update(self.key)
            .finalize();
        hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Seals `secret` for a purpose, which is not part of the result.
    pub(crate) fn seal(&self, purpose: &str, secret: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_LENGTH];
        rand::rng().fill_bytes(&mut nonce);
        let payload = Payload {
            msg: secret,
            aad: purpose.as_bytes(),
        };
        let sealed = self
            .cipher()
            .encrypt(&XNonce::from(nonce), payload)
            .expect("the cipher seals anything under 256 GiB");
        [&[SEAL_VERSION], &nonce[..], &sealed].concat()
    }

    /// Opens what [`MasterKey::seal`] returned.
    pub(crate) fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Vec<u8>, Unsealable> {
        let (&version, sealed) = sealed.split_first().ok_or(Unsealable)?;
        let (&nonce, sealed) = sealed
            .split_first_chunk::<NONCE_LENGTH>()
            .filter(|_| version == SEAL_VERSION)
            .ok_or(Unsealable)?;
        let payload = Payload {
            msg: sealed,
            aad: purpose.as_bytes(),
        };
        self.cipher()
            .decrypt(&XNonce::from(nonce), payload)
            .map_err(|_| Unsealable)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&self.key.into())
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn only_the_key_and_the_purpose_of_a_seal_open_it(
            key in any::<[u8; 32]>(),
            other in any::<[u8; 32]>(),
            secret in prop::collection::vec(any::<u8>(), 0..100),
            flip in any::<prop::sample::Index>(),
        ) {
            let master = MasterKey { key };
            let sealed = master.seal("a", &secret);
            prop_assert_eq!(master.open("a", &sealed), Ok(secret.clone()));
            prop_assert_eq!(master.open("b", &sealed), Err(Unsealable));
            if key != other {
                prop_assert_eq!(MasterKey { key: other }.open("a", &sealed), Err(Unsealable));
            }
            let mut damaged = sealed.clone();
            damaged[flip.index(sealed.len())] ^= 1;
            prop_assert_eq!(master.open("a", &damaged), Err(Unsealable));
            prop_assert_eq!(master.open("a", &sealed[..flip.index(sealed.len())]), Err(Unsealable));
            prop_assert_ne!(master.seal("a", &secret), sealed);
        }

        #[test]
        fn a_key_survives_its_file(key in any::<[u8; 32]>()) {
            let master = MasterKey { key };
            let read = MasterKey::parse(&master.to_text()).unwrap();
            prop_assert_eq!(read.key, key);
            prop_assert_eq!(read.id(), master.id());
        }

        #[test]
        fn any_text_is_a_key_or_refused(text in "(cless-master-key-v1:)?\\PC{0,80}") {
            let _parsed = MasterKey::parse(&text);
        }
    }

    #[test]
    fn an_invalid_file_is_named_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::open(&folder.path().join("state")).unwrap();
        assert!(MasterKey::read(&dir).unwrap().is_none());
        for bad in ["", "cless-master-key-v1:", "cless-master-key-v1:zz"] {
            dir.remove(FILE).unwrap();
            dir.create_secret(FILE, bad).unwrap();
            let error = MasterKey::read(&dir).unwrap_err().to_string();
            assert!(error.contains("master-key: it is no master key"), "{error}");
            assert_eq!(dir.read_secret(FILE).unwrap().unwrap(), bad);
        }
    }

    #[test]
    fn debug_output_has_no_key() {
        let master = MasterKey { key: [0xab; 32] };
        assert!(!format!("{master:?}").contains("abab"));
    }
}
