//! The access log: one line per request, written by a thread of its own.
//!
//! Each worker formats lines into its buffer. A full buffer, or any buffer at a tick, goes to the
//! writer thread over a bounded queue. If the disk is slower than the traffic, buffers are dropped
//! and counted; requests are unaffected.
//!
//! `combined` is Apache's format followed by service, version, seconds, cold-start milliseconds and
//! the reason of a response by cless itself. Values from clients are escaped, so that they cannot
//! forge lines.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue, Method, Uri, Version, header};
use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;

use crate::proxy::options::{AccessLog, ProxyOptions};
use crate::trace::{self, Tracer};

/// Capacity of a worker's buffer in bytes.
const BUFFER_BYTES: usize = 64 * 1024;
/// Buffers that may wait for the writer: 16 MiB.
const MAX_QUEUED: usize = 256;

const APACHE_TIME: &str = "%d/%b/%Y:%H:%M:%S +0000";
/// Without the fraction and the offset, which are added to each line.
const RFC_3339: &str = "%Y-%m-%dT%H:%M:%S";

/// The parts of a request that its log line contains.
#[derive(Debug)]
pub(crate) struct LoggedRequest {
    /// `None`: the head was not parsed.
    pub(crate) target: Option<(Method, Uri)>,
    pub(crate) version: Version,
    pub(crate) host: Option<HeaderValue>,
    pub(crate) agent: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    /// The trace context; `None` without traces.
    pub(crate) trace: Option<trace::Context>,
}

impl LoggedRequest {
    pub(crate) fn new(
        method: &Method,
        uri: &Uri,
        version: Version,
        fields: &HeaderMap,
        tracer: Option<&Tracer>,
    ) -> Self {
        Self {
            target: Some((method.clone(), uri.clone())),
            version,
            host: fields.get(header::HOST).cloned(),
            agent: fields.get(header::USER_AGENT).cloned(),
            referer: fields.get(header::REFERER).cloned(),
            trace: tracer.map(|tracer| tracer.begin(fields)),
        }
    }

    /// A request whose head was not parsed, over a connection of this protocol.
    pub(crate) fn unparsed(version: Version) -> Self {
        Self {
            target: None,
            version,
            host: None,
            agent: None,
            referer: None,
            trace: None,
        }
    }

    /// The method; `-` if it is unknown.
    fn method(&self) -> &str {
        let target = self.target.as_ref();
        target.map_or("-", |(method, _)| method.as_str())
    }
}

#[derive(Debug)]
pub(crate) struct AccessRecord<'a> {
    pub(crate) request: &'a LoggedRequest,
    pub(crate) peer: &'a HeaderValue,
    pub(crate) scheme: &'static str,
    pub(crate) id: &'a HeaderValue,
    /// `None`: no service has the host.
    pub(crate) service: Option<&'a Arc<str>>,
    /// `None`: no version was chosen.
    pub(crate) version: Option<u32>,
    pub(crate) status: u16,
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
    /// The wait for an instance; `None` if one was free.
    pub(crate) waited: Option<Duration>,
    /// The reason for a response of cless itself; empty for one of an instance.
    pub(crate) reason: &'static str,
}

/// The queue of the writer thread, which ends with the last clone. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct AccessLogSink {
    format: AccessLog,
    queue: SyncSender<Vec<u8>>,
    dropped: Counter,
}

/// The buffer of one worker.
#[derive(Debug)]
pub(crate) struct AccessLogBuffer {
    sink: AccessLogSink,
    buffer: Vec<u8>,
    /// The second of `timestamp` since the epoch.
    second: u64,
    timestamp: String,
}

/// The writer thread, which ends after all workers.
pub(crate) type WriterThread = JoinHandle<()>;

impl AccessLogSink {
    /// Opens the log; `None` if it is off. `dropped` counts lines that were not written.
    ///
    /// # Errors
    /// If the file cannot be opened, or the thread cannot be started.
    pub(crate) fn open(
        options: &ProxyOptions,
        dropped: Counter,
    ) -> io::Result<Option<(Self, WriterThread)>> {
        if options.access_log == AccessLog::Off {
            return Ok(None);
        }
        let out: Box<dyn Write + Send> = match &options.access_log_file {
            None => Box::new(io::stdout()),
            Some(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
        };
        let (queue, buffers) = sync_channel(MAX_QUEUED);
        let writer = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_all(out, &buffers))?;
        let sink = Self {
            format: options.access_log,
            queue,
            dropped,
        };
        Ok(Some((sink, writer)))
    }
}

fn write_all(mut out: Box<dyn Write + Send>, buffers: &Receiver<Vec<u8>>) {
    let mut failed = false;
    for buffer in buffers {
        let written = out.write_all(&buffer).and_then(|()| out.flush());
        if let Err(error) = &written
            && !failed
        {
            tracing::error!(%error, "cannot write the access log");
        }
        failed = written.is_err();
    }
}

impl AccessLogBuffer {
    pub(crate) fn new(sink: AccessLogSink) -> Self {
        Self {
            sink,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            second: 0,
            timestamp: String::new(),
        }
    }

    /// Adds a line for a request that ended at `now`.
    pub(crate) fn add(&mut self, record: &AccessRecord<'_>, now: SystemTime) {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second != now.as_secs() || self.timestamp.is_empty() {
            self.second = now.as_secs();
            self.timestamp = match self.sink.format {
                AccessLog::Combined => format_time(self.second, APACHE_TIME),
                _ => format_time(self.second, RFC_3339),
            };
        }
        let line = &mut self.buffer;
        // Writing to memory does not fail.
        let _ = match self.sink.format {
            AccessLog::Combined => combined(line, record, &self.timestamp),
            _ => json(line, record, &self.timestamp, now.subsec_millis()),
        };
        if self.buffer.len() >= BUFFER_BYTES - 4096 {
            self.flush();
        }
    }

    /// Queues the buffered lines for the writer.
    pub(crate) fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(BUFFER_BYTES));
        if let Err(lost) = self.sink.queue.try_send(full) {
            use std::sync::mpsc::TrySendError::{Disconnected, Full};
            let (Full(lost) | Disconnected(lost)) = lost;
            let lines = memchr::memchr_iter(b'\n', &lost).count();
            self.sink.dropped.inc_by(lines as u64);
        }
    }
}

impl Drop for AccessLogBuffer {
    fn drop(&mut self) {
        self.flush();
    }
}

fn json(
    out: &mut Vec<u8>,
    record: &AccessRecord<'_>,
    timestamp: &str,
    millis: u32,
) -> io::Result<()> {
    let request = record.request;
    write!(out, r#"{{"time":"{timestamp}.{millis:03}Z","request_id":""#)?;
    escape(out, record.id.as_bytes())?;
    out.extend_from_slice(br#"","client":""#);
    escape(out, record.peer.as_bytes())?;
    write!(
        out,
        r#"","scheme":"{}","method":"{}","host":""#,
        record.scheme,
        request.method()
    )?;
    escape(out, host(request))?;
    out.extend_from_slice(br#"","path":""#);
    escape(out, path(request).as_bytes())?;
    write!(
        out,
        r#"","protocol":"{:?}","status":{},"bytes":{},"duration_ms":{:.3}"#,
        request.version,
        record.status,
        record.bytes,
        millis_of(record.took)
    )?;
    if let Some(service) = record.service {
        write!(out, r#","service":"{service}""#)?;
    }
    if let Some(version) = record.version {
        write!(out, r#","version":{version}"#)?;
    }
    if let Some(waited) = record.waited {
        write!(out, r#","cold_start_ms":{:.3}"#, millis_of(waited))?;
    }
    if !record.reason.is_empty() {
        write!(out, r#","reason":"{}""#, record.reason)?;
    }
    for (name, value) in [
        ("user_agent", &request.agent),
        ("referer", &request.referer),
    ] {
        if let Some(value) = value {
            write!(out, r#","{name}":""#)?;
            escape(out, value.as_bytes())?;
            out.push(b'"');
        }
    }
    out.extend_from_slice(b"}\n");
    Ok(())
}

fn combined(out: &mut Vec<u8>, record: &AccessRecord<'_>, timestamp: &str) -> io::Result<()> {
    let request = record.request;
    out.extend_from_slice(record.peer.as_bytes());
    write!(out, " - - [{timestamp}] \"{} ", request.method())?;
    escape(out, path(request).as_bytes())?;
    write!(
        out,
        " {:?}\" {} {}",
        request.version, record.status, record.bytes
    )?;
    for value in [&request.referer, &request.agent] {
        out.extend_from_slice(b" \"");
        escape(out, value.as_ref().map_or(b"-", |value| value.as_bytes()))?;
        out.push(b'"');
    }
    write!(out, " {}", record.service.map_or("-", |service| service))?;
    match record.version {
        Some(version) => write!(out, " v{version}")?,
        None => out.extend_from_slice(b" -"),
    }
    write!(out, " {:.6}", record.took.as_secs_f64())?;
    match record.waited {
        Some(waited) => write!(out, " {:.1}", millis_of(waited))?,
        None => out.extend_from_slice(b" -"),
    }
    let reason = if record.reason.is_empty() {
        "-"
    } else {
        record.reason
    };
    writeln!(out, " {reason}")
}

fn host(request: &LoggedRequest) -> &[u8] {
    let uri = request.target.as_ref().map(|(_, uri)| uri);
    let authority = uri.and_then(Uri::authority);
    let authority = authority.map(|authority| authority.as_str().as_bytes());
    let field = || request.host.as_ref().map(HeaderValue::as_bytes);
    authority.or_else(field).unwrap_or_default()
}

fn path(request: &LoggedRequest) -> &str {
    let Some((_, uri)) = &request.target else {
        return "-";
    };
    uri.path_and_query().map_or("", |path| path.as_str())
}

fn millis_of(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Escapes as JSON does, for both formats. Other bytes than ASCII become `\u00XX`, so that a line
/// is always UTF-8.
fn escape(out: &mut Vec<u8>, text: &[u8]) -> io::Result<()> {
    for byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            0x20..=0x7e => out.push(*byte),
            _ => write!(out, "\\u00{byte:02x}")?,
        }
    }
    Ok(())
}

fn format_time(second: u64, format: &str) -> String {
    let second = i64::try_from(second).unwrap_or(i64::MAX);
    let time = Timestamp::from_second(second).unwrap_or(Timestamp::MAX);
    time.strftime(format).to_string()
}

#[cfg(test)]
mod tests;
