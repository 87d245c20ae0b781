//! A gRPC service with a call of every kind, served by tonic, and its client.
//!
//! | method of `cless.test.Echo` | kind | response |
//! |---|---|---|
//! | `Say` | unary | the message |
//! | `Split` | server streaming | each word |
//! | `Join` | client streaming | all messages, joined by spaces |
//! | `Chat` | bidirectional streaming | each message on arrival |
//!
//! Messages are `google.protobuf.StringValue`. Each response starts with the server's greeting and
//! a colon, which identifies the version. The word `fail` ends any call with DATA_LOSS and a
//! message that needs percent-encoding; `exit` ends the process.

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
type Replies = Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;

/// Status message of a call with the word `fail`.
pub const FAILURE: &str = "100 % lost: é";

/// Serves until the process exits.
///
/// # Errors
/// The address cannot be bound.
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
    fn reply(&self, message: &str) -> Result<String, Status> {
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
                    let say = service_fn(move |request: Request<String>| {
                        let reply = echo.reply(request.get_ref()).map(Response::new);
                        async { reply }
                    });
                    grpc.unary(say, request).await
                }
                Some("Split") => {
                    let split = service_fn(move |request: Request<String>| {
                        let words = request.into_inner();
                        let words: Vec<_> = words.split(' ').map(|word| echo.reply(word)).collect();
                        let replies: Replies = Box::pin(tokio_stream::iter(words));
                        async { Ok::<_, Status>(Response::new(replies)) }
                    });
                    grpc.server_streaming(split, request).await
                }
                Some("Join") => {
                    let join = service_fn(move |request: Request<Streaming<String>>| {
                        let echo = echo.clone();
                        async move {
                            let mut request = request.into_inner();
                            let mut all = Vec::new();
                            while let Some(word) = request.message().await? {
                                all.push(word);
                            }
                            echo.reply(&all.join(" ")).map(Response::new)
                        }
                    });
                    grpc.client_streaming(join, request).await
                }
                Some("Chat") => {
                    let chat = service_fn(move |request: Request<Streaming<String>>| {
                        let echo = echo.clone();
                        let request = request.into_inner();
                        let replies = request.map(move |word| echo.reply(&word?));
                        let replies: Replies = Box::pin(replies);
                        async { Ok::<_, Status>(Response::new(replies)) }
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
    /// Connects to a host through a proxy.
    ///
    /// # Errors
    /// The proxy does not accept the connection.
    pub async fn connect(proxy: SocketAddr, host: &str) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{proxy}"))?;
        let endpoint = endpoint.origin(format!("http://{host}").parse()?);
        Ok(Self::over(endpoint.connect().await?))
    }

    /// Uses an existing channel.
    pub fn over(channel: Channel) -> Self {
        Self {
            grpc: tonic::client::Grpc::new(channel),
        }
    }

    async fn ready(&mut self) -> Result<(), Status> {
        let ready = self.grpc.ready().await;
        ready.map_err(|error| Status::unknown(error.to_string()))
    }

    /// Sends a unary call.
    ///
    /// # Errors
    /// The status of the call; the same holds for the methods below.
    pub async fn say(&mut self, message: &str) -> Result<Response<String>, Status> {
        self.ready().await?;
        let request = Request::new(message.to_owned());
        let path = PathAndQuery::from_static("/cless.test.Echo/Say");
        self.grpc.unary(request, path, Codec::default()).await
    }

    /// Sends a server streaming call.
    pub async fn split(&mut self, message: &str) -> Result<Streaming<String>, Status> {
        self.ready().await?;
        let request = Request::new(message.to_owned());
        let path = PathAndQuery::from_static("/cless.test.Echo/Split");
        let replies = self.grpc.server_streaming(request, path, Codec::default());
        Ok(replies.await?.into_inner())
    }

    /// Sends a client streaming call.
    pub async fn join(&mut self, messages: &[&str]) -> Result<Response<String>, Status> {
        self.ready().await?;
        let messages: Vec<_> = messages.iter().map(|one| (*one).to_owned()).collect();
        let request = Request::new(tokio_stream::iter(messages));
        let path = PathAndQuery::from_static("/cless.test.Echo/Join");
        let reply = self.grpc.client_streaming(request, path, Codec::default());
        reply.await
    }

    /// Opens a bidirectional streaming call.
    pub async fn chat(
        &mut self,
        messages: impl Stream<Item = String> + Send + 'static,
    ) -> Result<Streaming<String>, Status> {
        self.ready().await?;
        let path = PathAndQuery::from_static("/cless.test.Echo/Chat");
        let request = Request::new(messages);
        let replies = self.grpc.streaming(request, path, Codec::default());
        Ok(replies.await?.into_inner())
    }
}
