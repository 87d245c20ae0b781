//! TLS towards clients: certificates by host, reloaded when their files change.
//!
//! A [`CertificateStore`] is immutable. A reload swaps in a new one, so handshakes in progress and
//! open connections keep theirs. A [`CertificateSource`] loads certificates: a folder now, ACME
//! later.
//!
//! A host is covered by the certificate that names it, or by one for `*.` and its parent. Other
//! clients, and those that send no server name, get `default.crt`, or the first certificate by
//! name.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{info, warn};

/// The interval of reloads.
const RELOAD_INTERVAL: Duration = Duration::from_secs(5);
/// The name of the certificate for clients without a server name.
const DEFAULT: &str = "default";

/// The reason why certificates cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file holds no valid certificate or key.
    #[error("{path}: {problem}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The problem, as text for people.
        problem: String,
    },
    /// The folder holds no certificate.
    #[error("{0} holds no NAME.crt with its NAME.key")]
    Empty(PathBuf),
    /// rustls rejects the configuration.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// A certificate with its key.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The name in logs; `default` marks the default certificate.
    pub name: String,
    /// The chain, PEM.
    pub chain: Vec<u8>,
    /// The key, PEM.
    pub key: Vec<u8>,
}

/// Loads certificates.
pub trait CertificateSource: Send + 'static {
    /// All certificates, or `None` if they are unchanged.
    ///
    /// # Errors
    /// If they cannot be loaded; the previous ones stay in use.
    fn load(&mut self) -> Result<Option<Vec<Certificate>>, Error>;
}

/// `NAME.crt` and `NAME.key` in a folder.
#[derive(Debug)]
pub struct CertificateFolder {
    path: PathBuf,
    /// Path, modification time and size of each file at the last load. `None` before the first.
    seen: Option<Vec<(PathBuf, SystemTime, u64)>>,
}

impl CertificateFolder {
    /// Reads nothing before [`CertificateSource::load`].
    pub fn new(path: PathBuf) -> Self {
        Self { path, seen: None }
    }
}

impl CertificateSource for CertificateFolder {
    fn load(&mut self) -> Result<Option<Vec<Certificate>>, Error> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Read { path, source }
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(failed(&self.path))? {
            let path = entry.map_err(failed(&self.path))?.path();
            let kind = path.extension().and_then(|kind| kind.to_str());
            if matches!(kind, Some("crt" | "key")) {
                // Follows links, because certificates are usually renewed by changing a link.
                let about = std::fs::metadata(&path).map_err(failed(&path))?;
                let changed = about.modified().map_err(failed(&path))?;
                files.push((path, changed, about.len()));
            }
        }
        files.sort();
        if self.seen.as_ref() == Some(&files) {
            return Ok(None);
        }
        let mut found = Vec::new();
        for (path, ..) in &files {
            let key = path.with_extension("key");
            if path.extension().is_some_and(|kind| kind == "crt") && key.exists() {
                let name = path.file_stem().unwrap_or_default();
                found.push(Certificate {
                    name: name.to_string_lossy().into_owned(),
                    chain: std::fs::read(path).map_err(failed(path))?,
                    key: std::fs::read(&key).map_err(failed(&key))?,
                });
            }
        }
        if found.is_empty() {
            return Err(Error::Empty(self.path.clone()));
        }
        self.seen = Some(files);
        Ok(Some(found))
    }
}

/// Certificates by host.
#[derive(Debug)]
pub struct CertificateStore {
    /// Exact names, and `*.parent`.
    by_name: HashMap<Box<str>, Arc<CertifiedKey>>,
    default: Arc<CertifiedKey>,
}

impl CertificateStore {
    /// Parses certificates.
    ///
    /// # Errors
    /// If there is none, or one is malformed or does not match its key.
    pub fn new(certificates: &[Certificate]) -> Result<Self, Error> {
        let mut by_name = HashMap::new();
        let mut keys = BTreeMap::new();
        for certificate in certificates {
            let invalid = |problem: String| Error::Invalid {
                path: PathBuf::from(format!("{}.crt", certificate.name)),
                problem,
            };
            let chain: Vec<CertificateDer<'static>> =
                CertificateDer::pem_slice_iter(&certificate.chain)
                    .collect::<Result<_, _>>()
                    .map_err(|error| invalid(error.to_string()))?;
            let key = PrivateKeyDer::from_pem_slice(&certificate.key)
                .map_err(|error| invalid(format!("its key: {error}")))?;
            let names = names_of(&chain).map_err(invalid)?;
            let key = CertifiedKey::from_der(chain, key, &ring::default_provider())
                .map_err(|error| invalid(error.to_string()))?;
            let key = Arc::new(key);
            for name in names {
                by_name.insert(name, key.clone());
            }
            keys.insert(certificate.name.clone(), key);
        }
        let default = keys.get(DEFAULT).or_else(|| keys.values().next());
        let default = default
            .cloned()
            .ok_or_else(|| Error::Empty(PathBuf::new()))?;
        Ok(Self { by_name, default })
    }

    /// The certificate for a host.
    fn find(&self, host: Option<&str>) -> &Arc<CertifiedKey> {
        let found = host.and_then(|host| {
            let parent = || {
                let (_, parent) = host.split_once('.')?;
                self.by_name.get(&*format!("*.{parent}"))
            };
            self.by_name.get(host).or_else(parent)
        });
        found.unwrap_or(&self.default)
    }
}

/// The DNS names of a certificate, in lower case.
fn names_of(chain: &[CertificateDer<'_>]) -> Result<Vec<Box<str>>, String> {
    let first = chain.first().ok_or("holds no certificate")?;
    let read = webpki::EndEntityCert::try_from(first).map_err(|error| error.to_string())?;
    let names = read.valid_dns_names();
    Ok(names.map(|name| name.to_ascii_lowercase().into()).collect())
}

#[derive(Debug)]
struct Resolver(ArcSwap<CertificateStore>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = hello.server_name().map(str::to_ascii_lowercase);
        Some(self.0.load().find(host.as_deref()).clone())
    }
}

/// TLS for connections of clients. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    resolver: Arc<Resolver>,
}

impl Tls {
    /// Loads the certificates, and reloads them when `source` has others. `protocols` are offered
    /// (RFC 7301).
    ///
    /// # Errors
    /// If the first load fails.
    pub(crate) fn start(
        mut source: impl CertificateSource,
        protocols: &[&[u8]],
    ) -> Result<Self, Error> {
        let first = source.load()?.unwrap_or_default();
        let store = ArcSwap::from_pointee(CertificateStore::new(&first)?);
        let resolver = Arc::new(Resolver(store));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(resolver.clone());
        config.alpn_protocols = protocols.iter().map(|one| one.to_vec()).collect();
        config.ticketer = ring::Ticketer::new()?;
        tokio::spawn(reload(source, Arc::downgrade(&resolver)));
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            resolver,
        })
    }

    /// Performs the handshake. The timeout of a head limits it.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.acceptor.accept(stream).await
    }

    /// Whether a request for `host` may use a connection made for `server_name`: the same
    /// certificate covers both (RFC 9110 section 7.4).
    pub(super) fn covers(&self, server_name: Option<&str>, host: &str) -> bool {
        if server_name == Some(host) {
            return true;
        }
        let store = self.resolver.0.load();
        let server_name = server_name.map(str::to_ascii_lowercase);
        Arc::ptr_eq(store.find(server_name.as_deref()), store.find(Some(host)))
    }
}

/// Reloads the certificates until the proxy has ended.
async fn reload(mut source: impl CertificateSource, resolver: std::sync::Weak<Resolver>) {
    loop {
        tokio::time::sleep(RELOAD_INTERVAL).await;
        let Some(resolver) = resolver.upgrade() else {
            return;
        };
        let loaded = tokio::task::spawn_blocking(move || {
            let loaded = source.load();
            (source, loaded)
        });
        let Ok((back, loaded)) = loaded.await else {
            return;
        };
        source = back;
        let store = match loaded {
            Ok(None) => continue,
            Ok(Some(certificates)) => CertificateStore::new(&certificates),
            Err(error) => Err(error),
        };
        match store {
            Ok(store) => {
                info!(hosts = store.by_name.len(), "certificates reloaded");
                resolver.0.store(Arc::new(store));
            }
            Err(error) => {
                warn!(%error, "cannot reload certificates; the previous ones stay in use")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(name: &str, hosts: &[&str]) -> Certificate {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(hosts).unwrap();
        Certificate {
            name: name.to_owned(),
            chain: made.cert.pem().into_bytes(),
            key: made.signing_key.serialize_pem().into_bytes(),
        }
    }

    #[test]
    fn a_host_gets_the_certificate_that_names_it() {
        let all = [
            certificate("a", &["a.example", "*.b.example"]),
            certificate("default", &["c.example"]),
        ];
        let store = CertificateStore::new(&all).unwrap();
        let same =
            |one: &str, other: Option<&str>| Arc::ptr_eq(store.find(Some(one)), store.find(other));
        assert!(same("a.example", Some("x.b.example")));
        assert!(
            !same("a.example", Some("x.y.b.example")),
            "a star is one label"
        );
        assert!(!same("b.example", Some("a.example")));
        assert!(same("c.example", None));
        assert!(same("unknown.example", None));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let mut wrong = certificate("a", &["a.example"]);
        wrong.key = certificate("b", &["b.example"]).key;
        assert!(matches!(
            CertificateStore::new(&[wrong]),
            Err(Error::Invalid { .. })
        ));
        assert!(matches!(CertificateStore::new(&[]), Err(Error::Empty(_))));
    }

    #[test]
    fn a_folder_is_reloaded_only_after_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let mut source = CertificateFolder::new(folder.path().to_owned());
        assert!(matches!(source.load(), Err(Error::Empty(_))));
        let write = |name: &str, hosts: &[&str]| {
            let made = certificate(name, hosts);
            std::fs::write(folder.path().join(format!("{name}.crt")), made.chain).unwrap();
            std::fs::write(folder.path().join(format!("{name}.key")), made.key).unwrap();
        };
        write("a", &["a.example"]);
        assert_eq!(source.load().unwrap().map(|all| all.len()), Some(1));
        assert!(source.load().unwrap().is_none());
        write("b", &["b.example"]);
        assert_eq!(source.load().unwrap().map(|all| all.len()), Some(2));
    }
}
