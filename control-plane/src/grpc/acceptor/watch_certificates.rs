//! Keeps the certificates of the server in force: issues its own anew in time and when authorities
//! change, and reloads those of `--tls-cert` when their files change. Open connections keep theirs.

use super::{OwnCertificate, ServerTls, TlsReceiver};
use crate::auth::ca::SERVER_LIFE;
use crate::auth::{Ca, Error};
use crate::domain::Timestamp;
use rustls::sign::CertifiedKey;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Interval of looks at files and clock.
const INTERVAL: Duration = Duration::from_secs(2);

/// The certificates of the server.
pub(crate) struct Certificates {
    own: Option<(OwnCertificate, Arc<CertifiedKey>)>,
    tls: watch::Sender<Option<ServerTls>>,
}

/// The certificate that the authority issued, and since when.
struct Issued {
    ca: Arc<Ca>,
    /// Names of the server besides those of the cluster.
    names: Vec<String>,
    key: Arc<CertifiedKey>,
    at: Timestamp,
    /// What was trusted then.
    authorities: Vec<Vec<u8>>,
}

impl Certificates {
    /// Loads the certificate of `--tls-cert`, if there is one. The acceptor gets the receiver.
    ///
    /// # Errors
    /// If the files cannot be used.
    pub(crate) fn load(own: Option<OwnCertificate>) -> Result<(Self, TlsReceiver), Error> {
        let own = match own {
            Some(mut own) => own.load()?.map(|key| (own, key)),
            None => None,
        };
        let (tls, receiver) = watch::channel(None);
        Ok((Self { own, tls }, receiver))
    }

    /// Issues the certificate of the server and begins handshakes. The returned future keeps the
    /// certificates in force until `stop`.
    ///
    /// # Errors
    /// If no certificate can be made.
    pub(crate) fn begin(
        mut self,
        ca: Arc<Ca>,
        names: Vec<String>,
        stop: CancellationToken,
    ) -> Result<impl Future<Output = ()> + Send, Error> {
        let mut issued = Issued::new(ca, names, now())?;
        self.publish(&issued)?;
        let mut problem = None;
        Ok(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(INTERVAL) => {}
                }
                let result = self.renew(&mut issued).err().map(|error| error.to_string());
                // Logged once, however often it is tried.
                if let Some(error) = result.as_ref().filter(|_| result != problem) {
                    tracing::warn!(error, "the previous TLS certificates stay in use");
                }
                problem = result;
            }
        })
    }

    fn renew(&mut self, issued: &mut Issued) -> Result<(), Error> {
        let reissued = issued.reissue(now())?;
        let reloaded = self.reload();
        if reissued || matches!(reloaded, Ok(true)) {
            self.publish(issued)?;
        }
        reloaded.map(|_changed| ())
    }

    /// Whether the files changed and are loaded.
    fn reload(&mut self) -> Result<bool, Error> {
        let Some((files, key)) = &mut self.own else {
            return Ok(false);
        };
        let Some(loaded) = files.load()? else {
            return Ok(false);
        };
        *key = loaded;
        tracing::info!(certificate = %files.path().display(), "the TLS certificate is reloaded");
        Ok(true)
    }

    fn publish(&self, issued: &Issued) -> Result<(), Error> {
        let own = self.own.as_ref().map(|(_, key)| Arc::clone(key));
        let tls = ServerTls::new(Arc::clone(&issued.ca), Arc::clone(&issued.key), own)
            .map_err(|error| Error::Flags(format!("TLS cannot be set up: {error}")))?;
        self.tls.send_replace(Some(tls));
        Ok(())
    }
}

impl Issued {
    fn new(ca: Arc<Ca>, names: Vec<String>, at: Timestamp) -> Result<Self, Error> {
        let authorities = ca.authorities();
        let key = Arc::new(ca.issue_server(&names, at)?);
        Ok(Self {
            ca,
            names,
            key,
            at,
            authorities,
        })
    }

    fn reissue(&mut self, now: Timestamp) -> Result<bool, Error> {
        if !is_due(self.at, now) && self.authorities == self.ca.authorities() {
            return Ok(false);
        }
        *self = Self::new(Arc::clone(&self.ca), self.names.clone(), now)?;
        tracing::info!("the certificate of the server is issued anew");
        Ok(true)
    }
}

/// Whether a certificate issued at `at` is to be replaced: after two thirds of its life, or when the
/// clock was set back before it.
fn is_due(at: Timestamp, now: Timestamp) -> bool {
    now < at || now >= at.plus(SERVER_LIFE / 3 * 2)
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_replaced_well_before_it_expires() {
        let at = Timestamp::from_micros(1_800_000_000_000_000);
        let day = Duration::from_secs(24 * 60 * 60);
        for (days, due) in [(0, false), (19, false), (20, true), (29, true), (300, true)] {
            assert_eq!(is_due(at, at.plus(day * days)), due, "{days}");
        }
        assert!(is_due(at, at.minus(day)));
    }
}
