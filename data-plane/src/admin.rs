//! The admin port: health, readiness and metrics, for the operator's network only.
//!
//! On a loopback address it is open; elsewhere it has TLS, and metrics need a token
//! ([`protection`]).
//!
//! - `GET /healthz`: 200 while the process runs.
//! - `GET /readyz`: 200 while the node has a route table, is not drained and not stopping, 503 with
//!   the reason otherwise.
//! - `GET /metrics`: the text format of Prometheus, or OpenMetrics if `Accept` prefers it.

mod protection;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::feed::Feed;
use crate::metrics::{Format, Metrics, Observed};
use crate::pool::Pools;

pub(crate) use protection::Error;
use protection::Refusal;
pub(crate) use protection::{AdminOptions, Protection};

/// Time for a handshake, and for a request head; idle connections end with it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Open connections; further ones are closed at once. Probes and collectors use a few.
const MAX_CONNECTIONS: usize = 256;
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// The parts of the node that the admin port shows.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) feed: Feed,
    pub(crate) pools: Pools,
    pub(crate) metrics: Arc<Metrics>,
    /// Cancelled first at a shutdown, so that load balancers notice before the listener closes.
    pub(crate) stopping: CancellationToken,
    pub(crate) protection: Protection,
}

/// Serves until the returned future is dropped.
pub(crate) async fn serve(listener: TcpListener, admin: Admin) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let Ok(permit) = connections.clone().try_acquire_owned() else {
                    continue;
                };
                let admin = admin.clone();
                tokio::spawn(async move {
                    let _permit = permit;
                    connection(stream, admin).await;
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection to the admin port");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, admin: Admin) {
    let Some(tls) = admin.protection.tls().cloned() else {
        return requests(stream, admin).await;
    };
    match timeout(HEAD_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => requests(stream, admin).await,
        Ok(Err(error)) => debug!(%error, "a handshake on the admin port failed"),
        Err(_) => debug!("a handshake on the admin port took too long"),
    }
}

async fn requests(stream: impl AsyncRead + AsyncWrite + Unpin, admin: Admin) {
    let service = service_fn(move |request| {
        let admin = admin.clone();
        async move { Ok::<_, Infallible>(admin.answer(&request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        debug!(%error, "a connection to the admin port ended with an error");
    }
}

impl Admin {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => match self.unready() {
                None => text(StatusCode::OK, "ready\n".to_owned()),
                Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            },
            "/metrics" => {
                let credentials = request.headers().get(header::AUTHORIZATION);
                let permitted = self.protection.permit(credentials).await;
                match permitted {
                    Ok(()) => self.metrics(format(request)),
                    Err(refusal) => refused(&refusal),
                }
            }
            _ => text(
                StatusCode::NOT_FOUND,
                "there are /healthz, /readyz and /metrics\n".to_owned(),
            ),
        }
    }

    fn unready(&self) -> Option<&'static str> {
        if self.stopping.is_cancelled() {
            return Some("stopping");
        }
        if self.pools.is_drained() {
            return Some("drained");
        }
        self.feed
            .table()
            .is_initial()
            .then_some("no route table yet")
    }

    fn metrics(&self, format: Format) -> Response<Full<Bytes>> {
        match self.scrape(format) {
            Ok(metrics) => {
                let mut response = text(StatusCode::OK, metrics);
                response.headers_mut().insert(
                    header::CONTENT_TYPE,
                    http::HeaderValue::from_static(format.content_type()),
                );
                response
                    .headers_mut()
                    .insert(header::VARY, http::HeaderValue::from_static("accept"));
                response
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    fn scrape(&self, format: Format) -> Result<String, std::fmt::Error> {
        let last_contact = self.feed.status().borrow().last_contact;
        let observed = Observed {
            report: &self.pools.report(),
            queues: self.pools.queues(),
            engine_up: self.pools.engine_answers(),
            feed_revision: self.feed.table().cursor().revision,
            feed_staleness: last_contact.map(|at| at.elapsed()),
        };
        self.metrics.encode(observed, format)
    }
}

fn format(request: &Request<Incoming>) -> Format {
    let accept = request.headers().get_all(header::ACCEPT).iter();
    Format::negotiate(accept.filter_map(|value| value.to_str().ok()))
}

fn refused(refusal: &Refusal) -> Response<Full<Bytes>> {
    let status = match refusal {
        Refusal::Unauthenticated => StatusCode::UNAUTHORIZED,
        Refusal::Unreadable => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = text(status, format!("{refusal}\n"));
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(
            header::WWW_AUTHENTICATE,
            http::HeaderValue::from_static("Bearer"),
        );
    }
    response
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        http::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
