//! The certificate of `--tls-cert` and `--tls-key`.

use crate::auth::Error;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Larger than any chain.
const FILE_MAX: u64 = 1024 * 1024;

/// The files.
#[derive(Debug)]
pub(crate) struct OwnCertificate {
    certificate: PathBuf,
    key: PathBuf,
    /// Modification time and size of both at the last load.
    seen: Option<[(SystemTime, u64); 2]>,
}

impl OwnCertificate {
    /// Reads nothing before [`OwnCertificate::load`].
    pub(crate) fn new(certificate: PathBuf, key: PathBuf) -> Self {
        Self {
            certificate,
            key,
            seen: None,
        }
    }

    /// The file of the certificate.
    pub(super) fn path(&self) -> &Path {
        &self.certificate
    }

    /// The certificate; `None` if the files are those of the last call.
    pub(crate) fn load(&mut self) -> Result<Option<Arc<CertifiedKey>>, Error> {
        let seen = [stamp(&self.certificate)?, stamp(&self.key)?];
        if self.seen == Some(seen) {
            return Ok(None);
        }
        // Before reading, so that a change while reading is read again; and a bad file only once.
        self.seen = Some(seen);
        let invalid = |path: &Path, problem: String| Error::Invalid {
            path: path.to_owned(),
            problem,
        };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&read(&self.certificate)?)
            .collect::<Result<_, _>>()
            .map_err(|error| invalid(&self.certificate, format!("is no valid PEM: {error:?}")))?;
        if chain.is_empty() {
            let problem = "--tls-cert holds no certificate: give a chain in PEM, its own first";
            return Err(invalid(&self.certificate, problem.to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?).map_err(|_| {
            let problem = "--tls-key holds no private key: give one in PEM, without a password";
            invalid(&self.key, problem.to_owned())
        })?;
        let certified = CertifiedKey::from_der(chain, key, &ring::default_provider());
        let certified = certified.map_err(|error| {
            let problem = format!("the certificate and --tls-key do not belong together: {error}");
            invalid(&self.certificate, problem)
        })?;
        Ok(Some(Arc::new(certified)))
    }
}

fn stamp(path: &Path) -> Result<(SystemTime, u64), Error> {
    // Follows links, because certificates are usually renewed by changing a link.
    std::fs::metadata(path)
        .and_then(|about| Ok((about.modified()?, about.len())))
        .map_err(|source| Error::File {
            path: path.to_owned(),
            source,
        })
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_MAX).read_to_end(&mut bytes))
        .map_err(|source| Error::File {
            path: path.to_owned(),
            source,
        })?;
    Ok(bytes)
}
