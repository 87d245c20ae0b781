//! The layer that authorizes every call before a handler sees it, and ends the streams of a
//! credential that is no longer valid.
//!
//! It puts the [`Caller`] into the request. A handler without one refuses, so a service that is
//! mounted beside this layer serves nobody.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::Frame;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tower::Service;

use super::peer::Peer;
use super::status;
use crate::auth::{Auth, Presented};

/// Authorizes the calls of the service within.
#[derive(Debug, Clone)]
pub(crate) struct Authorize<S> {
    inner: S,
    auth: Auth,
}

impl<S> Authorize<S> {
    pub(crate) fn new(inner: S, auth: Auth) -> Self {
        Self { inner, auth }
    }
}

/// The value of `authorization`. Several are none that can be valid.
fn authorization(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let first = values.next()?;
    Some(if values.next().is_some() {
        b""
    } else {
        first.as_bytes()
    })
}

impl<S> Service<Request<Body>> for Authorize<S>
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

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<Peer>().cloned();
        let certificate = peer.as_ref().and_then(|peer| peer.certificate.as_deref());
        let presented = Presented {
            authorization: authorization(request.headers()),
            certificate,
            refusal: peer.as_ref().and_then(|peer| peer.refusal.as_deref()),
            peer: peer.as_ref().map(|peer| peer.addr.ip()),
        };
        let granted = match self.auth.authorize(request.uri().path(), presented) {
            Ok(granted) => granted,
            Err(refused) => {
                let response = status::refused(&refused).into_http();
                return Box::pin(async { Ok(response) });
            }
        };
        let ended = granted.streams.then(|| granted.caller.ended.clone());
        request.extensions_mut().insert(granted.caller);
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await?;
            Ok(match ended {
                None => response,
                Some(ended) => response.map(|body| Body::new(EndingBody::new(body, ended))),
            })
        })
    }
}

/// The body of a stream, which ends with its caller's credential.
struct EndingBody {
    /// `None` once it has ended.
    inner: Option<Body>,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl EndingBody {
    fn new(inner: Body, ended: CancellationToken) -> Self {
        Self {
            inner: Some(inner),
            ended: Box::pin(ended.cancelled_owned()),
        }
    }
}

impl http_body::Body for EndingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        if this.ended.as_mut().poll(context).is_ready() {
            // Its handler learns of it as of a client that leaves.
            this.inner = None;
            let mut trailers = HeaderMap::new();
            let added = status::credential_ended().add_header(&mut trailers);
            return Poll::Ready(Some(added.map(|()| Frame::trailers(trailers))));
        }
        Pin::new(inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner
            .as_ref()
            .is_none_or(http_body::Body::is_end_stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Body as _;
    use std::future::poll_fn;
    use std::time::Duration;

    #[tokio::test]
    async fn a_stream_ends_with_its_credential() {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, Status>>(1);
        let frames = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let frames = tokio_stream::StreamExt::map(frames, |data| data.map(Frame::data));
        let ended = CancellationToken::new();
        let inner = Body::new(TestBody(Box::pin(frames)));
        let mut body = EndingBody::new(inner, ended.clone());
        let mut next = async || poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        sender
            .send(Ok(Bytes::from_static(b"x")))
            .await
            .expect("open");
        assert!(next().await.expect("a frame").expect("data").is_data());
        let waits = tokio::time::timeout(Duration::from_millis(20), next()).await;
        assert!(waits.is_err());
        ended.cancel();
        let last = next().await.expect("a frame").expect("trailers");
        let trailers = last.into_trailers().expect("trailers");
        assert_eq!(trailers["grpc-status"], "16");
        assert!(next().await.is_none());
        assert!(sender.is_closed(), "the handler is told");
    }

    type Frames = dyn tokio_stream::Stream<Item = Result<Frame<Bytes>, Status>> + Send;

    struct TestBody(Pin<Box<Frames>>);

    impl http_body::Body for TestBody {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            self.0.as_mut().poll_next(context)
        }
    }

    #[test]
    fn two_headers_are_no_credential() {
        let mut headers = HeaderMap::new();
        assert_eq!(authorization(&headers), None);
        headers.append(AUTHORIZATION, "Bearer a".parse().expect("a value"));
        assert_eq!(authorization(&headers), Some(&b"Bearer a"[..]));
        headers.append(AUTHORIZATION, "Bearer b".parse().expect("a value"));
        assert_eq!(authorization(&headers), Some(&b""[..]));
    }
}
