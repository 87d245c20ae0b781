//! Health for probes: `/healthz`, `grpc.health.v1` on the same port, and the program of an image's
//! HEALTHCHECK.
//!
//! HTTP/2 is limited to the needs of `Check`: frames are read by length, the request head is not
//! decoded, and the response head consists of HPACK literals (RFC 7541).

use std::io::{self, BufRead, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::{env_number, log};

static BEGAN: OnceLock<Instant> = OnceLock::new();

/// Starts the clock of `HEALTHY_AFTER_MS`.
pub(crate) fn begin() {
    let _ = BEGAN.set(Instant::now());
}

/// Whether `HEALTHY_AFTER_MS` has passed.
pub(crate) fn is_healthy() -> bool {
    let after = Duration::from_millis(env_number("HEALTHY_AFTER_MS").unwrap_or(0));
    BEGAN.get().is_none_or(|began| began.elapsed() >= after)
}

/// `sample-app check`: requests `/healthz` from the app in the same container.
pub(crate) fn check(port: u16) -> io::Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let status = response.split(' ').nth(1).unwrap_or_default();
    if status == "200" {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "/healthz responded with {status}"
    )))
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Whether a connection starts with HTTP/2 by prior knowledge.
pub(crate) fn is_http2(input: &mut impl BufRead) -> io::Result<bool> {
    Ok(input.fill_buf()?.starts_with(b"PRI"))
}

/// Responds to every call with the health, or with NOT_FOUND for a service other than
/// `GRPC_HEALTH`.
pub(crate) fn serve_http2(input: &mut impl Read, output: &mut impl Write) -> io::Result<()> {
    let mut preface = [0; PREFACE.len()];
    input.read_exact(&mut preface)?;
    frame(output, SETTINGS, 0, 0, &[])?;
    let mut message = Vec::new();
    loop {
        let mut head = [0; 9];
        if input.read_exact(&mut head).is_err() {
            return Ok(());
        }
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        input.read_exact(&mut payload)?;
        let stream = u32::from_be_bytes(stream);
        match kind {
            SETTINGS if flags & ACK == 0 => frame(output, SETTINGS, ACK, 0, &[])?,
            PING if flags & ACK == 0 => frame(output, PING, ACK, 0, &payload)?,
            HEADERS => message.clear(),
            DATA => message.extend_from_slice(&payload),
            _ => {}
        }
        if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
            respond(output, stream, &message)?;
        }
    }
}

fn respond(output: &mut impl Write, stream: u32, message: &[u8]) -> io::Result<()> {
    // :status 200 (static table), then content-type (static name 31) with a literal value.
    let mut head = vec![0x88, 0x0f, 0x10];
    literal(&mut head, b"application/grpc");
    // The message follows five bytes of prefix and two of the field header of `service`.
    let service = message.get(7..).unwrap_or_default();
    let known = std::env::var("GRPC_HEALTH").unwrap_or_default();
    let found = service.is_empty() || service == known.as_bytes();
    frame(output, HEADERS, END_HEADERS, stream, &head)?;
    if found {
        // ServingStatus: 1 is SERVING, 2 is NOT_SERVING.
        let status = if is_healthy() { 1 } else { 2 };
        frame(output, DATA, 0, stream, &[0, 0, 0, 0, 2, 8, status])?;
    }
    let mut trailers = vec![0];
    literal(&mut trailers, b"grpc-status");
    literal(&mut trailers, if found { b"0" } else { b"5" });
    frame(output, HEADERS, END_HEADERS | END_STREAM, stream, &trailers)
}

/// Appends an HPACK string without Huffman coding; shorter than 127 bytes.
fn literal(block: &mut Vec<u8>, text: &[u8]) {
    block.push(u8::try_from(text.len()).unwrap_or(0));
    block.extend_from_slice(text);
}

fn frame(
    output: &mut impl Write,
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &[u8],
) -> io::Result<()> {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    let mut bytes = vec![a, b, c, kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    output.write_all(&bytes)
}

/// Logs, allocates or aborts at start, as the environment requests.
pub(crate) fn fail_at_start() {
    for line in 1..=env_number("LOG_LINES").unwrap_or(0) {
        log(&format!("sample-app: line {line}"));
    }
    if let Some(bytes) = env_number("ALLOC_AT_START") {
        log(&format!("sample-app: allocating {bytes} bytes"));
        let block = vec![1_u8; usize::try_from(bytes).unwrap_or(0)];
        log(&format!(
            "sample-app: allocated {}",
            std::hint::black_box(block).len()
        ));
    }
    if std::env::var_os("ABORT_AT_START").is_some() {
        log("sample-app: aborting");
        std::process::abort();
    }
}
