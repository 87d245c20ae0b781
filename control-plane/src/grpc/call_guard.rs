//! What surrounds every call: a deadline, a net under panics, and one log line.
//!
//! The deadline is on the answer's head. A unary call has its whole answer by then; a stream has
//! only begun, and bounds itself (`feed/stream.rs`).

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};

/// Well above the slowest write (busy timeout 5 s), well below what a person waits for.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Wraps a server's routes in [`CallGuard`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallGuardLayer;

impl<S> Layer<S> for CallGuardLayer {
    type Service = CallGuard<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CallGuard { inner }
    }
}

/// A service whose calls end, never panic, and are logged.
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
        let started = Instant::now();
        let answer = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        Box::pin(async move {
            let response = match tokio::time::timeout(ANSWER_WITHIN, answer).await {
                Ok(Ok(Ok(response))) => response,
                Ok(Ok(Err(never))) => match never {},
                // The panic hook has printed where and why; a client gets neither.
                Ok(Err(_panic)) => Status::internal("internal error").into_http(),
                Err(_elapsed) => Status::deadline_exceeded(
                    "no answer within 10 s; a write may or may not have happened: read it back",
                )
                .into_http(),
            };
            log(&method, &response, started.elapsed());
            Ok(response)
        })
    }
}

fn log(method: &str, response: &Response<Body>, took: Duration) {
    let status = Status::from_header_map(response.headers());
    let code = status.as_ref().map_or(Code::Ok, Status::code);
    let took_ms = (took.as_secs_f64() * 1e6).round() / 1e3;
    match code {
        Code::Internal | Code::Unknown | Code::DataLoss | Code::DeadlineExceeded => {
            let error = status.as_ref().map_or("", Status::message);
            tracing::warn!(rpc.method = method, rpc.code = ?code, took_ms, error, "call failed");
        }
        // Sent all the time by machines: not news.
        _ if method.ends_with("/ReportNodeStatus") || method.starts_with("/grpc.") => {
            tracing::debug!(rpc.method = method, rpc.code = ?code, took_ms, "call");
        }
        _ => tracing::info!(rpc.method = method, rpc.code = ?code, took_ms, "call"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tower::ServiceExt as _;

    async fn code_of(answer: impl FnOnce() -> Response<Body> + Clone + Send + 'static) -> Code {
        let inner = tower::service_fn(move |_request: Request<Body>| {
            let answer = answer.clone();
            async move { Ok::<_, Infallible>(answer()) }
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
    async fn a_call_that_hangs_is_ended() {
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
