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
        let (mut client, mut instance, _) = stage.asked(get("/", "")).await;
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
