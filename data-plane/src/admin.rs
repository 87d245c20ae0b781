//! The admin port: health, readiness and metrics, for the operator's network only.
//!
//! - `GET /healthz`: 200 while the process runs.
//! - `GET /readyz`: 200 while the node has a route table, is not drained and not stopping, 503 with
//!   the reason otherwise.
//! - `GET /metrics`: the text format of Prometheus, or OpenMetrics if `Accept` prefers it.

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
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::feed::Feed;
use crate::metrics::{Format, Metrics, Observed};
use crate::pool::Pools;

const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// The parts of the node that the admin port shows.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) feed: Feed,
    pub(crate) pools: Pools,
    pub(crate) metrics: Arc<Metrics>,
    /// Cancelled first at a shutdown, so that load balancers notice before the listener closes.
    pub(crate) stopping: CancellationToken,
}

/// Serves until the returned future is dropped.
pub(crate) async fn serve(listener: TcpListener, admin: Admin) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(TokioIo::new(stream), admin.clone()));
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection to the admin port");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn connection(stream: TokioIo<tokio::net::TcpStream>, admin: Admin) {
    let service = service_fn(move |request| {
        let response = admin.answer(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(stream, service)
        .await;
    if let Err(error) = served {
        debug!(%error, "a connection to the admin port ended with an error");
    }
}

impl Admin {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => match self.unready() {
                None => text(StatusCode::OK, "ready\n".to_owned()),
                Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            },
            "/metrics" => self.metrics(format(request)),
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

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        http::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
