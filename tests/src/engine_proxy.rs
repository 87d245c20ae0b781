//! A fault-injecting proxy: a unix socket that forwards every call to a real engine, except that
//! calls selected by a test fail in ways that a real engine cannot produce on demand.
//!
//! ```text
//!   data plane ──► /tmp/…/engine.sock ──► the engine's socket
//!                     │ first rule that matches method and path
//!                     └ cut, hang, delay or fail, before or after the call is forwarded
//! ```
//!
//! Each call has its own connection to the engine, so that a fault affects that call alone. A
//! forwarded call runs to completion even if its caller disconnects, as it would in the engine.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A fault of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Closes the connection; the engine does not receive the call.
    CutBefore,
    /// The engine performs the call; then the connection is closed without a response.
    CutAfter,
    /// The engine performs the call; the caller receives status 500.
    FailAfter,
    /// The caller receives status 500; the engine does not receive the call.
    FailBefore,
    /// Holds the call until [`EngineProxy::clear`], then forwards it.
    Hang,
    /// Forwards the call after this time.
    Delay(Duration),
}

#[derive(Debug)]
struct Rule {
    method: Method,
    /// Prefix and suffix of the path without the API version, with names of containers for ids.
    path: (&'static str, &'static str),
    fault: Fault,
    left: usize,
}

#[derive(Debug)]
struct Shared {
    engine: PathBuf,
    rules: Mutex<Vec<Rule>>,
    calls: Mutex<Vec<String>>,
    /// The names of the created containers by their ids.
    names: Mutex<HashMap<String, String>>,
    /// Number of calls of [`EngineProxy::clear`].
    cleared: watch::Sender<u64>,
    /// Number of times that all connections were cut.
    cut: watch::Sender<u64>,
}

/// The proxy, which serves from [`EngineProxy::open`] until [`EngineProxy::shut`] or its drop.
#[derive(Debug)]
pub struct EngineProxy {
    dir: TempDir,
    shared: Arc<Shared>,
    serving: Option<JoinHandle<()>>,
}

impl EngineProxy {
    /// Creates a closed proxy in front of the engine at a unix socket: the engine seems to be down.
    pub fn shut_before(engine: &Path) -> Result<Self> {
        Ok(Self {
            dir: tempfile::Builder::new().prefix("cless-mitm-").tempdir()?,
            shared: Arc::new(Shared {
                engine: engine.to_owned(),
                rules: Mutex::default(),
                calls: Mutex::default(),
                names: Mutex::default(),
                cleared: watch::Sender::new(0),
                cut: watch::Sender::new(0),
            }),
            serving: None,
        })
    }

    /// Creates an open proxy in front of the engine at a unix socket.
    pub fn before(engine: &Path) -> Result<Self> {
        let mut proxy = Self::shut_before(engine)?;
        proxy.open()?;
        Ok(proxy)
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("engine.sock")
    }

    /// The value for `--engine`.
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Starts to listen.
    pub fn open(&mut self) -> Result<()> {
        let _ = std::fs::remove_file(self.socket());
        let listener = UnixListener::bind(self.socket())?;
        self.serving = Some(tokio::spawn(serve(listener, Arc::clone(&self.shared))));
        Ok(())
    }

    /// Stops listening and cuts all connections: the engine seems to be down.
    pub fn shut(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
        self.cut();
    }

    /// Cuts all connections including event streams.
    pub fn cut(&self) {
        self.shared.cut.send_modify(|count| *count += 1);
    }

    /// Injects a fault into the next `times` calls with this method, and this prefix and suffix of
    /// the path without the API version.
    pub fn fault(
        &self,
        method: Method,
        path: (&'static str, &'static str),
        fault: Fault,
        times: usize,
    ) {
        lock(&self.shared.rules).push(Rule {
            method,
            path,
            fault,
            left: times,
        });
    }

    /// Removes all faults and forwards calls held by [`Fault::Hang`].
    pub fn clear(&self) {
        lock(&self.shared.rules).clear();
        self.shared.cleared.send_modify(|count| *count += 1);
    }

    /// The number of calls with this method and path, as in [`EngineProxy::fault`], faulty or not.
    pub fn calls(&self, method: &Method, path: (&str, &str)) -> usize {
        let calls = lock(&self.shared.calls);
        let matches = |call: &&String| {
            call.strip_prefix(&format!("{method} "))
                .is_some_and(|rest| rest.starts_with(path.0) && rest.ends_with(path.1))
        };
        calls.iter().filter(matches).count()
    }

    /// Whether all injected faults have occurred as often as requested.
    pub fn is_spent(&self) -> bool {
        lock(&self.shared.rules).iter().all(|rule| rule.left == 0)
    }
}

impl Drop for EngineProxy {
    fn drop(&mut self) {
        self.shut();
    }
}

impl Shared {
    /// The path with the name of a container instead of its id.
    fn by_name(&self, path: String) -> String {
        let id = path.split('/').nth(2).unwrap_or_default();
        match lock(&self.names).get(id) {
            Some(name) => path.replacen(id, name, 1),
            None => path,
        }
    }
}

/// Locks even after a panic, which has failed the test already.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

type Body = BoxBody<Bytes, hyper::Error>;

async fn serve(listener: UnixListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let mut cut = shared.cut.subscribe();
            let service = service_fn(|request| handle(Arc::clone(&shared), request));
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                // An error means a cut or a disconnected caller.
                _ = connection => {}
                _ = cut.changed() => {}
            }
        });
    }
}

/// Handles a call; an error cuts the connection.
async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>> {
    let path = request.uri().path();
    // The path has the form `/v1.41/containers/json`.
    let path = match path
        .strip_prefix("/v")
        .and_then(|rest| rest.split_once('/'))
    {
        Some((_, rest)) => format!("/{rest}"),
        None => path.to_owned(),
    };
    let path = shared.by_name(path);
    lock(&shared.calls).push(format!("{} {path}", request.method()));
    let mut cleared = shared.cleared.subscribe();
    let fault = take_fault(&shared, request.method(), &path);
    match fault {
        Some(Fault::CutBefore) => anyhow::bail!("cut"),
        Some(Fault::FailBefore) => return Ok(failure("injected fault: not forwarded")),
        Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
        Some(Fault::Hang) => {
            let _ = cleared.changed().await;
        }
        _ => {}
    }
    // A separate task completes the call even if the caller disconnects.
    let response = tokio::spawn(forward(Arc::clone(&shared), path, request)).await??;
    match fault {
        Some(Fault::CutAfter | Fault::FailAfter) => {
            let status = response.status();
            let _ = response.into_body().collect().await;
            match fault {
                Some(Fault::CutAfter) => anyhow::bail!("cut after {status}"),
                _ => Ok(failure("injected fault: forwarded")),
            }
        }
        _ => Ok(response),
    }
}

fn take_fault(shared: &Shared, method: &Method, path: &str) -> Option<Fault> {
    let mut rules = lock(&shared.rules);
    let rule = rules.iter_mut().find(|rule| {
        rule.left > 0
            && rule.method == method
            && path.starts_with(rule.path.0)
            && path.ends_with(rule.path.1)
    })?;
    rule.left -= 1;
    Some(rule.fault)
}

fn failure(message: &str) -> Response<Body> {
    let text = serde_json::json!({ "message": message }).to_string();
    let body = Full::from(text).map_err(|never: Infallible| match never {});
    let mut response = Response::new(body.boxed());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

/// Forwards a call; learns the id of a container that it creates.
async fn forward(
    shared: Arc<Shared>,
    path: String,
    request: Request<Incoming>,
) -> Result<Response<Body>> {
    let query = request.uri().query().unwrap_or_default();
    let name = query.split('&').find_map(|one| one.strip_prefix("name="));
    let created = name.filter(|_| path == "/containers/create");
    let created = created.map(str::to_owned);
    let response = send(&shared.engine, request).await?;
    let Some(name) = created else {
        return Ok(response.map(|body| body.boxed()));
    };
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    let answer: serde_json::Value = serde_json::from_slice(&body)?;
    if let Some(id) = answer["Id"].as_str() {
        lock(&shared.names).insert(id.to_owned(), name);
    }
    let body = Full::from(body).map_err(|never: Infallible| match never {});
    Ok(Response::from_parts(head, body.boxed()))
}

async fn send(engine: &Path, request: Request<Incoming>) -> Result<Response<Incoming>> {
    let stream = UnixStream::connect(engine)
        .await
        .context("the real engine does not accept connections")?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}
