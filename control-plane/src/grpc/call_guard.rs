//! The layer around every call: a span, a deadline, a panic handler and one log line. It also counts
//! the calls of each connection.
//!
//! The deadline covers the response head. A unary call is then complete; a stream has only
//! started, and has its own limits (`feed/stream.rs`).

use super::peer::{CallInProgress, Peer};
use crate::nodes::resolve::RESOLVE_TIMEOUT;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt as _;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::Instrument as _;

/// Above the slowest write (busy timeout 5 s), below the patience of a person.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// The call that waits for nodes, which resolve the image.
const CREATE_VERSION: &str = "/cless.v1.CatalogService/CreateVersion";
/// Time limit of that call: the nodes, then the write.
const CREATE_VERSION_TIMEOUT: Duration = RESOLVE_TIMEOUT.saturating_add(RESPONSE_TIMEOUT);

fn response_timeout(method: &str) -> Duration {
    if method == CREATE_VERSION {
        CREATE_VERSION_TIMEOUT
    } else {
        RESPONSE_TIMEOUT
    }
}

/// Wraps a service in [`CallGuard`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallGuardLayer;

impl<S> Layer<S> for CallGuardLayer {
    type Service = CallGuard<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CallGuard { inner }
    }
}

/// A service whose calls have a deadline, never panic, and are logged.
#[derive(Debug, Clone)]
pub(crate) struct CallGuard<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for CallGuard<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = request.uri().path().to_owned();
        let peer = request.extensions().get::<Peer>().cloned();
        // An error span, so that no filter removes the context of an error.
        let span = tracing::error_span!(
            "rpc",
            rpc.method = method,
            peer = peer.as_ref().map(|peer| tracing::field::display(peer.addr)),
        );
        let started = Instant::now();
        let in_progress = peer.as_ref().map(Peer::begin_call);
        let response = span.in_scope(|| self.inner.call(request));
        let response = AssertUnwindSafe(response).catch_unwind();
        let guarded = async move {
            let limit = response_timeout(&method);
            let response = match tokio::time::timeout(limit, response).await {
                Ok(Ok(Ok(response))) => response,
                Ok(Ok(Err(never))) => match never {},
                // The panic hook logs the cause, which clients must not see.
                Ok(Err(_panic)) => Status::internal("internal error").into_http(),
                Err(_elapsed) => Status::deadline_exceeded(format!(
                    "no answer within {limit:?}; a write may or may not have happened: read it back"
                ))
                .into_http(),
            };
            log(&method, &response, started.elapsed());
            Ok(response.map(|body| counted(body, in_progress)))
        };
        Box::pin(guarded.instrument(span))
    }
}

/// The body of a response, whose end is the end of the call.
fn counted(body: Body, in_progress: Option<CallInProgress>) -> Body {
    match in_progress {
        Some(in_progress) => Body::new(body.map_frame(move |frame| {
            // Owned by the body, and dropped with it.
            let _call = &in_progress;
            frame
        })),
        None => body,
    }
}

fn log(method: &str, response: &Response<Body>, took: Duration) {
    let status = Status::from_header_map(response.headers());
    let code = status.as_ref().map_or(Code::Ok, Status::code);
    let took_ms = (took.as_secs_f64() * 1e6).round() / 1e3;
    match code {
        Code::Internal | Code::Unknown | Code::DataLoss | Code::DeadlineExceeded => {
            let error = status.as_ref().map_or("", Status::message);
            tracing::warn!(rpc.code = ?code, took_ms, error, "call failed");
        }
        // Periodic calls of machines.
        _ if method.ends_with("/ReportNodeStatus") || method.starts_with("/grpc.") => {
            tracing::debug!(rpc.code = ?code, took_ms, "call");
        }
        _ => tracing::info!(rpc.code = ?code, took_ms, "call"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tower::ServiceExt as _;

    async fn code_of(respond: impl FnOnce() -> Response<Body> + Clone + Send + 'static) -> Code {
        let inner = tower::service_fn(move |_request: Request<Body>| {
            let respond = respond.clone();
            async move { Ok::<_, Infallible>(respond()) }
        });
        let response = CallGuardLayer
            .layer(inner)
            .oneshot(Request::new(Body::empty()))
            .await;
        let Ok(response) = response;
        Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code())
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_error() {
        assert_eq!(code_of(|| Response::new(Body::empty())).await, Code::Ok);
        assert_eq!(code_of(|| panic!("on purpose")).await, Code::Internal);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_times_out() {
        let inner = tower::service_fn(|_request: Request<Body>| {
            std::future::pending::<Result<Response<Body>, Infallible>>()
        });
        let Ok(response) = CallGuardLayer
            .layer(inner)
            .oneshot(Request::new(Body::empty()))
            .await;
        let status = Status::from_header_map(response.headers());
        assert_eq!(
            status.map(|status| status.code()),
            Some(Code::DeadlineExceeded)
        );
    }
}
