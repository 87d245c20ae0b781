//! Responses of instances: hop-by-hop fields are removed, and malformed responses are refused.

use super::{Stage, get};

#[tokio::test]
async fn rfc_9110_section_7_6_1_hop_by_hop_fields_of_responses_are_removed() {
    let mut stage = Stage::start().await;
    let (mut client, mut instance, _) = stage.asked(get("/", "")).await;
    instance
        .send(
            "HTTP/1.1 200 OK\r\nconnection: keep-alive, x-hop\r\nkeep-alive: timeout=5\r\n\
             x-hop: 1\r\nproxy-authenticate: Basic\r\nx-kept: 1\r\nvia: 1.0 fred\r\n\
             content-length: 2\r\n\r\nok",
        )
        .await;
    let head = client.head().await;
    for gone in ["x-hop", "keep-alive", "proxy-authenticate"] {
        assert!(!head.contains(gone), "{gone} in {head}");
    }
    assert!(head.contains("x-kept: 1\r\n"), "{head}");
    // RFC 9110 section 7.6.3.
    assert!(
        head.contains("via: 1.0 fred\r\nvia: 1.1 cless\r\n")
            || head.contains("via: 1.0 fred, 1.1 cless\r\n"),
        "{head}"
    );
    client.until("ok").await;
    stage.stop().await;
}

/// RFC 9112 sections 4, 5.1, 6.3: an ambiguous response becomes a 502.
#[tokio::test]
async fn malformed_responses_become_502() {
    let mut stage = Stage::start().await;
    for (name, answer) in [
        ("4 no status line", "garbage\r\n\r\n"),
        ("4 no status", "HTTP/1.1 OK\r\ncontent-length: 0\r\n\r\n"),
        ("4 another protocol", "SSH-2.0-OpenSSH\r\n\r\n"),
        (
            "5.1 space in a name",
            "HTTP/1.1 200 OK\r\nx y: 1\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            "5.5 NUL in a value",
            "HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            "6.3 two lengths",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
        ),
        (
            "6.2 no length",
            "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\nok",
        ),
        ("6.3 nothing", ""),
    ] {
        // A POST, which is not repeated.
        let request = get("/", "Content-Length: 0\r\n").replace("GET", "POST");
        let (mut client, mut instance, _) = stage.asked(request).await;
        instance.send(answer).await;
        drop(instance);
        let head = client.head().await;
        assert!(head.starts_with("http/1.1 502"), "{name}: {head}");
        assert!(
            head.contains("proxy-status: cless; error="),
            "{name}: {head}"
        );
    }
    stage.stop().await;
}

/// RFC 9111 section 4.1: a shared cache in front must not give all users one version and one key.
#[tokio::test]
async fn a_shared_cache_does_not_pin_everyone_to_one_version() {
    use cless_proto::v1 as pb;
    use pb::affinity::Kind;
    for (kind, name, vary) in [
        (Kind::Cookie, "", "vary: accept\r\nvary: cookie\r\n"),
        (Kind::Header, "x-user", "vary: accept\r\nvary: x-user\r\n"),
        (Kind::None, "", "vary: accept\r\nvary: cless-version\r\n"),
    ] {
        let shape = |route: &mut pb::Route| {
            if let Some(settings) = &mut route.settings {
                settings.version_header = Some(kind == Kind::None);
                settings.affinity = Some(pb::Affinity {
                    kind: kind.into(),
                    header: name.to_owned(),
                });
            }
        };
        let mut stage = Stage::with(shape, |_| ()).await;
        let mut client = stage.client(get("/", "")).await;
        let (mut instance, _) = stage.instance().await;
        let public = "HTTP/1.1 200 OK\r\ncache-control: public, max-age=60\r\n\
                      vary: Accept\r\ncontent-length: 2\r\n\r\nok";
        instance.send(public).await;
        let head = client.head().await;
        assert!(head.contains(vary), "{head}");
        let is_private = head.contains("cache-control: max-age=60, private\r\n");
        assert_eq!(is_private, kind == Kind::Cookie, "{head}");
        client.until("ok").await;
        // A client that has the key gets no cookie, and its response may be stored for that cookie.
        client.send(get("/", "Cookie: cless-affinity=1\r\n")).await;
        instance.head().await;
        instance.send(public).await;
        let head = client.head().await;
        assert!(head.contains(vary) && head.contains("public"), "{head}");
        stage.stop().await;
    }
}
