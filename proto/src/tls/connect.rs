//! Connecting to a control plane over TLS, with errors for people.

use super::verifier::{Observer, WrongAuthority};
use super::{ALPN_H2, Fingerprint, configure, server_name};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig};
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::http::Uri;
use tonic::codegen::http::uri::{Authority, InvalidUri, PathAndQuery, Scheme};
use tonic::transport::{Channel, Endpoint};
use tower::Service;

/// Limit of a handshake, which is one round trip and some signatures.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The port of a control plane where a URL has none.
const DEFAULT_PORT: u16 = 443;
/// The first second that is no longer in a year of four digits.
const YEAR_10_000: u64 = 253_402_300_800;

/// The reason why a control plane cannot be reached over TLS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL has no host.
    #[error("{0} is not the URL of a control plane: give https://HOST:PORT")]
    Url(String),
    /// The id of the cluster cannot be part of a name.
    #[error("`{0}` is not the id of a cluster")]
    Cluster(String),
    /// No TCP connection.
    #[error("{0}")]
    Tcp(#[source] io::Error),
    /// The server presents another authority than the pinned ones.
    #[error(
        "{at} is not the control plane of this cluster, or something between is listening: {wrong}"
    )]
    Authority {
        /// `HOST:PORT`.
        at: String,
        /// Presented and expected authorities.
        wrong: String,
    },
    /// The certificate is not in force by the clock of this machine.
    #[error(
        "the certificate of {at} is valid {bound}, and the clock of this machine says {now}: set \
         the clocks of both machines"
    )]
    Clock {
        /// `HOST:PORT`.
        at: String,
        /// The violated bound.
        bound: String,
        /// The local time.
        now: String,
    },
    /// The server does not speak TLS.
    #[error(
        "{at} does not speak TLS: it is not a control plane, or one with --insecure, which is \
         reached as http:// on its own machine alone"
    )]
    Plaintext {
        /// `HOST:PORT`.
        at: String,
    },
    /// The server speaks TLS but not HTTP/2.
    #[error("{at} does not offer HTTP/2 over TLS: it is not a control plane")]
    NoHttp2 {
        /// `HOST:PORT`.
        at: String,
    },
    /// No handshake within its limit.
    #[error("{at} accepted the connection but sent no TLS handshake within {limit:?}")]
    Silent {
        /// `HOST:PORT`.
        at: String,
        /// The limit.
        limit: Duration,
    },
    /// Another failure of the handshake.
    #[error("the TLS handshake with {at} failed: {source}")]
    Handshake {
        /// `HOST:PORT`.
        at: String,
        /// The cause.
        source: io::Error,
    },
}

/// The endpoint of `https://HOST:PORT` for [`connect`].
///
/// Its own URI begins with `http`, because tonic would else wrap the connection in TLS of its own;
/// requests carry the scheme `https`.
///
/// # Errors
/// If `url` is not a URL.
pub fn endpoint(url: &str) -> Result<Endpoint, InvalidUri> {
    let url: Uri = url.parse()?;
    let authority = url.authority().cloned();
    let authority = match authority {
        Some(authority) if authority.port().is_none() => {
            format!("{authority}:{DEFAULT_PORT}").parse()?
        }
        Some(authority) => authority,
        // Never a host, so that `connect` names the URL.
        None => return Ok(Endpoint::from(url)),
    };
    let plain = with_scheme(Scheme::HTTP, authority.clone());
    Ok(Endpoint::from(plain).origin(with_scheme(Scheme::HTTPS, authority)))
}

fn with_scheme(scheme: Scheme, authority: Authority) -> Uri {
    Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(PathAndQuery::from_static("/"))
        .build()
        .unwrap_or_default()
}

/// Connects to `endpoint`, made by [`endpoint`], with TLS for the name of `cluster`.
///
/// # Errors
/// If there is no connection; the source is an [`Error`].
pub async fn connect(
    endpoint: Endpoint,
    config: Arc<ClientConfig>,
    cluster: Option<&str>,
) -> Result<Channel, tonic::transport::Error> {
    let connector = connector(config, cluster);
    endpoint.connect_with_connector(connector).await
}

/// Like [`connect`]; the channel connects when it is first used, and again when it was lost.
#[must_use]
pub fn connect_lazy(
    endpoint: &Endpoint,
    config: Arc<ClientConfig>,
    cluster: Option<&str>,
) -> Channel {
    endpoint.connect_with_connector_lazy(connector(config, cluster))
}

fn connector(
    config: Arc<ClientConfig>,
    cluster: Option<&str>,
) -> impl Service<Uri, Response = TokioIo<TlsStream<TcpStream>>, Error = Error, Future: Send>
+ Send
+ 'static {
    let cluster = cluster.map(ToOwned::to_owned);
    tower::service_fn(move |uri: Uri| {
        let (config, cluster) = (Arc::clone(&config), cluster.clone());
        async move {
            let (host, port) = destination(&uri)?;
            let stream = dial(host, port, config, cluster.as_deref()).await?;
            if stream.get_ref().1.alpn_protocol() != Some(ALPN_H2) {
                let at = format!("{host}:{port}");
                return Err(Error::NoHttp2 { at });
            }
            Ok(TokioIo::new(stream))
        }
    })
}

/// Host, without brackets, and port.
fn destination(uri: &Uri) -> Result<(&str, u16), Error> {
    let host = uri.host().filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| Error::Url(uri.to_string()))?;
    let bare = host.strip_prefix('[').and_then(|v6| v6.strip_suffix(']'));
    Ok((bare.unwrap_or(host), uri.port_u16().unwrap_or(DEFAULT_PORT)))
}

async fn dial(
    host: &str,
    port: u16,
    config: Arc<ClientConfig>,
    cluster: Option<&str>,
) -> Result<TlsStream<TcpStream>, Error> {
    let name = ServerName::try_from(server_name(cluster))
        .map_err(|_| Error::Cluster(cluster.unwrap_or_default().to_owned()))?;
    let stream = TcpStream::connect((host, port)).await.map_err(Error::Tcp)?;
    stream.set_nodelay(true).map_err(Error::Tcp)?;
    let handshake = TlsConnector::from(config).connect(name, stream);
    let at = || format!("{host}:{port}");
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(source)) => Err(explain(at(), source)),
        Err(_elapsed) => Err(Error::Silent {
            at: at(),
            limit: HANDSHAKE_TIMEOUT,
        }),
    }
}

/// The words for a failed handshake.
fn explain(at: String, source: io::Error) -> Error {
    let cause = source.get_ref().and_then(|cause| cause.downcast_ref());
    match cause {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(other))) => {
            match other.0.downcast_ref::<WrongAuthority>() {
                Some(wrong) => Error::Authority {
                    at,
                    wrong: wrong.to_string(),
                },
                None => Error::Handshake { at, source },
            }
        }
        Some(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
            time,
            not_after,
        })) => Error::Clock {
            at,
            bound: format!("until {}", rfc3339(*not_after)),
            now: rfc3339(*time),
        },
        Some(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
            time,
            not_before,
        })) => Error::Clock {
            at,
            bound: format!("from {}", rfc3339(*not_before)),
            now: rfc3339(*time),
        },
        Some(rustls::Error::InvalidMessage(_)) => Error::Plaintext { at },
        _ => Error::Handshake { at, source },
    }
}

/// A time as text: RFC 3339, UTC.
#[must_use]
pub fn rfc3339(time: UnixTime) -> String {
    let seconds = time.as_secs().min(YEAR_10_000 - 1);
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    humantime::format_rfc3339_seconds(time).to_string()
}

/// The authority that a server presents, **unverified**: whoever answers at `host` chooses it. A
/// person compares it with the one that the control plane logged, before anything is sent.
///
/// # Errors
/// If there is no TLS handshake within `limit`.
pub async fn presented_authority(
    host: &str,
    port: u16,
    limit: Duration,
) -> io::Result<Fingerprint> {
    let provider = Arc::new(ring::default_provider());
    let observer = Arc::new(Observer::new(Arc::clone(&provider)));
    let config = configure(Arc::clone(&observer) as _, provider, None);
    match tokio::time::timeout(limit, dial(host, port, config, None)).await {
        Ok(Ok(_stream)) => observer
            .presented()
            .ok_or_else(|| io::Error::other("the server presents no certificate")),
        Ok(Err(Error::Tcp(source))) => Err(source),
        Ok(Err(error)) => Err(io::Error::other(error)),
        Err(_elapsed) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("{host}:{port} did not answer within {limit:?}"),
        )),
    }
}
