//! A gRPC service with a call of every kind, as tonic serves it, and its client.
//!
//! | method of `cless.test.Echo` | kind | answer |
//! |---|---|---|
//! | `Say` | unary | the message |
//! | `Split` | server streaming | each word |
//! | `Join` | client streaming | all messages, with a space between |
//! | `Chat` | both | each message as it comes |
//!
//! Messages are `google.protobuf.StringValue`. Each answer begins with the server's greeting and a colon, so
//! that versions can be told apart. The word `fail` ends any call with DATA_LOSS and a message that must
//! be percent-encoded; `exit` ends the process.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::Result;
use futures_util::{Stream, StreamExt as _};
use http::uri::PathAndQuery;
use tonic::body::Body;
use tonic::codec::Streaming;
use tonic::server::NamedService;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::service_fn;

type Codec = ProstCodec<String, String>;
type Answers = Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;

/// What ends a call that says `fail`.
pub const FAILURE: &str = "100 % lost: é";

/// Serves until the process ends.
///
/// # Errors
/// If the address cannot be had.
pub async fn serve(address: SocketAddr, greeting: String) -> Result<()> {
    Ok(Server::builder()
        .add_service(Echo { greeting })
        .serve(address)
        .await?)
}

#[derive(Debug, Clone)]
struct Echo {
    greeting: String,
}

impl NamedService for Echo {
    const NAME: &'static str = "cless.test.Echo";
}

impl Echo {
    /// What one message is answered with.
    fn answer(&self, message: &str) -> Result<String, Status> {
        match message {
            "fail" => Err(Status::data_loss(FAILURE)),
            "exit" => std::process::exit(3),
            message => Ok(format!("{}: {message}", self.greeting)),
        }
    }
}

impl tower::Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Codec::default());
            let method = request.uri().path().rsplit('/').next().map(str::to_owned);
            Ok(match method.as_deref() {
                Some("Say") => {
                    let say = service_fn(move |said: Request<String>| {
                        let answer = echo.answer(said.get_ref()).map(Response::new);
                        async { answer }
                    });
                    grpc.unary(say, request).await
                }
                Some("Split") => {
                    let split = service_fn(move |said: Request<String>| {
                        let words = said.into_inner();
                        let words: Vec<_> =
                            words.split(' ').map(|word| echo.answer(word)).collect();
                        let answers: Answers = Box::pin(tokio_stream::iter(words));
                        async { Ok::<_, Status>(Response::new(answers)) }
                    });
                    grpc.server_streaming(split, request).await
                }
                Some("Join") => {
                    let join = service_fn(move |said: Request<Streaming<String>>| {
                        let echo = echo.clone();
                        async move {
                            let mut said = said.into_inner();
                            let mut all = Vec::new();
                            while let Some(word) = said.message().await? {
                                all.push(word);
                            }
                            echo.answer(&all.join(" ")).map(Response::new)
                        }
                    });
                    grpc.client_streaming(join, request).await
                }
                Some("Chat") => {
                    let chat = service_fn(move |said: Request<Streaming<String>>| {
                        let echo = echo.clone();
                        let said = said.into_inner();
                        let answers = said.map(move |word| echo.answer(&word?));
                        let answers: Answers = Box::pin(answers);
                        async { Ok::<_, Status>(Response::new(answers)) }
                    });
                    grpc.streaming(chat, request).await
                }
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

/// A client of the service.
#[derive(Debug, Clone)]
pub struct Client {
    grpc: tonic::client::Grpc<Channel>,
}

impl Client {
    /// Through a proxy, under a host.
    ///
    /// # Errors
    /// If the proxy does not accept.
    pub async fn connect(proxy: SocketAddr, host: &str) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{proxy}"))?;
        let endpoint = endpoint.origin(format!("http://{host}").parse()?);
        Ok(Self::over(endpoint.connect().await?))
    }

    /// Over a channel of the caller's.
    pub fn over(channel: Channel) -> Self {
        Self {
            grpc: tonic::client::Grpc::new(channel),
        }
    }

    async fn ready(&mut self) -> Result<(), Status> {
        let ready = self.grpc.ready().await;
        ready.map_err(|error| Status::unknown(error.to_string()))
    }

    /// A unary call.
    ///
    /// # Errors
    /// The call's status, as for all that follow.
    pub async fn say(&mut self, message: &str) -> Result<Response<String>, Status> {
        self.ready().await?;
        let request = Request::new(message.to_owned());
        let path = PathAndQuery::from_static("/cless.test.Echo/Say");
        self.grpc.unary(request, path, Codec::default()).await
    }

    /// A call with one message and many answers.
    pub async fn split(&mut self, message: &str) -> Result<Streaming<String>, Status> {
        self.ready().await?;
        let request = Request::new(message.to_owned());
        let path = PathAndQuery::from_static("/cless.test.Echo/Split");
        let answers = self.grpc.server_streaming(request, path, Codec::default());
        Ok(answers.await?.into_inner())
    }

    /// A call with many messages and one answer.
    pub async fn join(&mut self, messages: &[&str]) -> Result<Response<String>, Status> {
        self.ready().await?;
        let messages: Vec<_> = messages.iter().map(|one| (*one).to_owned()).collect();
        let request = Request::new(tokio_stream::iter(messages));
        let path = PathAndQuery::from_static("/cless.test.Echo/Join");
        let answer = self.grpc.client_streaming(request, path, Codec::default());
        answer.await
    }

    /// A call with many of both.
    pub async fn chat(
        &mut self,
        messages: impl Stream<Item = String> + Send + 'static,
    ) -> Result<Streaming<String>, Status> {
        self.ready().await?;
        let path = PathAndQuery::from_static("/cless.test.Echo/Chat");
        let request = Request::new(messages);
        let answers = self.grpc.streaming(request, path, Codec::default());
        Ok(answers.await?.into_inner())
    }
}
