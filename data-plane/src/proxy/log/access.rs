//! The access log: a line for each request, written off its path.
//!
//! A worker formats a line into its own buffer; a full buffer, or one that has waited for a tick, goes
//! to one writer thread over a bounded queue. When the disk is slower than the traffic, buffers are
//! dropped and counted: a log must not slow what it tells of.
//!
//! `combined` is Apache's format followed by service, version, seconds, cold-start milliseconds and the
//! reason why cless answered itself. Values of clients are escaped, so that nobody forges a line.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue, Method, Uri, Version, header};
use prometheus_client::metrics::counter::Counter;

use super::options::{AccessLog, ProxyOptions};
use crate::trace::{self, Tracer};

/// A worker's buffer goes to the writer when it is this full.
const BUFFER: usize = 64 * 1024;
/// Buffers that may wait for the writer: 16 MiB.
const QUEUE: usize = 256;

/// What a request asked for, kept for its line.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) version: Version,
    pub(super) host: Option<HeaderValue>,
    pub(super) agent: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    /// Its place in a trace; `None` without traces.
    pub(super) trace: Option<trace::Context>,
}

impl Asked {
    pub(super) fn new(
        method: &Method,
        uri: &Uri,
        version: Version,
        fields: &HeaderMap,
        tracer: Option<&Tracer>,
    ) -> Self {
        Self {
            method: method.clone(),
            uri: uri.clone(),
            version,
            host: fields.get(header::HOST).cloned(),
            agent: fields.get(header::USER_AGENT).cloned(),
            referer: fields.get(header::REFERER).cloned(),
            trace: tracer.map(|tracer| tracer.begin(fields)),
        }
    }
}

/// All that a line tells.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) asked: &'a Asked,
    pub(super) peer: &'a HeaderValue,
    pub(super) scheme: &'static str,
    pub(super) id: &'a HeaderValue,
    pub(super) service: Option<&'a str>,
    pub(super) version: Option<u32>,
    pub(super) status: u16,
    pub(super) bytes: u64,
    pub(super) took: Duration,
    /// How long it waited for an instance; `None`: there was one.
    pub(super) waited: Option<Duration>,
    /// Why cless answered itself; empty if it did not.
    pub(super) reason: &'static str,
}

/// Where lines go. Cheap to clone; the writer ends when the last is dropped.
#[derive(Debug, Clone)]
pub(super) struct Log {
    format: AccessLog,
    queue: SyncSender<Vec<u8>>,
    dropped: Counter,
}

/// One worker's lines.
#[derive(Debug)]
pub(super) struct Lines {
    log: Log,
    buffer: Vec<u8>,
    /// The second that `stamp` is of.
    second: u64,
    stamp: String,
}

/// The writer's thread, to be waited for once all workers have ended.
pub(super) type Writer = JoinHandle<()>;

impl Log {
    /// Opens the log, if there is to be one. `dropped` counts lines that were not written.
    ///
    /// # Errors
    /// If the file cannot be opened, or there is no thread to be had.
    pub(super) fn open(
        options: &ProxyOptions,
        dropped: Counter,
    ) -> io::Result<Option<(Self, Writer)>> {
        if options.access_log == AccessLog::Off {
            return Ok(None);
        }
        let out: Box<dyn Write + Send> = match &options.access_log_file {
            None => Box::new(io::stdout()),
            Some(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
        };
        let (queue, buffers) = sync_channel(QUEUE);
        let writer = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_all(out, &buffers))?;
        let log = Self {
            format: options.access_log,
            queue,
            dropped,
        };
        Ok(Some((log, writer)))
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

impl Lines {
    pub(super) fn new(log: Log) -> Self {
        Self {
            log,
            buffer: Vec::with_capacity(BUFFER),
            second: 0,
            stamp: String::new(),
        }
    }

    /// Adds a line for a request that ended at `now`.
    pub(super) fn add(&mut self, entry: &Entry<'_>, now: SystemTime) {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second != now.as_secs() || self.stamp.is_empty() {
            self.second = now.as_secs();
            self.stamp = match self.log.format {
                AccessLog::Combined => apache_time(self.second),
                _ => rfc_3339(self.second),
            };
        }
        let line = &mut self.buffer;
        // Writing to memory does not fail.
        let _ = match self.log.format {
            AccessLog::Combined => combined(line, entry, &self.stamp),
            _ => json(line, entry, &self.stamp, now.subsec_millis()),
        };
        if self.buffer.len() >= BUFFER - 4096 {
            self.flush();
        }
    }

    /// Gives what there is to the writer.
    pub(super) fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(BUFFER));
        if let Err(lost) = self.log.queue.try_send(full) {
            use std::sync::mpsc::TrySendError::{Disconnected, Full};
            let (Full(lost) | Disconnected(lost)) = lost;
            let lines = memchr::memchr_iter(b'\n', &lost).count();
            self.log.dropped.inc_by(lines as u64);
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.flush();
    }
}

fn json(out: &mut Vec<u8>, entry: &Entry<'_>, stamp: &str, millis: u32) -> io::Result<()> {
    let asked = entry.asked;
    write!(out, r#"{{"time":"{stamp}.{millis:03}Z","request_id":""#)?;
    escape(out, entry.id.as_bytes())?;
    out.extend_from_slice(br#"","client":""#);
    escape(out, entry.peer.as_bytes())?;
    write!(
        out,
        r#"","scheme":"{}","method":"{}","host":""#,
        entry.scheme, asked.method
    )?;
    escape(out, host(asked))?;
    out.extend_from_slice(br#"","path":""#);
    escape(out, path(asked).as_bytes())?;
    write!(
        out,
        r#"","protocol":"{:?}","status":{},"bytes":{},"duration_ms":{:.3}"#,
        asked.version,
        entry.status,
        entry.bytes,
        millis_of(entry.took)
    )?;
    if let (Some(service), Some(version)) = (entry.service, entry.version) {
        write!(out, r#","service":"{service}","version":{version}"#)?;
    }
    if let Some(waited) = entry.waited {
        write!(out, r#","cold_start_ms":{:.3}"#, millis_of(waited))?;
    }
    if !entry.reason.is_empty() {
        write!(out, r#","reason":"{}""#, entry.reason)?;
    }
    for (name, value) in [("user_agent", &asked.agent), ("referer", &asked.referer)] {
        if let Some(value) = value {
            write!(out, r#","{name}":""#)?;
            escape(out, value.as_bytes())?;
            out.push(b'"');
        }
    }
    out.extend_from_slice(b"}\n");
    Ok(())
}

fn combined(out: &mut Vec<u8>, entry: &Entry<'_>, stamp: &str) -> io::Result<()> {
    let asked = entry.asked;
    out.extend_from_slice(entry.peer.as_bytes());
    write!(out, " - - [{stamp}] \"{} ", asked.method)?;
    escape(out, path(asked).as_bytes())?;
    write!(
        out,
        " {:?}\" {} {}",
        asked.version, entry.status, entry.bytes
    )?;
    for value in [&asked.referer, &asked.agent] {
        out.extend_from_slice(b" \"");
        escape(out, value.as_ref().map_or(b"-", |value| value.as_bytes()))?;
        out.push(b'"');
    }
    write!(out, " {}", entry.service.unwrap_or("-"))?;
    match entry.version {
        Some(version) => write!(out, " v{version}")?,
        None => out.extend_from_slice(b" -"),
    }
    write!(out, " {:.6}", entry.took.as_secs_f64())?;
    match entry.waited {
        Some(waited) => write!(out, " {:.1}", millis_of(waited))?,
        None => out.extend_from_slice(b" -"),
    }
    let reason = if entry.reason.is_empty() {
        "-"
    } else {
        entry.reason
    };
    writeln!(out, " {reason}")
}

fn host(asked: &Asked) -> &[u8] {
    let authority = asked
        .uri
        .authority()
        .map(|authority| authority.as_str().as_bytes());
    let field = || asked.host.as_ref().map(HeaderValue::as_bytes);
    authority.or_else(field).unwrap_or_default()
}

fn path(asked: &Asked) -> &str {
    asked.uri.path_and_query().map_or("", |path| path.as_str())
}

fn millis_of(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// As JSON escapes, which Apache's format can be read with too. Bytes that are no ASCII are shown as
/// `\u00XX`, so that a line is always UTF-8.
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

/// Year, month and day of a day since 1970, by the algorithm of Howard Hinnant's `civil_from_days`.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

fn rfc_3339(second: u64) -> String {
    let (year, month, day) = date(second / 86_400);
    let (hour, minute, rest) = (second / 3600 % 24, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{rest:02}")
}

fn apache_time(second: u64) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (year, month, day) = date(second / 86_400);
    let month = MONTHS.get(month as usize - 1).unwrap_or(&"Jan");
    let (hour, minute, rest) = (second / 3600 % 24, second / 60 % 60, second % 60);
    format!("{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{rest:02} +0000")
}

#[cfg(test)]
#[path = "access/tests.rs"]
mod tests;
