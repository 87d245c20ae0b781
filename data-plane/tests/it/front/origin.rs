//! An origin that records requests and parses them as strictly as RFC 9112 allows: anything
//! ambiguous is a failure of the proxy.
//!
//! | path | response |
//! |---|---|
//! | `/hold` | none |
//! | `/late` | `ok`, after 2 s |
//! | `/large` | 64 MiB with a length |
//! | `/drip` | endless chunks, as fast as they are read |
//! | any other | `ok` |

use std::fmt;
use std::mem::take;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::client::find;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Twice the head timeout of the tests.
const LATE: Duration = Duration::from_secs(2);

#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct RecordedRequest {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

impl fmt::Debug for RecordedRequest {
    /// On one line, for readable tables of failures.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |text: &[u8]| {
            let text = text.escape_ascii().to_string();
            text.chars().take(80).collect::<String>()
        };
        let (target, body) = (short(self.target.as_bytes()), short(&self.body));
        write!(f, "{} {target} body={body:?}", self.method)?;
        for (name, value) in self.fields.iter().chain(&self.trailers) {
            write!(f, " | {name}: {}", short(value.as_bytes()))?;
        }
        Ok(())
    }
}

impl RecordedRequest {
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(known, _)| known == name);
        named.map(|(_, value)| value.as_str()).collect()
    }
}

#[derive(Debug, Default)]
struct Record {
    whole: Vec<RecordedRequest>,
    /// Malformed requests, with reasons.
    bad: Vec<(String, String)>,
    /// Maximum bytes that one response passed to the kernel.
    written: u64,
}

/// The requests received so far. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origin {
    record: Arc<Mutex<Record>>,
}

impl Origin {
    /// Serves connections that the engine's containers accept.
    pub(crate) fn serve(mut visitors: mpsc::UnboundedReceiver<TcpStream>) -> Self {
        let origin = Self::default();
        let this = origin.clone();
        tokio::spawn(async move {
            while let Some(stream) = visitors.recv().await {
                let this = this.clone();
                // Requests that were complete before the proxy closed the connection count.
                tokio::spawn(async move { this.connection(stream).await });
            }
        });
        origin
    }

    /// Complete requests since the last call.
    ///
    /// # Panics
    /// If any request was malformed.
    pub(crate) fn take(&self) -> Vec<RecordedRequest> {
        self.try_take().unwrap_or_else(|bad| panic!("{bad}"))
    }

    /// Complete requests since the last call, or the malformed ones.
    pub(crate) fn try_take(&self) -> Result<Vec<RecordedRequest>, String> {
        let mut record = self.record.lock();
        let (whole, bad) = (take(&mut record.whole), take(&mut record.bad));
        match bad.is_empty() {
            true => Ok(whole),
            false => Err(format!("the origin received malformed requests: {bad:?}")),
        }
    }

    /// Maximum bytes that one response passed to the kernel.
    pub(crate) fn written(&self) -> u64 {
        self.record.lock().written
    }

    async fn connection(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut input = Vec::new();
        loop {
            match read_request(&input) {
                Ok(Some((seen, used))) => {
                    input.drain(..used);
                    let (method, path) = (seen.method.clone(), seen.target.clone());
                    self.record.lock().whole.push(seen);
                    self.answer(&mut stream, &method, &path).await?;
                }
                Ok(None) => {
                    if stream.read_buf(&mut input).await? == 0 {
                        return Ok(());
                    }
                }
                Err(why) => {
                    let text = String::from_utf8_lossy(&input).into_owned();
                    self.record.lock().bad.push((why.to_owned(), text));
                    return Ok(());
                }
            }
        }
    }

    async fn answer(
        &self,
        stream: &mut TcpStream,
        method: &str,
        path: &str,
    ) -> std::io::Result<()> {
        match path {
            "/hold" => {
                // Until the proxy closes the connection.
                let _ = stream.read(&mut [0]).await?;
                Err(std::io::ErrorKind::UnexpectedEof.into())
            }
            "/late" => {
                tokio::time::sleep(LATE).await;
                stream.write_all(OK).await
            }
            "/large" => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 64 << 20);
                stream.write_all(head.as_bytes()).await?;
                self.fill(stream, 64 << 20).await
            }
            "/drip" => {
                let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                stream.write_all(head).await?;
                let chunk = [&b"4000\r\n"[..], &vec![b'x'; 0x4000], b"\r\n"].concat();
                loop {
                    stream.write_all(&chunk).await?;
                }
            }
            _ if method == "HEAD" => stream.write_all(&OK[..OK.len() - 2]).await,
            _ => stream.write_all(OK).await,
        }
    }

    async fn fill(&self, stream: &mut TcpStream, length: usize) -> std::io::Result<()> {
        let block = vec![b'x'; 16 * 1024];
        let mut written = 0;
        while written < length {
            written += stream
                .write(&block[..block.len().min(length - written)])
                .await?;
            let mut record = self.record.lock();
            record.written = record.written.max(written as u64);
        }
        Ok(())
    }
}

pub(crate) type Strict<T> = Result<T, &'static str>;

/// The request at the start of `bytes` and its length; `None` while it is incomplete.
fn read_request(bytes: &[u8]) -> Strict<Option<(RecordedRequest, usize)>> {
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        // It may still become complete unless a line is already invalid.
        return match find(bytes, b"\r\n") {
            Some(line) => request_line(&bytes[..line]).map(|_| None),
            None => Ok(None),
        };
    };
    let mut lines = split_lines(&bytes[..end])?.into_iter();
    let (method, target) = request_line(lines.next().unwrap_or_default())?;
    let fields = lines.map(field).collect::<Strict<Vec<_>>>()?;
    let mut seen = RecordedRequest {
        method,
        target,
        fields,
        ..RecordedRequest::default()
    };
    match seen.all("host")[..] {
        [host] if !host.is_empty() => {}
        [] => return Err("no Host"),
        _ => return Err("not one Host"),
    }
    for name in ["keep-alive", "proxy-connection", "proxy-authorization"] {
        if !seen.all(name).is_empty() {
            return Err("a field of one hop");
        }
    }
    let differs = |name, own: &str| seen.all(name).iter().any(|value| *value != own);
    if differs("connection", "upgrade") || differs("te", "trailers") {
        return Err("a Connection or TE field that is not the proxy's");
    }
    let rest = &bytes[end + 4..];
    let (lengths, codings) = (seen.all("content-length"), seen.all("transfer-encoding"));
    let used = match (&lengths[..], &codings[..]) {
        ([], []) => 0,
        ([length], []) => {
            if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err("Content-Length is no number");
            }
            let length = length
                .parse::<usize>()
                .map_err(|_| "Content-Length is too large")?;
            let Some(body) = rest.get(..length) else {
                return Ok(None);
            };
            seen.body = body.to_vec();
            length
        }
        ([], ["chunked"]) => match chunked(rest)? {
            Some((body, trailers, used)) => {
                (seen.body, seen.trailers) = (body, trailers);
                used
            }
            None => return Ok(None),
        },
        _ => return Err("framed in more than one way"),
    };
    Ok(Some((seen, end + 4 + used)))
}

fn request_line(line: &[u8]) -> Strict<(String, String)> {
    let line = std::str::from_utf8(line).map_err(|_| "the request line is no text")?;
    let parts: Vec<&str> = line.split(' ').collect();
    match parts[..] {
        [method, target, "HTTP/1.1"] => {
            if method.is_empty() || !method.bytes().all(is_token) {
                return Err("the method is no token");
            }
            if !(target.starts_with('/') || (target == "*" && method == "OPTIONS")) {
                return Err("the target is not in origin-form");
            }
            if target.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
                return Err("the target holds a control byte");
            }
            Ok((method.to_owned(), target.to_owned()))
        }
        _ => Err("the request line is not of three parts"),
    }
}

/// Lines that end with CR LF; neither byte occurs elsewhere.
fn split_lines(bytes: &[u8]) -> Strict<Vec<&[u8]>> {
    let mut lines = Vec::new();
    let mut rest = bytes;
    loop {
        let end = find(rest, b"\r\n");
        let line = &rest[..end.unwrap_or(rest.len())];
        if line.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
            return Err("a CR or LF of its own");
        }
        lines.push(line);
        match end {
            Some(end) => rest = &rest[end + 2..],
            None => return Ok(lines),
        }
    }
}

/// Lower-case name, and value.
fn field(line: &[u8]) -> Strict<(String, String)> {
    let colon = line
        .iter()
        .position(|byte| *byte == b':')
        .ok_or("a field without colon")?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err("a field's name is no token");
    }
    if value
        .iter()
        .any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f)
    {
        return Err("a field's value holds a control byte");
    }
    Ok((
        String::from_utf8_lossy(name).to_ascii_lowercase(),
        String::from_utf8_lossy(value.trim_ascii()).into_owned(),
    ))
}

pub(crate) type Chunked = (Vec<u8>, Vec<(String, String)>, usize);

/// A chunked body with its trailers and length; `None` while it is incomplete.
pub(crate) fn chunked(bytes: &[u8]) -> Strict<Option<Chunked>> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(line) = find(&bytes[at..], b"\r\n") else {
            return Ok(None);
        };
        let size = &bytes[at..at + line];
        if size.is_empty() || size.len() > 15 || !size.iter().all(u8::is_ascii_hexdigit) {
            return Err("a chunk's size is no number");
        }
        let text = std::str::from_utf8(size).map_err(|_| "no text")?;
        let size = usize::from_str_radix(text, 16).map_err(|_| "too large")?;
        at += line + 2;
        if size == 0 {
            return trailers(&bytes[at..])
                .map(|found| found.map(|(trailers, used)| (body, trailers, at + used)));
        }
        match bytes.get(at..at + size + 2) {
            Some([data @ .., b'\r', b'\n']) => body.extend_from_slice(data),
            Some(_) => return Err("a chunk does not end where it should"),
            None => return Ok(None),
        }
        at += size + 2;
    }
}

type Fields = Vec<(String, String)>;

fn trailers(bytes: &[u8]) -> Strict<Option<(Fields, usize)>> {
    if bytes.starts_with(b"\r\n") {
        return Ok(Some((Vec::new(), 2)));
    }
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let lines = split_lines(&bytes[..end])?;
    let fields = lines.into_iter().map(field).collect::<Strict<Fields>>()?;
    let framing = "host content-length transfer-encoding connection trailer";
    let is_framing = |name: &str| framing.split(' ').any(|known| known == name);
    if fields.iter().any(|(name, _)| is_framing(name)) {
        return Err("a field of framing or routing among the trailers");
    }
    Ok(Some((fields, end + 4)))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
