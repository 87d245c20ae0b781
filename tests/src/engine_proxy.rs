//! A man in the middle: a unix socket that passes every call on to a real engine, and makes the calls
//! fail that a test names, in ways that a real engine cannot be made to fail on demand.
//!
//! ```text
//!   data plane ──► /tmp/…/engine.sock ──► the engine's own socket
//!                     │ first rule that fits the method and the path
//!                     └ cut, hang, answer something else: before the call is passed on, or after
//! ```
//!
//! Each call is one connection on the far side, so that a cut or a hang concerns that call alone.
//! What is passed on is carried out to its end whoever waits for it, as it would be by the engine.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::sync::Mutex;
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is closed; the engine never hears of it.
    CutBefore,
    /// The engine does it; the connection is closed instead of an answer.
    CutAfter,
    /// The engine does it and answers; the caller is told 500.
    FailAfter,
    /// The caller is told 500; the engine never hears of it.
    FailBefore,
    /// Nothing, until [`EngineProxy::clear`]; then it is passed on.
    Hang,
    /// It is passed on after this time.
    Delay(Duration),
}

#[derive(Debug)]
struct Rule {
    method: Method,
    /// The path, without the API's version, starts and ends so.
    path: (&'static str, &'static str),
    fault: Fault,
    left: usize,
}

#[derive(Debug)]
struct Shared {
    engine: PathBuf,
    rules: Mutex<Vec<Rule>>,
    calls: Mutex<Vec<String>>,
    /// Counts the calls of [`EngineProxy::clear`].
    cleared: watch::Sender<u64>,
    /// Changes when all connections are to be cut.
    cut: watch::Sender<u64>,
}

/// The man in the middle. Serves from [`EngineProxy::open`] until it is shut or dropped.
#[derive(Debug)]
pub struct EngineProxy {
    dir: TempDir,
    shared: Arc<Shared>,
    serving: Option<JoinHandle<()>>,
}

impl EngineProxy {
    /// Before the engine at a unix socket; not open yet, so that the engine seems not to be there.
    pub fn shut_before(engine: &Path) -> Result<Self> {
        Ok(Self {
            dir: tempfile::Builder::new().prefix("cless-mitm-").tempdir()?,
            shared: Arc::new(Shared {
                engine: engine.to_owned(),
                rules: Mutex::default(),
                calls: Mutex::default(),
                cleared: watch::Sender::new(0),
                cut: watch::Sender::new(0),
            }),
            serving: None,
        })
    }

    /// Before the engine at a unix socket, and open.
    pub fn before(engine: &Path) -> Result<Self> {
        let mut proxy = Self::shut_before(engine)?;
        proxy.open()?;
        Ok(proxy)
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("engine.sock")
    }

    /// What `--engine` takes.
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Listens.
    pub fn open(&mut self) -> Result<()> {
        let _ = std::fs::remove_file(self.socket());
        let listener = UnixListener::bind(self.socket())?;
        self.serving = Some(tokio::spawn(serve(listener, Arc::clone(&self.shared))));
        Ok(())
    }

    /// Listens no more and cuts every connection: the engine is gone.
    pub fn shut(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
        self.cut();
    }

    /// Cuts every connection, the event streams too.
    pub fn cut(&self) {
        self.shared.cut.send_modify(|count| *count += 1);
    }

    /// The next `times` calls whose path, without the API's version, starts and ends so meet a fault.
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

    /// Forgets all faults, and passes on what hangs.
    pub fn clear(&self) {
        lock(&self.shared.rules).clear();
        self.shared.cleared.send_modify(|count| *count += 1);
    }

    /// How many calls met none or any fault, by method and path as in [`EngineProxy::fault`].
    pub fn calls(&self, method: &Method, path: (&str, &str)) -> usize {
        let calls = lock(&self.shared.calls);
        let fits = |call: &&String| {
            call.strip_prefix(&format!("{method} "))
                .is_some_and(|rest| rest.starts_with(path.0) && rest.ends_with(path.1))
        };
        calls.iter().filter(fits).count()
    }

    /// Whether every fault that was asked for has happened as often as it was.
    pub fn is_spent(&self) -> bool {
        lock(&self.shared.rules).iter().all(|rule| rule.left == 0)
    }
}

impl Drop for EngineProxy {
    fn drop(&mut self) {
        self.shut();
    }
}

/// A test that panicked has failed anyhow.
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
            let service = service_fn(|request| answer(Arc::clone(&shared), request));
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                // An error is a cut, or a caller that left.
                _ = connection => {}
                _ = cut.changed() => {}
            }
        });
    }
}

/// An error cuts the connection.
async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>> {
    let path = request.uri().path();
    // `/v1.41/containers/json`
    let path = match path
        .strip_prefix("/v")
        .and_then(|rest| rest.split_once('/'))
    {
        Some((_, rest)) => format!("/{rest}"),
        None => path.to_owned(),
    };
    lock(&shared.calls).push(format!("{} {path}", request.method()));
    let mut cleared = shared.cleared.subscribe();
    let fault = take_fault(&shared, request.method(), &path);
    match fault {
        Some(Fault::CutBefore) => anyhow::bail!("cut"),
        Some(Fault::FailBefore) => return Ok(failure("the man in the middle says no")),
        Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
        Some(Fault::Hang) => {
            let _ = cleared.changed().await;
        }
        _ => {}
    }
    // A task of its own: what the engine was asked for it does, whoever waits.
    let engine = shared.engine.clone();
    let done = tokio::spawn(async move { pass_on(&engine, request).await }).await??;
    match fault {
        Some(Fault::CutAfter | Fault::FailAfter) => {
            let status = done.status();
            let _ = done.into_body().collect().await;
            match fault {
                Some(Fault::CutAfter) => anyhow::bail!("cut after {status}"),
                _ => Ok(failure("the man in the middle has seen it done")),
            }
        }
        _ => Ok(done.map(|body| body.boxed())),
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

/// As the engine words it.
fn failure(message: &str) -> Response<Body> {
    let text = serde_json::json!({ "message": message }).to_string();
    let body = Full::from(text).map_err(|never: Infallible| match never {});
    let mut response = Response::new(body.boxed());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

async fn pass_on(engine: &Path, request: Request<Incoming>) -> Result<Response<Incoming>> {
    let stream = UnixStream::connect(engine)
        .await
        .context("the real engine is away")?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}
