//! The cost of hostile requests: every request message of the API, with each of its fields as large
//! or as often as a request can hold. Memory and time are at most a constant and a small multiple of
//! the bytes sent, and the memory is given back.
//!
//! One test in a process of its own, because it measures the process.

use bytes::{Buf, BufMut};
use cless_control_plane::{Options, start};
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorSet};
use std::collections::BTreeMap;
use std::time::Duration;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream::StreamExt as _;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// Size of each hostile field.
const BYTES: usize = 1 << 18;
/// Memory of a call beyond its bytes: buffers of both sides, which run in this process.
const FIXED: usize = 16 << 20;
/// Memory of a call for each byte, both sides together.
const PER_BYTE: usize = 8;
/// Processor time of a call without optimisation, both sides together.
const CPU: Duration = Duration::from_millis(1500);

/// Sends bytes as they are and ignores responses.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        buffer.advance(buffer.remaining());
        Ok(Some(()))
    }
}

/// Sends one message; the status of the call, or of its first response.
async fn send(channel: &Channel, method: &str, body: Vec<u8>) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.expect("a connection");
    let path = PathAndQuery::try_from(method).expect("a path");
    let messages = tonic::codegen::tokio_stream::once(body);
    let responses = client.streaming(Request::new(messages), path, Raw).await?;
    match responses.into_inner().next().await {
        Some(Err(status)) => Err(status),
        Some(Ok(())) | None => Ok(()),
    }
}

fn key(number: i32, wire: u64, into: &mut Vec<u8>) {
    let number = u64::try_from(number).expect("positive");
    prost::encoding::encode_varint(number << 3 | wire, into);
}

fn sized(number: i32, inner: &[u8], into: &mut Vec<u8>) {
    key(number, 2, into);
    prost::encoding::encode_varint(inner.len() as u64, into);
    into.extend_from_slice(inner);
}

/// `inner` in the messages at `path`.
fn nested(path: &[i32], inner: Vec<u8>) -> Vec<u8> {
    path.iter().rev().fold(inner, |inner, &number| {
        let mut outer = Vec::with_capacity(inner.len() + 16);
        sized(number, &inner, &mut outer);
        outer
    })
}

/// The messages of the API, by full name.
fn messages(set: &FileDescriptorSet) -> BTreeMap<String, DescriptorProto> {
    fn add(prefix: &str, message: &DescriptorProto, all: &mut BTreeMap<String, DescriptorProto>) {
        let name = format!("{prefix}.{}", message.name());
        for inner in &message.nested_type {
            add(&name, inner, all);
        }
        all.insert(name, message.clone());
    }
    let mut all = BTreeMap::new();
    for file in &set.file {
        for message in &file.message_type {
            add(&format!(".{}", file.package()), message, &mut all);
        }
    }
    all
}

/// Hostile encodings of a message, each with the path of its large field.
fn hostile(
    all: &BTreeMap<String, DescriptorProto>,
    name: &str,
    path: &[i32],
    shown: &str,
    into: &mut Vec<(String, Vec<u8>)>,
) {
    let Some(message) = all.get(name) else { return };
    for field in &message.field {
        let shown = format!("{shown}.{}", field.name());
        let mut body = Vec::with_capacity(BYTES + 64);
        match field.r#type() {
            Type::Message => {
                let map = all[field.type_name()]
                    .options
                    .as_ref()
                    .is_some_and(|options| options.map_entry());
                let mut at = 0_u32;
                while body.len() < BYTES {
                    let mut entry = Vec::new();
                    if map {
                        at += 1;
                        sized(1, format!("{at:x}").as_bytes(), &mut entry);
                    }
                    sized(field.number(), &entry, &mut body);
                }
                if path.len() < 5 && !map {
                    let path = [path, &[field.number()]].concat();
                    hostile(all, field.type_name(), &path, &shown, into);
                }
            }
            Type::String | Type::Bytes => {
                if field.label() == Label::Repeated {
                    while body.len() < BYTES {
                        sized(field.number(), b"", &mut body);
                    }
                    into.push((format!("{shown}[]"), nested(path, body)));
                    body = Vec::with_capacity(BYTES + 64);
                }
                sized(field.number(), &vec![b'a'; BYTES], &mut body);
            }
            _ => continue,
        }
        into.push((shown, nested(path, body)));
    }
}

fn status_kib(name: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split_whitespace().nth(1));
    value.and_then(|value| value.parse().ok()).expect("a size")
}

fn resident() -> usize {
    status_kib("VmRSS:") * 1024
}

/// The highest resident size since the last call of `reset_peak`.
fn peak() -> usize {
    status_kib("VmHWM:") * 1024
}

fn reset_peak() {
    std::fs::write("/proc/self/clear_refs", "5").expect("its own process");
}

/// Processor time of this process.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let after = text.rsplit(')').next().expect("a name");
    let mut fields = after.split_whitespace().skip(11);
    let mut ticks = || fields.next().and_then(|field| field.parse::<u64>().ok());
    let both = ticks().expect("user") + ticks().expect("system");
    Duration::from_millis(both * 10)
}

#[expect(clippy::print_stdout, reason = "a measurement, shown with --nocapture")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_request_costs_little_and_gives_its_memory_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options {
        listen: ([127, 0, 0, 1], 0).into(),
        database_url: format!(
            "sqlite://{}?mode=rwc",
            folder.path().join("cless.db").display()
        ),
        insecure: true,
        ..Options::default()
    };
    let running = start(options).await.expect("it starts");
    let channel = Endpoint::from_shared(format!("http://{}", running.addr()))
        .expect("an address")
        .connect()
        .await
        .expect("it listens");
    let set = FileDescriptorSet::decode(cless_proto::FILE_DESCRIPTOR_SET).expect("descriptors");
    let all = messages(&set);

    // Two million targets of two bytes each, the largest message that the server takes.
    let mut targets = Vec::new();
    let name = b"services/hello/traffic";
    sized(1, name, &mut targets);
    for _ in 0..2_000_000 {
        sized(2, b"", &mut targets);
    }
    let body = nested(&[1], targets);
    let before = (resident(), cpu());
    reset_peak();
    let calls = (0..6).map(|_| {
        send(
            &channel,
            "/cless.v1.TrafficService/UpdateTraffic",
            body.clone(),
        )
    });
    let results = futures_util::future::join_all(calls).await;
    let peak_of_six = peak().saturating_sub(before.0);
    let cpu_of_six = cpu() - before.1;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let kept = resident().saturating_sub(before.0);
    println!(
        "2 000 000 empty targets, 6 calls: peak {} MiB, CPU {cpu_of_six:?}, kept {} MiB; {:?}",
        peak_of_six >> 20,
        kept >> 20,
        results[0].as_ref().map_err(Status::code),
    );
    for result in results {
        let status = result.expect_err("far too many");
        // On a busy machine an unoptimised check may exceed the deadline of a call.
        let refused = [Code::InvalidArgument, Code::DeadlineExceeded];
        assert!(refused.contains(&status.code()), "{status:?}");
    }
    assert!(peak_of_six < 6 * body.len() * PER_BYTE, "{peak_of_six}");
    // The allocator keeps what both sides of a connection needed; 1856 MiB before.
    assert!(kept < 4 * FIXED + 6 * body.len(), "{kept}");
    assert!(cpu_of_six < 6 * CPU, "{cpu_of_six:?}");

    let mut worst = (0, Duration::ZERO);
    let mut calls = 0;
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                let mut bodies = Vec::new();
                hostile(&all, method.input_type(), &[], method.name(), &mut bodies);
                for (shown, body) in bodies {
                    let sent = body.len();
                    let before = (resident(), cpu());
                    reset_peak();
                    let result = send(&channel, &path, body).await;
                    let more = peak().saturating_sub(before.0);
                    let took = cpu() - before.1;
                    assert!(more < FIXED + PER_BYTE * sent, "{shown}: {more} bytes");
                    assert!(took < CPU, "{shown}: {took:?}");
                    let status = result.expect_err(&shown);
                    // A method without a handler reads nothing.
                    let refused = [Code::InvalidArgument, Code::Unimplemented];
                    assert!(refused.contains(&status.code()), "{shown}: {status:?}");
                    assert!(status.details().len() < 8 << 10, "{shown}");
                    assert!(status.message().len() < 4 << 10, "{shown}");
                    worst = (worst.0.max(more), worst.1.max(took));
                    calls += 1;
                }
            }
        }
    }
    println!(
        "{calls} calls of 256 KiB: at most {} KiB and {:?} each",
        worst.0 >> 10,
        worst.1
    );
    let kept = resident().saturating_sub(before.0);
    assert!(kept < 4 * FIXED, "{kept} bytes are kept");
    drop(channel);
    running.shutdown().await;
}
