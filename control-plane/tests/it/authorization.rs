//! Authorization over real sockets: each method with each role, scopes, malformed tokens, and
//! revocation.

use crate::calls::Call;
use crate::database;
use crate::feed_client::hello;
use crate::harness::{
    Harness, SOON, assert_refused, eventually, fields, new_service, new_version, set_traffic,
    target, trusted_options,
};
use bytes::{Buf as _, BufMut as _};
use cless_proto::v1 as pb;
use prost::Message as _;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

/// The weakest caller that each method serves. Written anew here, so that no change of the table in
/// the program goes unnoticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Least {
    Anybody,
    Viewer,
    Deployer,
    Admin,
    Node,
}

fn expected() -> BTreeMap<String, Least> {
    let rows = [
        (
            Least::Viewer,
            "CatalogService GetService ListServices GetVersion ListVersions",
        ),
        (
            Least::Deployer,
            "CatalogService CreateService UpdateService DeleteService CreateVersion VerifyVersion \
             CancelVerification ResetVersionImage DeleteVersion",
        ),
        (
            Least::Viewer,
            "TrafficService GetTraffic ListTrafficRevisions",
        ),
        (
            Least::Deployer,
            "TrafficService UpdateTraffic RollbackTraffic",
        ),
        (
            Least::Viewer,
            "NodeService ListNodes GetNode ListInstances CheckPropagation",
        ),
        (
            Least::Admin,
            "NodeService CreateJoinToken DrainNode UndrainNode RemoveNode",
        ),
        (Least::Viewer, "TokenService GetCurrentToken"),
        (
            Least::Admin,
            "TokenService CreateToken ListTokens RevokeToken",
        ),
        (
            Least::Admin,
            "AuditService ListAuditEntries WatchAuditEntries",
        ),
        (
            Least::Anybody,
            "EnrollmentService EnrollNode RenewCertificate",
        ),
        (
            Least::Viewer,
            "RouteFeedService WatchRoutes ListRetainedImages",
        ),
        (
            Least::Node,
            "RouteFeedService StreamRoutes StreamControl ReportNodeStatus",
        ),
    ];
    let mut found = BTreeMap::new();
    for (least, row) in rows {
        let mut words = row.split_whitespace();
        let service = words.next().expect("a service");
        found.extend(words.map(|method| (format!("/cless.v1.{service}/{method}"), least)));
    }
    found
}

/// The paths of all methods of the API.
fn methods() -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(cless_proto::FILE_DESCRIPTOR_SET);
    let mut found = Vec::new();
    for file in set.expect("descriptors").file {
        for service in &file.service {
            let of = format!("/{}.{}", file.package(), service.name());
            found.extend(
                service
                    .method
                    .iter()
                    .map(|method| format!("{of}/{}", method.name())),
            );
        }
    }
    found
}

/// Messages as bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
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
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

/// Calls a method with a message and these values of `authorization`; the code and the reason of
/// the answer. A stream counts as answered after a while.
async fn call(
    harness: &Harness,
    method: &str,
    message: Vec<u8>,
    authorization: &[&str],
) -> (Code, String) {
    let mut client = Grpc::new(harness.channel.clone());
    client.ready().await.expect("connected");
    let mut request = Request::new(tokio_stream::once(message));
    for value in authorization {
        let value = value.parse().expect("ASCII");
        request.metadata_mut().append("authorization", value);
    }
    let path = method.parse().expect("a path");
    let answer = async {
        let response = client.streaming(request, path, Raw).await?;
        response.into_inner().message().await
    };
    match tokio::time::timeout(Duration::from_millis(500), answer).await {
        Ok(Err(status)) => {
            let info = status.get_details_error_info();
            (
                status.code(),
                info.map(|info| info.reason).unwrap_or_default(),
            )
        }
        Ok(Ok(_)) | Err(_) => (Code::Ok, String::new()),
    }
}

/// A new token: its secret and its name.
async fn token(harness: &Harness, role: pb::token::Role, scope: &[&str]) -> (String, String) {
    let services: Vec<_> = scope.iter().map(|&pattern| pattern.to_owned()).collect();
    let scope = (!services.is_empty()).then(|| pb::token::Scope {
        services,
        hosts: vec!["*.team.example".into()],
    });
    let token = pb::Token {
        role: role.into(),
        scope,
        ..Default::default()
    };
    let request = pb::CreateTokenRequest {
        token: Some(token),
        ..Default::default()
    };
    let created = harness.ok(request).await;
    (created.secret, created.token.expect("a token").name)
}

async fn call_as<R: Call>(
    harness: &Harness,
    token: &str,
    request: R,
) -> Result<R::Response, Status> {
    request.send_as(harness.channel.clone(), Some(token)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_serves_exactly_its_roles() {
    let harness = Harness::trusted().await;
    let mut callers: Vec<(Least, Vec<String>)> = vec![(Least::Anybody, Vec::new())];
    for (least, role) in [
        (Least::Viewer, pb::token::Role::Viewer),
        (Least::Deployer, pb::token::Role::Deployer),
        (Least::Admin, pb::token::Role::Admin),
    ] {
        let (secret, _) = token(&harness, role, &[]).await;
        callers.push((least, vec![format!("Bearer {secret}")]));
    }
    let expected = expected();
    for method in methods() {
        let least = expected.get(&method);
        let least = *least.unwrap_or_else(|| panic!("{method} has no row in this test"));
        for (caller, authorization) in &callers {
            let authorization: Vec<_> = authorization.iter().map(String::as_str).collect();
            let (code, reason) = call(&harness, &method, Vec::new(), &authorization).await;
            let row = format!("{method} by {caller:?}: {code:?} {reason}");
            let refused = match code {
                Code::Unauthenticated | Code::PermissionDenied => Some(reason.as_str()),
                _ => None,
            };
            let wanted = match (least, *caller) {
                (Least::Anybody, Least::Anybody) => {
                    // The content of the call is the credential.
                    assert_ne!(refused, Some("CREDENTIAL_MISSING"), "{row}");
                    continue;
                }
                (Least::Anybody, _) => continue,
                (_, Least::Anybody) => Some("CREDENTIAL_MISSING"),
                (Least::Node, _) => Some("NODE_REQUIRED"),
                (least, caller) if caller < least => Some("ROLE_MISSING"),
                _ => None,
            };
            assert_eq!(refused, wanted, "{row}");
        }
    }
    assert_eq!(
        expected.len(),
        methods().len(),
        "rows of methods that are gone"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_are_open_and_unknown_methods_closed() {
    let harness = Harness::trusted().await;
    let (code, _) = call(&harness, "/grpc.health.v1.Health/Check", Vec::new(), &[]).await;
    assert_eq!(code, Code::Ok);
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let (code, _) = call(&harness, reflection, Vec::new(), &[]).await;
    assert!(
        !matches!(code, Code::Unauthenticated | Code::PermissionDenied),
        "{code:?}"
    );
    for unknown in [
        "/cless.v1.CatalogService/getService",
        "/cless.v1.CatalogService/GetService/",
        "/cless.v1.CatalogService/Nothing",
        "/cless.v2.CatalogService/GetService",
    ] {
        let admin = format!("Bearer {}", harness.token.as_deref().expect("a token"));
        let (code, reason) = call(&harness, unknown, Vec::new(), &[&admin]).await;
        assert_eq!(
            (code, reason.as_str()),
            (Code::Unimplemented, "METHOD_UNKNOWN"),
            "{unknown}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_and_forged_tokens_are_refused_and_then_limited() {
    let harness = Harness::trusted().await;
    let admin = harness.token.clone().expect("a token");
    let method = "/cless.v1.CatalogService/ListServices";
    let (id, secret) = admin.rsplit_once('_').expect("a secret");
    let other = format!("{id}_{}", secret.chars().rev().collect::<String>());
    let unknown = admin.replacen(id, "cless_aaaaaaaaaaaa", 1);
    let good = format!("Bearer {admin}");
    let rows: &[(&[&str], &str)] = &[
        (&[""], "TOKEN_MALFORMED"),
        (&["Bearer"], "TOKEN_MALFORMED"),
        (&["Bearer "], "TOKEN_MALFORMED"),
        (&[&admin], "TOKEN_MALFORMED"),
        (&[&format!("Basic {admin}")], "TOKEN_MALFORMED"),
        (&[&format!("Bearer  {admin}")], "TOKEN_MALFORMED"),
        (
            &[&format!("Bearer {}", admin.to_uppercase())],
            "TOKEN_MALFORMED",
        ),
        (
            &[&format!("Bearer {}", &admin[..admin.len() - 1])],
            "TOKEN_MALFORMED",
        ),
        (&[&format!("Bearer {admin}0")], "TOKEN_MALFORMED"),
        (
            &[&format!("Bearer {}", "a".repeat(4000))],
            "TOKEN_MALFORMED",
        ),
        (&[&good, &good], "TOKEN_MALFORMED"),
        (&[&format!("Bearer {other}")], "TOKEN_UNKNOWN"),
        (&[&format!("Bearer {unknown}")], "TOKEN_UNKNOWN"),
    ];
    for (authorization, expected) in rows {
        let (code, reason) = call(&harness, method, Vec::new(), authorization).await;
        let known = [Code::Unauthenticated].contains(&code);
        // The secret of `other` may exceed 32 bytes.
        let reason = if *expected == "TOKEN_UNKNOWN" && reason == "TOKEN_MALFORMED" {
            "TOKEN_UNKNOWN"
        } else {
            &reason
        };
        assert!(
            known && reason == *expected,
            "{authorization:?}: {code:?} {reason}"
        );
    }
    let mut limited = 0;
    for _ in 0..30 {
        let (code, reason) = call(&harness, method, Vec::new(), &["Bearer x"]).await;
        limited += usize::from(code == Code::ResourceExhausted && reason == "TOO_MANY_ATTEMPTS");
    }
    assert!(limited > 10, "{limited}");
    let (code, _) = call(&harness, method, Vec::new(), &[&good]).await;
    assert_eq!(code, Code::Ok, "a valid token is not limited");
}

/// A call about a service for each method that names one.
macro_rules! outside {
    ($harness:expr, $token:expr, $($request:expr),* $(,)?) => {$(
        let status = call_as($harness, $token, $request).await.err();
        let status = status.unwrap_or_else(|| panic!("accepted: {}", stringify!($request)));
        let info = status.get_details_error_info().expect("an ErrorInfo");
        assert_eq!(
            (status.code(), info.reason.as_str()),
            (Code::PermissionDenied, "OUT_OF_SCOPE"),
            "{}: {status:?}",
            stringify!($request)
        );
    )*};
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_hides_other_services_whether_they_exist_or_not() {
    let harness = Harness::trusted().await;
    harness.service("other").await;
    harness.version("other", "hello:1").await;
    let (deployer, _) = token(&harness, pb::token::Role::Deployer, &["team-*"]).await;
    for service in ["other", "missing"] {
        let name = format!("services/{service}");
        let version = format!("{name}/versions/1");
        let traffic = format!("{name}/traffic");
        let named = pb::Service {
            name: name.clone(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            ..Default::default()
        };
        outside!(
            &harness,
            &deployer,
            new_service(service, pb::Service::default()),
            pb::GetServiceRequest { name: name.clone() },
            pb::UpdateServiceRequest {
                service: Some(named.clone()),
                ..Default::default()
            },
            pb::DeleteServiceRequest {
                name: name.clone(),
                ..Default::default()
            },
            new_version(service, "hello:1"),
            pb::GetVersionRequest {
                name: version.clone()
            },
            pb::ListVersionsRequest {
                parent: name.clone(),
                ..Default::default()
            },
            pb::VerifyVersionRequest {
                name: version.clone(),
                ..Default::default()
            },
            pb::CancelVerificationRequest {
                name: version.clone(),
                ..Default::default()
            },
            pb::ResetVersionImageRequest {
                name: version.clone(),
                ..Default::default()
            },
            pb::DeleteVersionRequest {
                name: version.clone(),
                ..Default::default()
            },
            pb::GetTrafficRequest {
                name: traffic.clone()
            },
            set_traffic(service, vec![target(1, 100, "")]),
            pb::ListTrafficRevisionsRequest {
                parent: traffic.clone(),
                ..Default::default()
            },
            pb::RollbackTrafficRequest {
                name: traffic.clone(),
                ..Default::default()
            },
            pb::ListInstancesRequest {
                parent: "nodes/-".into(),
                service: name.clone(),
                ..Default::default()
            },
            pb::WatchRoutesRequest {
                service: name.clone()
            },
        );
    }
    outside!(
        &harness,
        &deployer,
        pb::ListRetainedImagesRequest::default()
    );
    // Inside, the same token works, and sees nothing else.
    let created = call_as(
        &harness,
        &deployer,
        new_service("team-a", pb::Service::default()),
    );
    assert_eq!(created.await.expect("created").name, "services/team-a");
    let all = call_as(&harness, &deployer, pb::ListServicesRequest::default());
    let names: Vec<_> = all
        .await
        .expect("listed")
        .services
        .into_iter()
        .map(|one| one.name)
        .collect();
    assert_eq!(names, ["services/team-a"]);
    harness.published().await;
    let watch = call_as(&harness, &deployer, pb::WatchRoutesRequest::default());
    let table = watch
        .await
        .expect("a stream")
        .message()
        .await
        .expect("open")
        .expect("a table");
    let routes: Vec<_> = table
        .routes
        .into_iter()
        .map(|route| route.service)
        .collect();
    assert_eq!(routes, ["team-a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_limits_hosts_and_hides_their_owner() {
    let harness = Harness::trusted().await;
    let with_host = |host: &str| pb::Service {
        hosts: vec![host.to_owned()],
        ..Default::default()
    };
    harness
        .ok(new_service("other", with_host("shop.team.example")))
        .await;
    let (deployer, name) = token(&harness, pb::token::Role::Deployer, &["team-*"]).await;
    let refused = call_as(
        &harness,
        &deployer,
        new_service("team-a", with_host("shop.example")),
    )
    .await;
    let status = assert_refused(refused, Code::PermissionDenied, "OUT_OF_SCOPE");
    assert!(status.message().contains(&name) && status.message().contains("shop.example"));
    let taken = new_service("team-a", with_host("shop.team.example"));
    let status = assert_refused(
        call_as(&harness, &deployer, taken).await,
        Code::AlreadyExists,
        "HOST_TAKEN",
    );
    assert!(
        !format!("{status:?}").contains("services/other"),
        "{status:?}"
    );
    let permitted = new_service("team-a", with_host("a.team.example"));
    call_as(&harness, &deployer, permitted)
        .await
        .expect("created");
    // A host that the service holds already may stay, whoever gave it.
    let update = |hosts: &[&str]| pb::UpdateServiceRequest {
        service: Some(pb::Service {
            name: "services/team-a".into(),
            hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
            ..Default::default()
        }),
        ..Default::default()
    };
    harness.ok(update(&["given.example"])).await;
    let kept = call_as(
        &harness,
        &deployer,
        update(&["given.example", "b.team.example"]),
    );
    kept.await.expect("kept");
    let status = call_as(&harness, &deployer, update(&["more.example"])).await;
    assert_refused(status, Code::PermissionDenied, "OUT_OF_SCOPE");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_listed_without_secrets_and_the_last_administrator_stays() {
    let harness = Harness::trusted().await;
    let (secret, name) = token(&harness, pb::token::Role::Viewer, &["web"]).await;
    let own = call_as(&harness, &secret, pb::GetCurrentTokenRequest {})
        .await
        .expect("its token");
    assert_eq!(own.name, name);
    assert_eq!(own.scope.expect("a scope").services, ["web"]);
    assert!(own.creator.starts_with("tokens/"), "{}", own.creator);
    let listed = harness.ok(pb::ListTokensRequest::default()).await.tokens;
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[0].name, name, "the newest first");
    let part = secret.rsplit('_').next().expect("a secret");
    assert!(!format!("{listed:?}").contains(part));
    let revoke = |name: &str| pb::RevokeTokenRequest {
        name: name.to_owned(),
        ..Default::default()
    };
    let last = harness.call(revoke(&listed[1].name)).await;
    assert_refused(last, Code::FailedPrecondition, "LAST_ADMIN");
    let dry = pb::RevokeTokenRequest {
        validate_only: true,
        ..revoke(&name)
    };
    harness.ok(dry).await;
    call_as(&harness, &secret, pb::GetCurrentTokenRequest {})
        .await
        .expect("still valid");
    assert!(harness.ok(revoke(&name)).await.revoke_time.is_some());
    harness.ok(revoke(&name)).await;
    let listed = harness.ok(pb::ListTokensRequest::default()).await.tokens;
    assert_eq!(listed.len(), 1);
    let all = pb::ListTokensRequest {
        show_inactive: true,
        page_size: 1,
        ..Default::default()
    };
    let page = harness.ok(all.clone()).await;
    assert_eq!(page.tokens.len(), 1);
    let next = pb::ListTokensRequest {
        page_token: page.next_page_token,
        ..all
    };
    let last = harness.ok(next).await;
    assert_ne!(last.tokens[0].name, page.tokens[0].name);
    assert!(last.next_page_token.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_creation_returns_no_secret_and_request_ids_belong_to_their_principal() {
    let harness = Harness::trusted().await;
    let request_id = "6f1e6a5e-6c8b-4f0a-9a1c-2f1d3c4b5a69";
    let request = pb::CreateTokenRequest {
        token: Some(pb::Token {
            role: pb::token::Role::Deployer.into(),
            ..Default::default()
        }),
        request_id: request_id.into(),
        ..Default::default()
    };
    let first = harness.ok(request.clone()).await;
    let again = harness.ok(request).await;
    assert_eq!(first.token, again.token);
    assert!(!first.secret.is_empty() && again.secret.is_empty());
    let create = |id: &str| pb::CreateServiceRequest {
        request_id: request_id.into(),
        ..new_service(id, pb::Service::default())
    };
    let own = call_as(&harness, &first.secret, create("a")).await;
    assert_eq!(own.expect("its own request id").name, "services/a");
    let reused = call_as(&harness, &first.secret, create("b")).await;
    assert_refused(reused, Code::InvalidArgument, "REQUEST_ID_REUSED");
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_tokens_to_create_name_the_field() {
    let harness = Harness::trusted().await;
    let scope = |services: &[&str], hosts: &[&str]| pb::token::Scope {
        services: services.iter().map(|&one| one.to_owned()).collect(),
        hosts: hosts.iter().map(|&one| one.to_owned()).collect(),
    };
    let viewer = pb::Token {
        role: pb::token::Role::Viewer.into(),
        ..Default::default()
    };
    let rows = [
        (None, "token"),
        (Some(pb::Token::default()), "token.role"),
        (
            Some(pb::Token {
                role: 9,
                ..viewer.clone()
            }),
            "token.role",
        ),
        (
            Some(pb::Token {
                description: "x".repeat(201),
                ..viewer.clone()
            }),
            "token.description",
        ),
        (
            Some(pb::Token {
                scope: Some(scope(&[], &[])),
                ..viewer.clone()
            }),
            "token.scope.services",
        ),
        (
            Some(pb::Token {
                scope: Some(scope(&["A"], &[])),
                ..viewer.clone()
            }),
            "token.scope.services[0]",
        ),
        (
            Some(pb::Token {
                scope: Some(scope(&["a"], &["*"])),
                ..viewer.clone()
            }),
            "token.scope.hosts[0]",
        ),
        (
            Some(pb::Token {
                role: pb::token::Role::Admin.into(),
                scope: Some(scope(&["a"], &[])),
                ..Default::default()
            }),
            "token.scope",
        ),
    ];
    for (token, field) in rows {
        let request = pb::CreateTokenRequest {
            token,
            ..Default::default()
        };
        let status = harness.call(request).await.expect_err(field);
        assert_eq!(fields(&status), [field], "{status:?}");
    }
    for seconds in [-1, 0, 59, 4_000_000_000] {
        let request = pb::CreateTokenRequest {
            token: Some(viewer.clone()),
            ttl: Some(prost_types::Duration { seconds, nanos: 0 }),
            ..Default::default()
        };
        let status = harness.call(request).await.expect_err("out of range");
        assert_eq!(fields(&status), ["ttl"], "{status:?}");
    }
    assert_eq!(
        harness
            .ok(pb::ListTokensRequest::default())
            .await
            .tokens
            .len(),
        1
    );
}

/// Waits until a stream ends, and returns its status.
async fn end_of(mut stream: tonic::Streaming<pb::WatchRoutesResponse>) -> Status {
    let end = async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok(""),
                Err(status) => return status,
            }
        }
    };
    tokio::time::timeout(SOON, end).await.expect("it ends")
}

/// Revokes a token on `by` while its stream is open on `on`; the time until the stream ends there
/// and calls are refused.
async fn revocation(by: &Harness, on: &Harness) -> Duration {
    let (secret, name) = token(by, pb::token::Role::Viewer, &[]).await;
    eventually("the token is in force", || async {
        call_as(on, &secret, pb::GetCurrentTokenRequest {})
            .await
            .is_ok()
    })
    .await;
    let watch = call_as(on, &secret, pb::WatchRoutesRequest::default())
        .await
        .expect("a stream");
    let ended = tokio::spawn(end_of(watch));
    let started = Instant::now();
    by.ok(pb::RevokeTokenRequest {
        name,
        ..Default::default()
    })
    .await;
    let status = ended.await.expect("no panic");
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    let refused = call_as(on, &secret, pb::GetCurrentTokenRequest {}).await;
    assert_refused(refused, Code::Unauthenticated, "TOKEN_UNKNOWN");
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_ends_streams_and_calls() {
    let harness = Harness::trusted().await;
    let took = revocation(&harness, &harness).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_is_in_force_on_another_control_plane_within_two_seconds() {
    if !database::on_postgres() {
        return;
    }
    let one = Harness::trusted().await;
    let other = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(other.path().join("state")).expect("made");
    let key = |folder: &std::path::Path| folder.join("state").join("master-key");
    std::fs::copy(key(one.folder()), key(other.path())).expect("the same master key");
    let options = cless_control_plane::Options {
        data_dir: Some(other.path().join("state")),
        ..trusted_options(one.folder())
    };
    let token = one.token.clone().expect("a token");
    let two = Harness::trusted_with(options, other, token).await;
    for (by, on) in [(&one, &two), (&two, &one)] {
        let took = revocation(by, on).await;
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_certificate_is_refused() {
    let harness = Harness::trusted().await;
    let mut client =
        pb::route_feed_service_client::RouteFeedServiceClient::new(harness.channel.clone());
    let message = pb::stream_routes_request::Message::Hello(hello("n1", None));
    let hello = tokio_stream::once(pb::StreamRoutesRequest {
        message: Some(message),
    });
    let refused = client.stream_routes(hello).await;
    assert_refused(
        refused.map(|_| ()),
        Code::Unauthenticated,
        "CREDENTIAL_MISSING",
    );
}
