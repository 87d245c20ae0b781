//! `cless-sample-app`: the small web app that the end-to-end tests, the demo and the benches run in
//! containers.
//!
//! It uses nothing but the standard library, so that [`cless_tests::image`] can compile it with one
//! `rustc` call, statically linked, into an image `FROM scratch`. It is HTTP/1.1 with keep-alive, one
//! thread a connection.
//!
//! It installs no handler for SIGTERM on purpose: the signal ends it at once, so an answer that cless
//! failed to drain is visibly cut.
//!
//! | path | answer |
//! |---|---|
//! | `/` and any other | `GREETING` and a newline |
//! | `/slow?ms=N` | the same after N ms |
//! | `/stream?seconds=N&every_ms=M` | chunked lines, one every M ms, for N s |
//! | `/echo` | the request body, as it arrives, framed as it arrived |
//! | `/headers` | `{"method","target","headers":[[name,value],…]}` as received |
//! | `/env` | the environment as JSON |
//! | `/status?code=N` | that status |
//! | `/big?bytes=N` | N bytes with a length |
//! | `/cut?bytes=N` | promises N bytes, sends half and closes |
//! | `/load` | `{"now","peak","served"}`: requests in work (this one not counted), their maximum, their number |
//! | `/exit?code=N` | none: the process ends |
//! | `/upgrade` | 101, then every byte back |
//! | `/healthz` | 200, or 503 before `HEALTHY_AFTER_MS` |
//! | `/write/PATH?bytes=N` | 200 once N bytes are in that file, else 500 with the error |
//! | `/read/PATH` | that file |
//! | `/threads?n=N` | how many of N more threads could be started |
//! | `grpc.health.v1.Health/Check`, by HTTP/2 | as `/healthz`, for all or the service `GRPC_HEALTH` |
//! | `/connect?to=IP:PORT` | `{"outcome"}`: `connected`, `refused`, `unreachable` or `timeout`, after 2 s at most |
//! | `/connect?to=IP:PORT&host=H` | with `"answer"` too: what a GET of `/` with that Host got |
//!
//! Environment: `PORT` (8080), `GREETING`, `START_DELAY_MS` before anything else, `EXIT_AT_START=CODE`
//! after two lines on stderr, `NEVER_LISTEN=1`, `HEALTHY_AFTER_MS`, `GRPC_HEALTH=SERVICE`, `LOG_LINES=N` on
//! stderr at first, `ALLOC_AT_START=BYTES` of memory, `ABORT_AT_START=1`.
//!
//! `sample-app check` is for a HEALTHCHECK: it asks `/healthz`.

#![expect(
    clippy::disallowed_methods,
    reason = "threads, and no runtime that a sleep could block"
)]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

#[path = "sample_app/health.rs"]
mod health;
#[path = "sample_app/limits.rs"]
mod limits;

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
            // A caller that leaves in the middle is no news to this app.
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

/// How the request body is framed (RFC 9112 section 6).
#[derive(Clone, Copy, PartialEq)]
enum Framing {
    Length(u64),
    Chunked,
}

struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
}

impl Request {
    fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or("/")
    }

    fn query(&self, key: &str) -> Option<u64> {
        self.query_text(key)?.parse().ok()
    }

    fn query_text(&self, key: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(k, _)| *k == key)
            .map(|(_, v)| v)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(k, _)| k.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }

    fn framing(&self) -> Framing {
        if self.header("transfer-encoding").is_some() {
            return Framing::Chunked;
        }
        let length = self.header("content-length").and_then(|v| v.parse().ok());
        Framing::Length(length.unwrap_or(0))
    }
}

fn serve_connection(stream: TcpStream, greeting: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BufReader::new(stream.try_clone()?);
    let mut output = stream;
    if health::is_http2(&mut input)? {
        return health::serve_http2(&mut input, &mut output);
    }
    while let Some(request) = read_head(&mut input)? {
        let before = NOW.fetch_add(1, Ordering::SeqCst);
        PEAK.fetch_max(before + 1, Ordering::SeqCst);
        let outcome = answer(&request, &mut input, &mut output, greeting, before);
        NOW.fetch_sub(1, Ordering::SeqCst);
        SERVED.fetch_add(1, Ordering::SeqCst);
        if !outcome? {
            break;
        }
    }
    Ok(())
}

fn read_head(input: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut parts = line.split_whitespace();
    let (Some(method), Some(target)) = (parts.next(), parts.next()) else {
        return Ok(None);
    };
    let (method, target) = (method.to_owned(), target.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Ok(Some(Request {
                method,
                target,
                headers,
            }));
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }
}

/// Writes one answer; false closes the connection.
fn answer(
    request: &Request,
    input: &mut BufReader<TcpStream>,
    output: &mut TcpStream,
    greeting: &str,
    others: usize,
) -> io::Result<bool> {
    if request.header("expect").is_some() {
        output.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    match request.path() {
        "/echo" => return echo(request, input, output).map(|()| true),
        "/upgrade" => return tunnel(request, input, output).map(|()| false),
        "/exit" => {
            let code = request
                .query("code")
                .and_then(|n| i32::try_from(n).ok())
                .unwrap_or(1);
            log(&format!("sample-app: asked to leave with code {code}"));
            std::process::exit(code);
        }
        _ => read_body(request, input, output, |_, _| Ok(()))?,
    }
    let hello = format!("{greeting}\n");
    match request.path() {
        "/slow" => {
            thread::sleep(Duration::from_millis(request.query("ms").unwrap_or(1000)));
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
            let json = format!("{{\"now\":{others},\"peak\":{peak},\"served\":{served}}}\n");
            send(output, 200, "application/json", json.as_bytes())?;
        }
        _ => send(output, 200, "text/plain", hello.as_bytes())?,
    }
    Ok(request
        .header("connection")
        .is_none_or(|v| !v.eq_ignore_ascii_case("close")))
}

/// Tries to reach somebody, for tests of who may.
fn connect_json(request: &Request) -> String {
    let limit = Duration::from_secs(2);
    let to: Option<SocketAddr> = request.query_text("to").and_then(|to| to.parse().ok());
    let Some(to) = to else {
        return "{\"outcome\":\"give to=IP:PORT\"}\n".to_owned();
    };
    let mut stream = match TcpStream::connect_timeout(&to, limit) {
        Ok(stream) => stream,
        Err(error) => {
            let outcome = match error.kind() {
                io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => "refused",
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "timeout",
                _ => "unreachable",
            };
            let detail = quote(&error.to_string());
            return format!("{{\"outcome\":{},\"detail\":{detail}}}\n", quote(outcome));
        }
    };
    let mut answer = String::new();
    if let Some(host) = request.query_text("host") {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
        let _ = write!(
            stream,
            "GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
        );
        let _ = stream.read_to_string(&mut answer);
    }
    format!(
        "{{\"outcome\":\"connected\",\"answer\":{}}}\n",
        quote(&answer)
    )
}

fn send(output: &mut TcpStream, status: u16, kind: &str, body: &[u8]) -> io::Result<()> {
    let mut message = format!(
        "HTTP/1.1 {status} Sample\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    message.extend_from_slice(body);
    output.write_all(&message)
}

fn send_chunk(output: &mut TcpStream, data: &[u8]) -> io::Result<()> {
    let mut chunk = format!("{:x}\r\n", data.len()).into_bytes();
    chunk.extend_from_slice(data);
    chunk.extend_from_slice(b"\r\n");
    output.write_all(&chunk)
}

const CHUNKED: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n";

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

fn write_fill(output: &mut TcpStream, bytes: u64) -> io::Result<()> {
    let block = [b'x'; 16 * 1024];
    let mut left = bytes;
    while left > 0 {
        let part = usize::try_from(left)
            .unwrap_or(block.len())
            .min(block.len());
        output.write_all(&block[..part])?;
        left -= part as u64;
    }
    Ok(())
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

fn tunnel(
    request: &Request,
    input: &mut BufReader<TcpStream>,
    output: &mut TcpStream,
) -> io::Result<()> {
    let Some(protocol) = request.header("upgrade") else {
        return send(output, 426, "text/plain", b"this path wants an Upgrade\n");
    };
    write!(
        output,
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n\r\n"
    )?;
    let mut block = [0_u8; 4096];
    loop {
        let n = input.read(&mut block)?;
        if n == 0 {
            return Ok(());
        }
        output.write_all(&block[..n])?;
    }
}

/// Reads the whole body and hands each piece on as it arrives.
fn read_body(
    request: &Request,
    input: &mut BufReader<TcpStream>,
    output: &mut TcpStream,
    mut take: impl FnMut(&mut TcpStream, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    match request.framing() {
        Framing::Length(length) => copy_exactly(input, output, length, &mut take),
        Framing::Chunked => loop {
            let mut line = String::new();
            input.read_line(&mut line)?;
            let size = line.split(';').next().unwrap_or("").trim();
            let size = u64::from_str_radix(size, 16)
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "bad chunk size"))?;
            copy_exactly(input, output, size, &mut take)?;
            loop {
                line.clear();
                if input.read_line(&mut line)? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                // A chunk ends with one empty line; the last is followed by trailers, then one.
                if size > 0 || line.trim_end().is_empty() {
                    break;
                }
            }
            if size == 0 {
                return Ok(());
            }
        },
    }
}

fn copy_exactly(
    input: &mut BufReader<TcpStream>,
    output: &mut TcpStream,
    length: u64,
    take: &mut impl FnMut(&mut TcpStream, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut left = length;
    while left > 0 {
        let data = input.fill_buf()?;
        if data.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(data.len());
        take(output, &data[..part])?;
        input.consume(part);
        left -= part as u64;
    }
    Ok(())
}

fn headers_json(request: &Request) -> String {
    let headers: Vec<String> = request
        .headers
        .iter()
        .map(|(name, value)| format!("[{},{}]", quote(name), quote(value)))
        .collect();
    format!(
        "{{\"method\":{},\"target\":{},\"headers\":[{}]}}\n",
        quote(&request.method),
        quote(&request.target),
        headers.join(",")
    )
}

fn env_json() -> String {
    let pairs: Vec<String> = std::env::vars()
        .map(|(k, v)| format!("{}:{}", quote(&k), quote(&v)))
        .collect();
    format!("{{{}}}\n", pairs.join(","))
}

fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
