//! Key and certificate in the cache folder: two files of mode 0600, replaced atomically.
//!
//! - `node-key.pem`: PKCS #8 in PEM, written once, before the node joins: if the answer is lost, the
//!   next attempt has the same key.
//! - `node-certificate.json`: the last certificate, the authorities and the cluster.
//!
//! Law: reading returns exactly what was written, nothing, or an error that names file and remedy.

use super::Error;
use super::answer::Credential;
use super::key::NodeKey;
use super::schedule::Life;
use crate::file::replace;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

pub(super) const KEY: &str = "node-key.pem";
pub(super) const CERTIFICATE: &str = "node-certificate.json";

const SCHEMA: u32 = 1;
/// Bytes read of a file; a certificate file with two authorities has about 4 KiB.
const FILE_MAX: u64 = 512 << 10;

/// An id keeps its key, so a lost key costs the id.
const KEY_REMEDY: &str = "remove the node with `cless node remove`, and start it with an empty \
                          --cache-dir and a token of `cless node token create`; then remove by \
                          hand the containers that still run under the old id";
const CERTIFICATE_REMEDY: &str =
    "delete it, and join again with a token of `cless node token create`";

#[derive(Serialize, Deserialize)]
struct Stored {
    schema: u32,
    cluster: String,
    /// Seconds since 1970, by the clock of the node.
    received: u64,
    /// Seconds since 1970.
    expires: u64,
    /// DER in base 64.
    certificate: String,
    authorities: Vec<String>,
}

/// Reads the key; the first call makes it.
pub(super) fn key(folder: &Path) -> Result<NodeKey, Error> {
    let path = folder.join(KEY);
    if let Some(text) = read(&path)? {
        return NodeKey::from_pem(&text).map_err(|problem| damaged(&path, problem, KEY_REMEDY));
    }
    if read(&folder.join(CERTIFICATE))?.is_some() {
        return Err(damaged(&path, "is missing".to_owned(), KEY_REMEDY));
    }
    let key = NodeKey::generate().map_err(Error::Key)?;
    replace(&path, |file| file.write_all(key.to_pem().as_bytes()))
        .map_err(failed("write", &path))?;
    Ok(key)
}

/// Reads the certificate; `None`: the node has not joined.
pub(super) fn certificate(folder: &Path, key: &NodeKey) -> Result<Option<Credential>, Error> {
    let path = folder.join(CERTIFICATE);
    let Some(text) = read(&path)? else {
        return Ok(None);
    };
    decode(&text, key)
        .map(Some)
        .map_err(|problem| damaged(&path, problem, CERTIFICATE_REMEDY))
}

/// The cluster of the stored certificate; `None`: the node has not joined.
pub(super) fn joined_cluster(folder: &Path) -> Result<Option<String>, Error> {
    if read(&folder.join(CERTIFICATE))?.is_none() {
        return Ok(None);
    }
    let credential = certificate(folder, &key(folder)?)?;
    Ok(credential.map(|credential| credential.cluster))
}

/// Removes certificate and key.
pub(super) fn remove(folder: &Path) -> Result<(), Error> {
    // A key without a certificate is that of a node that has not joined; the reverse is damage.
    for name in [CERTIFICATE, KEY] {
        let path = folder.join(name);
        std::fs::remove_file(&path).map_err(failed("remove", &path))?;
    }
    Ok(())
}

pub(super) fn write_certificate(folder: &Path, credential: &Credential) -> Result<(), Error> {
    let path = folder.join(CERTIFICATE);
    let text = encode(credential);
    replace(&path, |file| file.write_all(text.as_bytes())).map_err(failed("write", &path))
}

pub(super) fn encode(credential: &Credential) -> String {
    let authorities = credential.authorities.iter();
    let stored = Stored {
        schema: SCHEMA,
        cluster: credential.cluster.clone(),
        received: seconds(credential.life.received),
        expires: seconds(credential.life.expires),
        certificate: STANDARD.encode(&credential.certificate),
        authorities: authorities.map(|der| STANDARD.encode(der)).collect(),
    };
    serde_json::to_string_pretty(&stored).unwrap_or_default()
}

pub(super) fn decode(text: &str, key: &NodeKey) -> Result<Credential, String> {
    let stored: Stored =
        serde_json::from_str(text).map_err(|error| format!("is not as it was written: {error}"))?;
    if stored.schema != SCHEMA {
        return Err(format!(
            "has schema {}, this program reads {SCHEMA}",
            stored.schema
        ));
    }
    let der = |text: &String| {
        STANDARD
            .decode(text)
            .map_err(|error| format!("holds a certificate that is no base 64: {error}"))
    };
    let authorities = stored.authorities.iter().map(der);
    let authorities = authorities.collect::<Result<Vec<_>, _>>()?;
    let life = Life {
        received: time(stored.received)?,
        expires: time(stored.expires)?,
    };
    let certificate = der(&stored.certificate)?;
    Credential::new(key, stored.cluster, certificate, authorities, life)
        .map_err(|problem| format!("is unusable: {problem}"))
}

fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn time(seconds: u64) -> Result<SystemTime, String> {
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .ok_or_else(|| "holds a time out of range".to_owned())
}

/// The text of a file; `None` if there is none.
fn read(path: &Path) -> Result<Option<String>, Error> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(FILE_MAX).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed("read", path)(source)),
    }
}

fn damaged(path: &Path, problem: String, remedy: &'static str) -> Error {
    Error::Damaged {
        path: path.to_owned(),
        problem,
        remedy,
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    /// A certificate of `key`, which is its own authority.
    pub(in crate::enrollment) fn credential(key: &NodeKey) -> Credential {
        let pair = rcgen::KeyPair::from_pem(&key.to_pem()).expect("a key");
        let params = rcgen::CertificateParams::new(vec!["node".to_owned()]).expect("a name");
        let certificate = params.self_signed(&pair).expect("a certificate");
        let der = certificate.der().to_vec();
        let received = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let life = Life {
            received,
            expires: received + Duration::from_secs(86_400),
        };
        Credential::new(key, "c1".into(), der.clone(), vec![der], life).expect("valid")
    }

    #[test]
    fn key_and_certificate_outlive_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let first = key(folder.path()).unwrap();
        let again = key(folder.path()).unwrap();
        assert_eq!(first.to_pem(), again.to_pem());
        assert_eq!(certificate(folder.path(), &first).unwrap(), None);
        let credential = credential(&first);
        write_certificate(folder.path(), &credential).unwrap();
        let read = certificate(folder.path(), &first).unwrap();
        assert_eq!(read, Some(credential));
        for file in [KEY, CERTIFICATE] {
            let mode = fs::metadata(folder.path().join(file)).unwrap();
            assert_eq!(mode.permissions().mode() & 0o777, 0o600, "{file}");
        }
    }

    #[test]
    fn the_files_of_another_cluster_are_removed_and_those_of_this_one_kept() {
        use super::super::has_joined;
        let folder = tempfile::tempdir().unwrap();
        let joined = |cluster| has_joined(folder.path(), cluster).unwrap();
        assert!(!joined("c1"));
        assert!(!folder.path().join(KEY).exists());
        // A node that has not joined keeps its key.
        let made = key(folder.path()).unwrap();
        assert!(!joined("c1"));
        assert_eq!(key(folder.path()).unwrap().to_pem(), made.to_pem());
        write_certificate(folder.path(), &credential(&made)).unwrap();
        assert!(joined("c1") && joined("c1"));
        assert!(!joined("c2"));
        assert!(!folder.path().join(KEY).exists() && !folder.path().join(CERTIFICATE).exists());
    }

    #[test]
    fn damage_names_the_file_and_the_remedy_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let made = key(folder.path()).unwrap();
        write_certificate(folder.path(), &credential(&made)).unwrap();
        let path = folder.path().join(CERTIFICATE);
        let good = fs::read_to_string(&path).unwrap();
        let other = NodeKey::generate().unwrap();
        for bad in [
            String::new(),
            "{}".to_owned(),
            good[..good.len() / 2].to_owned(),
            good.replace("\"schema\": 1", "\"schema\": 2"),
            good.replace("\"c1\"", "\"a b\""),
            good.replace("\"c1\"", "\"\""),
            good.replace("\"certificate\": \"", "\"certificate\": \"!"),
            good.replace("\"certificate\": \"M", "\"certificate\": \"N"),
            good.replace("1800086400", "18446744073709551615"),
            encode(&credential(&other)),
        ] {
            fs::write(&path, &bad).unwrap();
            let error = certificate(folder.path(), &made)
                .expect_err(&bad)
                .to_string();
            assert!(error.contains(CERTIFICATE), "{error}");
            assert!(error.contains("cless node token create"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        }
        fs::remove_file(folder.path().join(KEY)).unwrap();
        let error = key(folder.path()).expect_err("a lost key").to_string();
        assert!(error.contains("node-key.pem is missing"), "{error}");
        assert!(!folder.path().join(KEY).exists());
        fs::write(folder.path().join(KEY), "nonsense").unwrap();
        let error = key(folder.path()).expect_err("a damaged key").to_string();
        assert!(error.contains("PKCS #8"), "{error}");
    }
}
