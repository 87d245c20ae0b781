//! Connections that switch to another protocol (RFC 9110 section 7.8).

use super::{Stage, answers_ok, get};

const SWITCH: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n";
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

#[tokio::test]
async fn rfc_9110_section_7_8_bytes_sent_before_the_switch_are_kept() {
    let mut stage = Stage::start().await;
    // The client sends ahead of the response: its bytes resemble a malformed head but are not HTTP.
    let (mut client, mut instance, head) = stage.asked(get("/chat", SWITCH) + "early\n\n").await;
    assert!(head.contains("upgrade: websocket\r\n"), "{head}");
    instance.send(format!("{SWITCHED}late")).await;
    let head = client.answered(101).await;
    assert!(head.contains("connection: upgrade\r\n"), "{head}");
    client.until("late").await;
    instance.until("early\n\n").await;
    client.send("ping").await;
    instance.until("ping").await;
    instance.send("pong").await;
    client.until("pong").await;
    assert!(stage.metrics().await.contains("cless_tunnels 1"));
    drop(instance);
    assert_eq!(client.rest().await, "");
    // Its own direction stays open until then.
    drop(client);
    stage.stop().await;
}

#[tokio::test]
async fn rfc_9110_section_7_8_a_refused_switch_is_an_ordinary_request() {
    let mut stage = Stage::start().await;
    let (mut client, mut instance, _) = stage.asked(get("/1", SWITCH) + &get("/2", "")).await;
    answers_ok(&mut instance, &mut client).await;
    assert!(instance.head().await.starts_with("get /2 "));
    answers_ok(&mut instance, &mut client).await;
    stage.stop().await;
}

#[tokio::test]
async fn rfc_9110_section_7_8_an_unrequested_switch_is_refused() {
    let mut stage = Stage::start().await;
    let (mut client, mut instance, _) = stage.asked(get("/", "")).await;
    instance.send(SWITCHED).await;
    client.answered(502).await;
    stage.stop().await;
}

#[tokio::test]
async fn a_tunnel_that_is_silent_or_old_is_ended() {
    for age in [false, true] {
        let choose = |options: &mut cless_data_plane::Options| match age {
            true => options.proxy.tunnel_max_age = 1,
            false => options.proxy.tunnel_idle_timeout = 1,
        };
        let mut stage = Stage::choosing(choose).await;
        let (mut client, mut instance, _) = stage.asked(get("/", SWITCH)).await;
        instance.send(SWITCHED).await;
        client.head().await;
        assert_eq!(client.rest().await, "");
        assert_eq!(instance.rest().await, "");
        let reason = if age { "tunnel_age" } else { "tunnel_idle" };
        let wanted = format!("cless_connections_closed_total{{reason=\"{reason}\"}} 1");
        let metrics = stage.metrics().await;
        assert!(metrics.contains(&wanted), "{metrics}");
        stage.stop().await;
    }
}
