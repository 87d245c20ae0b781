//! An open loop over HTTP/1.1: requests are due at fixed times.
//!
//! A request that is due while every connection is busy waits for one, and its latency counts from
//! the time it was due. Otherwise a stalled proxy would get fewer requests and hide its stall
//! (coordinated omission).

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::{Run, Target};

/// Interval of the check for due requests. The one-millisecond timer of a runtime would be visible
/// in the results, so the loop uses a kernel timer.
const TICK: Duration = Duration::from_micros(50);
/// Upper limit of a latency, queuing included.
const LIMIT: Duration = Duration::from_secs(10);
/// Event data of the timer; the data of a connection is its index.
const TIMER: u64 = u64::MAX;

/// Sends `rate` requests per second over at most `connections` concurrent connections.
pub async fn run(target: Target<'_>, connections: usize, rate: f64, seconds: u64) -> Result<Run> {
    let (path, host, address) = (target.path, target.host, target.address);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
    let looped = move || {
        let clients = (0..connections)
            .map(|_| Client::connect(address))
            .collect::<Result<Vec<_>>>()?;
        Loop::new(clients, request)?.run(rate, Duration::from_secs(seconds))
    };
    tokio::task::spawn_blocking(looped).await?
}

struct Client {
    stream: TcpStream,
    /// Received bytes of a response whose head is incomplete.
    head: Vec<u8>,
    /// Missing bytes of the body; `None` while the head is incomplete.
    left: Option<usize>,
    /// Due time of the request in flight; `None` while idle.
    due: Option<Instant>,
}

impl Client {
    fn connect(address: std::net::SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            head: Vec::new(),
            left: None,
            due: None,
        })
    }

    /// Reads available bytes; returns the due time of the request when its response is complete.
    fn read(&mut self, block: &mut [u8]) -> Result<Option<Instant>> {
        loop {
            let read = match self.stream.read(block) {
                Ok(0) => bail!("the connection was closed"),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            };
            self.left = match self.left {
                Some(left) => Some(
                    left.checked_sub(read)
                        .context("the body is longer than its content-length")?,
                ),
                None => {
                    self.head.extend_from_slice(&block[..read]);
                    let length = response_length(&self.head)?;
                    length.map(|length| length.saturating_sub(self.head.len()))
                }
            };
        }
        if self.left != Some(0) {
            return Ok(None);
        }
        self.left = None;
        self.head.clear();
        Ok(Some(
            self.due.take().context("a response without a request")?,
        ))
    }
}

struct Loop {
    epoll: Epoll,
    timer: TimerFd,
    clients: Vec<Client>,
    idle: VecDeque<usize>,
    /// Due times of requests that wait for a connection.
    queue: VecDeque<Instant>,
    request: Vec<u8>,
}

impl Loop {
    fn new(clients: Vec<Client>, request: Vec<u8>) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
        timer.set(
            Expiration::Interval(TimeSpec::from_duration(TICK)),
            TimerSetTimeFlags::empty(),
        )?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
        for (at, client) in clients.iter().enumerate() {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, at as u64);
            epoll.add(&client.stream, event)?;
        }
        Ok(Self {
            epoll,
            timer,
            idle: (0..clients.len()).collect(),
            queue: VecDeque::new(),
            clients,
            request,
        })
    }

    fn run(mut self, rate: f64, length: Duration) -> Result<Run> {
        let total = (length.as_secs_f64() * rate) as usize;
        let (mut added, mut latencies) = (0, Vec::with_capacity(total));
        let mut events = vec![EpollEvent::empty(); 512];
        let mut block = vec![0; 128 * 1024];
        let began = Instant::now();
        while latencies.len() < total {
            ensure!(began.elapsed() < length + LIMIT, "responses are missing");
            let ready = self.epoll.wait(&mut events, EpollTimeout::NONE)?;
            for event in &events[..ready] {
                if event.data() == TIMER {
                    self.timer.wait()?;
                    continue;
                }
                let at = event.data() as usize;
                if let Some(due) = self.clients[at].read(&mut block)? {
                    latencies.push(due.elapsed());
                    self.idle.push_back(at);
                }
            }
            let passed = (began.elapsed().as_secs_f64() * rate) as usize;
            while added < passed.min(total) {
                let after = Duration::from_secs_f64(added as f64 / rate);
                self.queue.push_back(began + after);
                added += 1;
            }
            self.send_due()?;
        }
        Ok(Run::of(&latencies, began.elapsed()))
    }

    fn send_due(&mut self) -> Result<()> {
        while let (Some(&at), Some(&due)) = (self.idle.front(), self.queue.front()) {
            let client = &mut self.clients[at];
            // The request fits into the empty send buffer.
            client.stream.write_all(&self.request)?;
            client.due = Some(due);
            self.idle.pop_front();
            self.queue.pop_front();
        }
        Ok(())
    }
}

/// Total length of the response that begins with `start`; `None` while its head is incomplete.
fn response_length(start: &[u8]) -> Result<Option<usize>> {
    let Some(head) = start.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&start[..head])?;
    ensure!(
        text.starts_with("HTTP/1.1 200 "),
        "unexpected response: {text}"
    );
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().ok())?
    });
    Ok(Some(
        head + 4 + length.context("a response without content-length")?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_response_comes_from_its_head() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(response_length(&head[..20]).unwrap(), None);
        assert_eq!(response_length(head).unwrap(), Some(head.len() + 3));
        assert!(response_length(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").is_err());
    }
}
