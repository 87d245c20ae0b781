use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use prost_types::field_descriptor_proto::{Label, Type};

use super::schema::collect;
use super::*;
use crate::v1 as pb;

/// The fields that a request is refused for; empty if it is accepted.
fn refused<M: prost::Name>(message: &M) -> Vec<String> {
    refused_bytes(&M::full_name(), &message.encode_to_vec())
}

fn refused_bytes(name: &str, bytes: &[u8]) -> Vec<String> {
    let Err(status) = check(name, bytes) else {
        return Vec::new();
    };
    assert_eq!(status.code(), Code::InvalidArgument);
    let found = status.get_details_bad_request().expect("a BadRequest");
    found
        .field_violations
        .into_iter()
        .map(|violation| violation.field)
        .collect()
}

fn create(spec: pb::VersionSpec) -> pb::CreateVersionRequest {
    pb::CreateVersionRequest {
        version: Some(pb::Version {
            spec: Some(spec),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn every_repeated_field_of_a_request_has_a_limit() {
    let set = FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET).expect("descriptors");
    let mut messages = Vec::new();
    for file in &set.file {
        for message in &file.message_type {
            collect(file.package(), message, &mut messages);
        }
    }
    let messages: BTreeMap<_, _> = messages.into_iter().collect();
    let inputs = set
        .file
        .iter()
        .flat_map(|file| &file.service)
        .flat_map(|service| &service.method)
        .map(|method| method.input_type().trim_start_matches('.').to_owned());
    let mut open: Vec<String> = inputs.collect();
    assert!(
        open.iter().all(|input| input.ends_with("Request")),
        "{open:?}"
    );
    let (mut seen, mut repeated) = (BTreeSet::new(), BTreeSet::new());
    while let Some(name) = open.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let message = messages[&name];
        assert!(message.field.len() <= FIELDS_MAX, "{name}");
        for field in &message.field {
            if field.label() == Label::Repeated {
                repeated.insert(format!("{name}.{}", field.name()));
            }
            if field.r#type() == Type::Message {
                open.push(field.type_name().trim_start_matches('.').to_owned());
            }
        }
    }
    let listed = LIMITS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(repeated, listed);
}

#[test]
fn counts_are_checked_and_told() {
    let traffic = |targets: usize| pb::UpdateTrafficRequest {
        traffic: Some(pb::Traffic {
            targets: vec![pb::TrafficTarget::default(); targets],
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(refused(&traffic(1000)), Vec::<String>::new());
    assert_eq!(refused(&traffic(1001)), ["traffic.targets"]);
    let status = check(
        "cless.v1.UpdateTrafficRequest",
        &traffic(1234).encode_to_vec(),
    );
    let message = status.expect_err("too many").message().to_owned();
    assert!(
        message.contains("1234 items") && message.contains("1000"),
        "{message}"
    );

    // Merged by a decoder: the counts of the parts would each be small.
    let twice = [traffic(600).encode_to_vec(), traffic(600).encode_to_vec()].concat();
    assert_eq!(
        refused_bytes("cless.v1.UpdateTrafficRequest", &twice),
        ["traffic"]
    );
    // Equal keys: the map would have one entry.
    let service = [50, 0].repeat(65);
    let mut request = vec![18];
    prost::encoding::encode_varint(service.len() as u64, &mut request);
    request.extend(service);
    assert_eq!(
        refused_bytes("cless.v1.CreateServiceRequest", &request),
        ["service.labels"]
    );
}

#[test]
fn nul_is_refused_in_every_text() {
    let mut spec = pb::VersionSpec::default();
    spec.env.insert("A\0".into(), "x".into());
    spec.env.insert("B".into(), "\0".into());
    spec.args = vec!["fine".into(), "a\0b".into()];
    spec.tmpfs.insert("/a\0".into(), 0);
    assert_eq!(
        refused(&create(spec)),
        [
            "version.spec.env[A\\0]",
            "version.spec.env[B]",
            "version.spec.args[1]",
            "version.spec.tmpfs[/a\\0]",
        ]
    );
    let parent = "services/a\0".to_owned();
    let list = pb::ListVersionsRequest {
        parent,
        ..Default::default()
    };
    assert_eq!(refused(&list), ["parent"]);
    // Bytes may hold anything.
    let hello = pb::Hello {
        have: Some(pb::Cursor {
            digest: vec![0; 32].into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let stream = pb::StreamRoutesRequest {
        message: Some(pb::stream_routes_request::Message::Hello(hello)),
    };
    assert_eq!(refused(&stream), Vec::<String>::new());
}

#[test]
fn text_that_is_not_utf8_and_malformed_bytes_are_refused() {
    let name = "cless.v1.GetServiceRequest";
    assert_eq!(refused_bytes(name, &[10, 2, 0xc3, 0x28]), ["name"]);
    for malformed in [&[10, 5, b'a'][..], &[8], &[0], &[11], &[0xff; 11], &[8, 1]] {
        assert!(!refused_bytes(name, malformed).is_empty(), "{malformed:?}");
    }
    // An unknown field is skipped.
    assert_eq!(refused_bytes(name, &[0xf8, 0x07, 1]), Vec::<String>::new());
}

#[test]
fn durations_and_timestamps_follow_their_rules() {
    let verify = |seconds, nanos| pb::VerifyVersionRequest {
        timeout: Some(prost_types::Duration { seconds, nanos }),
        ..Default::default()
    };
    for (seconds, nanos) in [
        (1, -5),
        (-1, 5),
        (0, 1_000_000_000),
        (0, i32::MIN),
        (315_576_000_001, 0),
        (i64::MIN, 0),
    ] {
        assert_eq!(
            refused(&verify(seconds, nanos)),
            ["timeout"],
            "{seconds} {nanos}"
        );
    }
    for (seconds, nanos) in [
        (0, 0),
        (0, -999_999_999),
        (-1, -1),
        (315_576_000_000, 999_999_999),
    ] {
        assert!(
            refused(&verify(seconds, nanos)).is_empty(),
            "{seconds} {nanos}"
        );
    }
    let report = |seconds, nanos| pb::ReportNodeStatusRequest {
        versions: vec![pb::VersionReport {
            backoff_until: Some(prost_types::Timestamp { seconds, nanos }),
            ..Default::default()
        }],
        ..Default::default()
    };
    for (seconds, nanos) in [
        (0, -1),
        (0, 1_000_000_000),
        (253_402_300_800, 0),
        (i64::MIN, 0),
    ] {
        assert_eq!(
            refused(&report(seconds, nanos)),
            ["versions[0].backoff_until"]
        );
    }
    assert!(refused(&report(-62_135_596_800, 999_999_999)).is_empty());
}

#[test]
fn at_most_twenty_violations_are_told_and_the_rest_counted() {
    let spec = pb::VersionSpec {
        args: vec!["\0".into(); 50],
        ..Default::default()
    };
    let status = check(
        "cless.v1.CreateVersionRequest",
        &create(spec).encode_to_vec(),
    );
    let status = status.expect_err("NUL");
    let told = status.get_details_bad_request().expect("a BadRequest");
    assert_eq!(told.field_violations.len(), VIOLATIONS_MAX);
    assert!(
        status.message().ends_with("; and 30 more"),
        "{}",
        status.message()
    );
}

#[test]
fn the_worst_status_fits_into_trailers() {
    let (field, reason) = ("ä".repeat(5000), "\u{10ffff}".repeat(5000));
    let status = invalid_argument((0..10_000).map(|_| (&*field, &*reason)), 7);
    let encoded = status.details().len().div_ceil(3) * 4 + status.message().len() * 3;
    assert!(
        status.details().len() < 6 * 1024,
        "{}",
        status.details().len()
    );
    assert!(encoded < 12 * 1024, "{encoded}");
    assert!(status.message().ends_with(" more"));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for name in SCHEMA.by_name.keys() {
            let _ = check(name, &bytes);
        }
    }

    /// The decoder takes every message that passes the check.
    #[test]
    fn accepted_bytes_decode(bytes in proptest::collection::vec(prop_oneof![0u8..64, any::<u8>()], 0..60)) {
        if check("cless.v1.UpdateTrafficRequest", &bytes).is_ok() {
            prop_assert!(pb::UpdateTrafficRequest::decode(&*bytes).is_ok());
        }
        if check("cless.v1.ReportNodeStatusRequest", &bytes).is_ok() {
            prop_assert!(pb::ReportNodeStatusRequest::decode(&*bytes).is_ok());
        }
    }

    #[test]
    fn a_text_is_refused_if_it_holds_nul(text in "[a-c\0]{0,12}") {
        let request = pb::GetServiceRequest { name: text.clone() };
        prop_assert_eq!(!refused(&request).is_empty(), text.contains('\0'));
    }
}

/// The check costs little beside the decoding: measured, and bounded far above the measurement.
#[test]
#[expect(clippy::print_stdout, reason = "a measurement, shown with --nocapture")]
fn the_check_is_cheap() {
    let mut spec = pb::VersionSpec::default();
    for n in 0..100 {
        spec.env
            .insert(format!("VARIABLE_{n}"), "some value of usual length".into());
    }
    let bytes = create(spec).encode_to_vec();
    let time = |work: &dyn Fn()| {
        let begun = Instant::now();
        (0..200).for_each(|_| work());
        begun.elapsed() / 200
    };
    let checked = time(&|| check("cless.v1.CreateVersionRequest", &bytes).expect("valid"));
    let decoded = time(&|| {
        pb::CreateVersionRequest::decode(&*bytes).expect("valid");
    });
    println!(
        "{} bytes: check {checked:?}, decode {decoded:?}",
        bytes.len()
    );
    assert!(
        checked < Duration::from_millis(5) && checked < decoded * 4,
        "{checked:?}"
    );
}
