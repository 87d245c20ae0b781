//! The connection to a control plane: over TLS, whose authority is pinned, with a token on each
//! call; or in plaintext to this machine, without one.

use std::error::Error as StdError;
use std::time::Duration;

use cless_proto::tls;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::probe;
use crate::config::{ServerUrl, Target, Token};
use crate::error::{ConnectAttempt, Error};

/// Limit of the TCP connect and the handshakes of TLS and HTTP/2.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A channel that presents a token, if there is one.
pub(crate) type Transport = InterceptedService<Channel, Bearer>;

/// Adds the token to each call.
#[derive(Clone, Default)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    fn new(token: &Token) -> Self {
        // Tokens are ASCII.
        let value = MetadataValue::try_from(format!("Bearer {}", token.expose())).ok();
        Self(value.map(|mut value| {
            value.set_sensitive(true);
            value
        }))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            let metadata = request.metadata_mut();
            metadata.insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// Connects to the first server of the target that responds.
///
/// # Errors
/// [`Error::Connect`] if none responds.
pub(super) async fn connect(target: &Target) -> Result<(Transport, &ServerUrl), Error> {
    let mut attempts = Vec::new();
    for server in &target.servers {
        match connect_one(target, server).await {
            Ok(channel) => {
                let token = target.token.as_ref().filter(|_| server.is_encrypted());
                let bearer = token.map(Bearer::new).unwrap_or_default();
                return Ok((Transport::new(channel, bearer), server));
            }
            Err(attempt) => attempts.push(attempt),
        }
    }
    Err(Error::Connect { attempts })
}

async fn connect_one(target: &Target, server: &ServerUrl) -> Result<Channel, ConnectAttempt> {
    let attempt = |reason: String| ConnectAttempt {
        server: server.to_string(),
        reason,
        is_untrusted: false,
    };
    let address = server.to_string();
    let endpoint = match server.is_encrypted() {
        true => tls::endpoint(&address).map_err(|error| error.to_string()),
        false => Endpoint::from_shared(address).map_err(|error| error.to_string()),
    };
    let endpoint = endpoint.and_then(|endpoint| {
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT);
        let agent = concat!("cless/", env!("CARGO_PKG_VERSION"));
        endpoint
            .user_agent(agent)
            .map_err(|error| error.to_string())
    });
    let endpoint = endpoint.map_err(attempt)?;
    let connecting = async {
        match server.is_encrypted() {
            true => {
                tls::connect(
                    endpoint,
                    tls::client_config(target.pins.clone(), None),
                    None,
                )
                .await
            }
            false => endpoint.connect().await,
        }
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(match tls_error(&error) {
            Some(tls) => ConnectAttempt {
                is_untrusted: matches!(tls, tls::Error::Authority { .. }),
                ..attempt(tls.to_string())
            },
            None if server.is_encrypted() => attempt(root_cause(&error)),
            None => {
                let found = probe::identify(server).await;
                let found = found.map(|found| format!("{found} answers there"));
                attempt(found.unwrap_or_else(|| root_cause(&error)))
            }
        }),
        Err(_) => {
            let seconds = CONNECT_TIMEOUT.as_secs();
            Err(attempt(format!("no response within {seconds} s")))
        }
    }
}

/// The failure of TLS among the causes, which has the words. A failed TCP connect is none.
fn tls_error<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e tls::Error> {
    let found = causes(error).find_map(|cause| cause.downcast_ref());
    found.filter(|error| !matches!(error, tls::Error::Tcp(_)))
}

/// The innermost cause: `Connection refused` is more useful than `transport error`.
fn root_cause(error: &(dyn StdError + 'static)) -> String {
    causes(error)
        .last()
        .map_or_else(String::new, ToString::to_string)
}

/// The error and its causes, the innermost last.
fn causes<'e>(
    error: &'e (dyn StdError + 'static),
) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    let cause = |error: &&'e (dyn StdError + 'static)| (*error).source();
    std::iter::successors(Some(error), cause)
}
