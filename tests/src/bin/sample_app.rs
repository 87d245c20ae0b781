//! `cless-sample-app`: the small web app that the end-to-end tests, the demo and the benches run in
//! containers.
//!
//! It uses only the standard library, so that [`cless_tests::image`] compiles it with one `rustc`
//! call, statically linked, for an image `FROM scratch`. It serves HTTP/1.1 with keep-alive on one
//! thread per connection.
//!
//! It deliberately has no SIGTERM handler: the signal ends it immediately, so that a response which
//! cless failed to drain is visibly truncated.
//!
//! | path | response |
//! |---|---|
//! | `/` and any other | `GREETING` and a newline |
//! | `/slow?ms=N` | the same after N ms |
//! | `/stream?seconds=N&every_ms=M` | chunked lines, one every M ms, for N s |
//! | `/echo` | the request body as it arrives, with the same framing |
//! | `/headers` | `{"method","target","headers":[[name,value],…]}` as received |
//! | `/env` | the environment as JSON |
//! | `/status?code=N` | that status |
//! | `/big?bytes=N` | N bytes with a content-length |
//! | `/cut?bytes=N` | content-length N, then half of the bytes and a close |
//! | `/load` | `{"now","peak","served"}`: other requests in progress, their peak, requests served |
//! | `/exit?code=N` | none: the process exits |
//! | `/upgrade` | 101, then an echo of every byte |
//! | `/websocket` | a WebSocket that echoes every message |
//! | `/healthz` | 200, or 503 before `HEALTHY_AFTER_MS` |
//! | `/write/PATH?bytes=N` | 200 after writing N bytes to that file, or 500 with the error |
//! | `/read/PATH` | the content of that file |
//! | `/threads?n=N` | the number of threads, up to N, that could be started |
//! | `grpc.health.v1.Health/Check` over HTTP/2 | as `/healthz`, for all or the service `GRPC_HEALTH` |
//! | `/connect?to=IP:PORT` | `{"outcome"}`: `connected`, `refused`, `unreachable` or `timeout`, within 2 s |
//! | `/connect?to=IP:PORT&host=H` | also `"answer"`: the response to a GET of `/` with that Host |
//!
//! Environment: `PORT` (8080), `GREETING`, `HEALTHY_AFTER_MS`, `GRPC_HEALTH=SERVICE`; at start, in
//! this order: `START_DELAY_MS`, `LOG_LINES=N` on stderr, `ALLOC_AT_START=BYTES` of memory,
//! `ABORT_AT_START=1`, `EXIT_AT_START=CODE` after two lines on stderr, `NEVER_LISTEN=1`.
//!
//! `sample-app check` requests `/healthz`, for a HEALTHCHECK.

#![expect(
    clippy::disallowed_methods,
    reason = "the app uses threads and has no runtime that a sleep could block"
)]

use std::io::{self, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

#[path = "sample_app/health.rs"]
mod health;
#[path = "sample_app/http.rs"]
mod http;
#[path = "sample_app/json.rs"]
mod json;
#[path = "sample_app/limits.rs"]
mod limits;
#[path = "sample_app/upgrade.rs"]
mod upgrade;

use http::{CHUNKED, Framing, Request, read_body, read_head, send, send_chunk, write_fill};
use json::{connect_json, env_json, headers_json};

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static SERVED: AtomicUsize = AtomicUsize::new(0);

fn main() -> io::Result<()> {
    let port = env_number("PORT")
        .and_then(|n| u16::try_from(n).ok())
        .unwrap_or(8080);
    if std::env::args().nth(1).as_deref() == Some("check") {
        return health::check(port);
    }
    health::begin();
    if let Some(ms) = env_number("START_DELAY_MS") {
        thread::sleep(Duration::from_millis(ms));
    }
    health::fail_at_start();
    if let Some(code) = env_number("EXIT_AT_START") {
        log("sample-app: reading configuration");
        log(&format!(
            "sample-app: EXIT_AT_START is set, leaving with code {code}"
        ));
        std::process::exit(i32::try_from(code).unwrap_or(1));
    }
    if std::env::var_os("NEVER_LISTEN").is_some() {
        log("sample-app: NEVER_LISTEN is set");
        loop {
            thread::sleep(Duration::from_secs(3600));
        }
    }
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    log(&format!("sample-app: listening on port {port}"));
    let greeting = std::env::var("GREETING").unwrap_or_else(|_| "hello".to_owned());
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let greeting = greeting.clone();
        thread::spawn(move || {
            // A caller may disconnect at any time.
            let _ = serve_connection(stream, &greeting);
        });
    }
    Ok(())
}

fn log(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn env_number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn serve_connection(stream: TcpStream, greeting: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BufReader::new(stream.try_clone()?);
    let mut output = stream;
    if health::is_http2(&mut input)? {
        return health::serve_http2(&mut input, &mut output);
    }
    while let Some(request) = read_head(&mut input)? {
        let progress = InProgress::begin();
        if !respond(&request, &mut input, &mut output, greeting, progress)? {
            break;
        }
    }
    Ok(())
}

/// A request in progress. Where the peak matters it ends before its response is written, since the
/// next request may be read, on another connection, before a thread runs again.
struct InProgress {
    others: usize,
}

impl InProgress {
    fn begin() -> Self {
        let others = NOW.fetch_add(1, Ordering::SeqCst);
        PEAK.fetch_max(others + 1, Ordering::SeqCst);
        Self { others }
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        NOW.fetch_sub(1, Ordering::SeqCst);
        SERVED.fetch_add(1, Ordering::SeqCst);
    }
}

/// Writes a response; returns whether to keep the connection.
fn respond(
    request: &Request,
    input: &mut BufReader<TcpStream>,
    output: &mut TcpStream,
    greeting: &str,
    progress: InProgress,
) -> io::Result<bool> {
    if request.header("expect").is_some() {
        output.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    match request.path() {
        "/echo" => return echo(request, input, output).map(|()| true),
        "/upgrade" => return upgrade::tunnel(request, input, output).map(|()| false),
        "/websocket" => return upgrade::websocket(request, input, output).map(|()| false),
        "/exit" => {
            let code = request
                .query("code")
                .and_then(|n| i32::try_from(n).ok())
                .unwrap_or(1);
            log(&format!("sample-app: exiting with code {code} on request"));
            std::process::exit(code);
        }
        _ => read_body(request, input, output, |_, _| Ok(()))?,
    }
    let hello = format!("{greeting}\n");
    match request.path() {
        "/slow" => {
            thread::sleep(Duration::from_millis(request.query("ms").unwrap_or(1000)));
            drop(progress);
            send(output, 200, "text/plain", hello.as_bytes())?;
        }
        "/stream" => stream(request, output)?,
        "/headers" => send(
            output,
            200,
            "application/json",
            headers_json(request).as_bytes(),
        )?,
        "/connect" => send(
            output,
            200,
            "application/json",
            connect_json(request).as_bytes(),
        )?,
        "/env" => send(output, 200, "application/json", env_json().as_bytes())?,
        "/status" => {
            let code = request
                .query("code")
                .and_then(|n| u16::try_from(n).ok())
                .unwrap_or(200);
            send(output, code, "text/plain", hello.as_bytes())?;
        }
        "/healthz" => {
            let status = if health::is_healthy() { 200 } else { 503 };
            send(output, status, "text/plain", hello.as_bytes())?;
        }
        "/threads" => {
            let started = limits::threads(request.query("n").unwrap_or(1));
            send(output, 200, "text/plain", started.as_bytes())?;
        }
        path if path.starts_with("/write/") || path.starts_with("/read/") => {
            let done = match path.strip_prefix("/write") {
                Some(file) => limits::write(file, request.query("bytes").unwrap_or(1)),
                None => limits::read(path.trim_start_matches("/read")),
            };
            let (status, text) = done.map_or_else(|error| (500, error), |text| (200, text));
            send(output, status, "text/plain", text.as_bytes())?;
        }
        "/big" => big(output, request.query("bytes").unwrap_or(0))?,
        "/cut" => {
            let bytes = request.query("bytes").unwrap_or(1000);
            write!(output, "HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n")?;
            write_fill(output, bytes / 2)?;
            return Ok(false);
        }
        "/load" => {
            let (peak, served) = (PEAK.load(Ordering::SeqCst), SERVED.load(Ordering::SeqCst));
            let others = progress.others;
            let json = format!("{{\"now\":{others},\"peak\":{peak},\"served\":{served}}}\n");
            drop(progress);
            send(output, 200, "application/json", json.as_bytes())?;
        }
        _ => send(output, 200, "text/plain", hello.as_bytes())?,
    }
    Ok(request
        .header("connection")
        .is_none_or(|v| !v.eq_ignore_ascii_case("close")))
}

fn stream(request: &Request, output: &mut TcpStream) -> io::Result<()> {
    let until = Instant::now() + Duration::from_secs(request.query("seconds").unwrap_or(1));
    let every = Duration::from_millis(request.query("every_ms").unwrap_or(100).max(1));
    output.write_all(CHUNKED)?;
    let mut tick = 0_u64;
    while Instant::now() < until {
        send_chunk(output, format!("tick {tick}\n").as_bytes())?;
        tick += 1;
        thread::sleep(every);
    }
    send_chunk(output, b"end\n")?;
    send_chunk(output, b"")
}

fn big(output: &mut TcpStream, bytes: u64) -> io::Result<()> {
    write!(output, "HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n")?;
    write_fill(output, bytes)
}

fn echo(
    request: &Request,
    input: &mut BufReader<TcpStream>,
    output: &mut TcpStream,
) -> io::Result<()> {
    match request.framing() {
        Framing::Length(length) => {
            write!(
                output,
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n"
            )?;
            read_body(request, input, output, |output, data| {
                output.write_all(data)
            })
        }
        Framing::Chunked => {
            output.write_all(CHUNKED)?;
            read_body(request, input, output, send_chunk)?;
            send_chunk(output, b"")
        }
    }
}
