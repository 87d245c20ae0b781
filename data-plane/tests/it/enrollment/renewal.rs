//! Renewals: new connections before old ones close, expired certificates, and rotated authorities.

use super::*;
use cless_proto::v1 as pb;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Renewal is due after two seconds of this.
const SHORT: Duration = Duration::from_secs(3);

#[tokio::test]
async fn streams_move_to_a_connection_with_the_new_certificate() {
    let mut cluster = Cluster::new(SHORT);
    let mut plane = cluster.plane().await;
    let feed = cluster.join(&[&plane]).await;
    cluster.call().await.enroll();
    let mut old = follow(&mut plane, &routes()).await;
    let old_control = accept_control(&mut plane).await;
    cluster.enroller.issue(cluster.authority.clone(), LONG);
    let mut status = feed.status();
    status.mark_unchanged();

    let renewal = cluster.call().await.renew();
    assert!(renewal.node_time.is_some());
    let (new, hello) = plane.accept().await;
    assert_ne!(new.certificate, old.certificate);
    assert_eq!(hello.have, Some(routes().cursor()));
    assert!(
        old.stays_open(Duration::from_millis(200)).await,
        "kept until the new one answers"
    );
    new.send(routes().heartbeat()).await;
    old.until_closed().await;
    let control = accept_control(&mut plane).await;
    assert_eq!(control.certificate, new.certificate);
    old_control.until_closed().await;
    // Reports go on, and the feed never counted as disconnected.
    assert!(feed.status().borrow().connected);
    plane.report().await;
    let next = routes().with("b", "b:1");
    new.send(next.delta(&routes())).await;
    let mut new = new;
    assert_eq!(new.ack().await.cursor, Some(next.cursor()));
    feed.shutdown().await;
}

#[tokio::test]
async fn a_renewal_that_no_plane_answers_keeps_the_streams() {
    let mut cluster = Cluster::new(SHORT);
    let mut plane = cluster.plane().await;
    let feed = cluster.join(&[&plane]).await;
    cluster.call().await.enroll();
    let mut stream = follow(&mut plane, &routes()).await;
    cluster
        .enroller
        .script(|_| Err(Status::unavailable("a full disk")));
    cluster.call().await.renew();
    cluster.call().await.renew();
    assert!(stream.stays_open(Duration::from_millis(200)).await);
    // Answers that cannot be used change nothing either.
    let authority = cluster.authority.clone();
    let other = rcgen::KeyPair::generate().expect("a key");
    let other = rcgen::CertificateParams::default().serialize_request(&other);
    let other = other.expect("a request").der().to_vec();
    let path = cluster.folder().join("node-certificate.json");
    let before = std::fs::read(&path).expect("a certificate");
    let unchanged = Arc::new(Mutex::new(Vec::new()));
    let seen = unchanged.clone();
    cluster.enroller.script(move |csr| {
        let good = trust::certificate(&authority, csr, LONG);
        let mut seen = seen.lock().expect("no panic");
        seen.push(std::fs::read(&path).is_ok_and(|now| now == before));
        Ok(match seen.len() {
            1 => pb::NodeCertificate {
                cluster: "c2".into(),
                ..good
            },
            2 => pb::NodeCertificate {
                cluster: "no label".into(),
                ..good
            },
            3 => pb::NodeCertificate {
                authorities: Vec::new(),
                ..good
            },
            4 => pb::NodeCertificate {
                authorities: vec!["nonsense".into()],
                ..good
            },
            5 => pb::NodeCertificate {
                expire_time: None,
                ..good
            },
            6 => pb::NodeCertificate {
                expire_time: Some(SystemTime::UNIX_EPOCH.into()),
                ..good
            },
            7 => pb::NodeCertificate {
                certificate: "nonsense".into(),
                ..good
            },
            8 => trust::certificate(&authority, &other, LONG),
            _ => good,
        })
    });
    let (next, _) = plane.accept().await;
    assert_ne!(next.certificate, stream.certificate);
    assert_eq!(*unchanged.lock().expect("no panic"), [true; 9]);
    feed.shutdown().await;
}

#[tokio::test]
async fn an_expired_certificate_serves_from_the_cache_and_renews() {
    let mut cluster = Cluster::new(SHORT);
    let address;
    let expired;
    {
        let mut plane = cluster.plane().await;
        address = plane.address;
        let feed = cluster.join(&[&plane]).await;
        cluster.call().await.enroll();
        let stream = follow(&mut plane, &routes()).await;
        expired = stream.certificate;
        // The table is on disk.
        feed.shutdown().await;
        // Times in certificates are whole seconds.
        tokio::time::sleep(SHORT + Duration::from_secs(1)).await;
        let feed = {
            drop(plane);
            let uri = format!("https://{address}").parse().expect("a URI");
            let options = FeedOptions {
                control_planes: vec![uri],
                ..cluster.options(&[])
            };
            feed::start(options, engine_only())
                .await
                .expect("it starts")
        };
        assert!(feed.table().lookup("a.localhost").is_some(), "it serves");
        cluster.enroller.issue(cluster.authority.clone(), LONG);
        let mut plane = cluster.plane_at(address).await;
        cluster.call().await.renew();
        // A connection that was being dialled during the renewal is followed by another one.
        let mut status = feed.status();
        let mut streams = Vec::new();
        while !status.borrow_and_update().synced {
            tokio::select! {
                (stream, _) = plane.accept() => {
                    assert_ne!(stream.certificate, expired);
                    stream.send(routes().heartbeat()).await;
                    streams.push(stream);
                }
                changed = status.changed() => changed.expect("the feed lives"),
            }
        }
        feed.shutdown().await;
    }
}

/// Law 7 with TLS: no control plane, and a certificate that has expired.
#[tokio::test]
async fn a_node_with_an_expired_certificate_and_no_plane_wakes_containers() {
    let mut cluster = Cluster::new(SHORT);
    let uri = {
        let mut plane = cluster.plane().await;
        let feed = cluster.join(&[&plane]).await;
        cluster.call().await.enroll();
        let _stream = follow(&mut plane, &routes()).await;
        feed.shutdown().await;
        plane.uri()
    };
    tokio::time::sleep(SHORT + Duration::from_secs(1)).await;
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut options = cless_data_plane::Options {
        listen: any,
        admin: any,
        control_planes: vec![uri],
        node: "one".to_owned(),
        cache_dir: cluster.folder().to_owned(),
        drain_timeout: 1,
        ..Default::default()
    };
    options.proxy.workers = 1;
    let engine = cless_data_plane::runtime::fake::Fake::default();
    let mut visitors = engine.visitors();
    let node = cless_data_plane::start_on(options, Arc::new(engine.clone()));
    let node = node.await.expect("it starts");
    assert_eq!(engine.starts(), 0);
    let mut client = TcpStream::connect(node.proxy_addr())
        .await
        .expect("it serves");
    let request = b"GET / HTTP/1.1\r\nHost: a.localhost\r\nConnection: close\r\n\r\n";
    client.write_all(request).await.expect("it reads");
    let serve = async {
        // Probes connect, too, and send nothing.
        while let Some(mut visitor) = visitors.recv().await {
            tokio::spawn(async move {
                let mut head = [0; 1024];
                if visitor.read(&mut head).await.is_ok_and(|read| read > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nawake";
                    let _ = visitor.write_all(answer).await;
                }
            });
        }
    };
    let mut answer = String::new();
    tokio::select! {
        read = within("an answer", client.read_to_string(&mut answer)) => {
            read.expect("text");
        }
        () = serve => {}
    }
    assert!(
        answer.contains("200 OK") && answer.contains("awake"),
        "{answer}"
    );
    assert_eq!(engine.starts(), 1);
    node.shutdown().await;
}

#[tokio::test]
async fn authorities_are_pinned_anew_with_each_certificate() {
    let mut cluster = Cluster::new(SHORT);
    let next = Authority::new();
    let mut plane = cluster.plane().await;
    let feed = cluster.join(&[&plane]).await;
    cluster.call().await.enroll();
    let stream = follow(&mut plane, &routes()).await;
    let (old, new) = (cluster.authority.clone(), next.clone());
    cluster.enroller.script(move |csr| {
        let mut answer = trust::certificate(&old, csr, LONG);
        answer.authorities.push(new.der.to_vec().into());
        Ok(answer)
    });
    cluster.call().await.renew();
    let (stream_of_both, _) = plane.accept().await;
    stream_of_both.send(routes().heartbeat()).await;
    drop(stream);

    // A control plane of the second authority alone is accepted now.
    let address = plane.address;
    drop(plane);
    let trust = Trust::of(&next, &[&cluster.authority, &next], &cluster.enroller);
    let mut plane = Plane::serve(address, Some(trust)).await;
    let (stream, _) = plane.accept().await;
    assert!(stream.certificate.is_some());
    feed.shutdown().await;
}
