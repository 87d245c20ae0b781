use super::*;

fn map(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(
            name.parse::<HeaderName>().unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    headers
}

fn prepared(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = map(fields);
    let protocol = upgrade(&headers, Version::HTTP_11);
    prepare_request(&mut headers, protocol);
    headers
}

#[test]
fn rfc_9110_section_7_6_1_hop_by_hop_fields_are_removed() {
    let headers = prepared(&[
        ("connection", "keep-alive"),
        ("connection", "close, X-Secret"),
        ("x-secret", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-authorization", "Basic x"),
        ("te", "gzip, trailers"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("x-kept", "1"),
    ]);
    for gone in [
        "connection",
        "x-secret",
        "keep-alive",
        "proxy-authorization",
        "upgrade",
    ] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
    assert_eq!(headers["te"], "trailers");
    assert_eq!(headers["x-kept"], "1");
}

#[test]
fn rfc_9110_section_6_5_1_trailers_frame_and_route_nothing() {
    let mut trailers = map(&[
        ("grpc-status", "0"),
        ("checksum", "x"),
        ("content-length", "3"),
        ("transfer-encoding", "chunked"),
        ("host", "a"),
        ("x-forwarded-for", "1.1.1.1"),
        ("x-request-id", "a"),
    ]);
    prepare_trailers(&mut trailers);
    let mut names: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["checksum", "grpc-status"]);
}

#[test]
fn a_client_cannot_remove_host_or_length() {
    let headers = prepared(&[
        ("connection", "host, content-length"),
        ("host", "a"),
        ("content-length", "3"),
    ]);
    assert_eq!(
        (&headers["host"], &headers["content-length"]),
        (
            &HeaderValue::from_static("a"),
            &HeaderValue::from_static("3")
        )
    );
}

#[test]
fn rfc_9110_section_7_8_an_upgrade_is_passed_on_only_if_requested() {
    let websocket = [("connection", "Upgrade"), ("upgrade", "websocket")];
    let headers = prepared(&websocket);
    assert_eq!(headers["connection"], "upgrade");
    assert_eq!(headers["upgrade"], "websocket");
    assert_eq!(upgrade(&map(&websocket), Version::HTTP_10), None);
    let h2c = prepared(&[
        ("connection", "Upgrade, HTTP2-Settings"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABk"),
    ]);
    assert!(h2c.is_empty(), "{h2c:?}");
}

#[test]
fn rfc_9113_section_8_2_3_pieces_of_a_cookie_are_joined() {
    let headers = prepared(&[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]);
    let cookies: Vec<_> = headers.get_all("cookie").iter().collect();
    assert_eq!(cookies, ["a=1; b=2; c=3"]);
}

#[test]
fn rfc_9112_section_3_2_there_is_exactly_one_host() {
    let found = |version, uri: &str, hosts: &[&str]| {
        let mut request = Request::get(uri).version(version).body(()).unwrap();
        for host in hosts {
            let host = HeaderValue::from_str(host).unwrap();
            request.headers_mut().append("host", host);
        }
        host(&request).map(Cow::into_owned)
    };
    let http1 = |uri, hosts: &[&str]| found(Version::HTTP_11, uri, hosts);
    assert_eq!(http1("/", &["A.example:80"]), Ok("a.example".to_owned()));
    assert_eq!(
        http1("http://b.example/", &["a.example"]),
        Ok("b.example".to_owned())
    );
    for refused in [
        http1("/", &[]),
        http1("/", &["a", "a"]),
        http1("/", &[""]),
        http1("/", &["a b"]),
        http1("/", &["user@a"]),
        http1("http://b.example/", &[]),
        http1("http://b.example/", &["a b"]),
        http1("http://u@b.example/", &["b.example"]),
        http1("ftp://b.example/", &["b.example"]),
        found(Version::HTTP_10, "/", &[]),
    ] {
        assert!(matches!(refused, Err(Error::BadRequest(_))), "{refused:?}");
    }
}

#[test]
fn rfc_9112_section_3_2_a_target_has_one_of_three_forms() {
    let check = |method: &str, uri: &str| {
        let request = Request::builder().method(method).uri(uri).body(());
        check_target(&request.unwrap()).is_ok()
    };
    for uri in ["/", "/x?y", "http://a.example", "http://a.example/x"] {
        assert!(check("GET", uri), "{uri}");
    }
    assert!(check("OPTIONS", "*"));
    for uri in ["*", "first", "a.example:80", "a.example"] {
        assert!(!check("GET", uri), "{uri}");
    }
}

#[test]
fn rfc_9113_section_8_3_1_host_and_authority_agree() {
    let found = |field: Option<&str>| {
        let mut request = Request::get("http://a.example/").version(Version::HTTP_2);
        if let Some(field) = field {
            request = request.header("host", field);
        }
        host(&request.body(()).unwrap()).map(Cow::into_owned)
    };
    assert_eq!(found(None), Ok("a.example".to_owned()));
    assert_eq!(found(Some("A.example")), Ok("a.example".to_owned()));
    assert!(found(Some("b.example")).is_err());
}

#[test]
fn a_cookie_is_found_among_others() {
    let headers = map(&[("cookie", "a=1; cless-affinity=k; b=2"), ("cookie", "c=3")]);
    assert_eq!(cookie(&headers, "cless-affinity"), Some("k"));
    assert_eq!(cookie(&headers, "c"), Some("3"));
    assert_eq!(cookie(&headers, "d"), None);
}

#[test]
fn a_request_id_is_kept_only_from_a_trusted_peer() {
    let headers = map(&[("x-request-id", "theirs")]);
    assert_eq!(request_id(&headers, true, 1), "theirs");
    let made = request_id(&headers, false, u128::MAX);
    assert_eq!(made, "f".repeat(32).as_str());
}

#[test]
fn rfc_9111_section_5_2_2_7_a_private_response_is_not_shared() {
    for (given, expected) in [
        (&[][..], "private"),
        (&["public, max-age=60"], "max-age=60, private"),
        (
            &["Public", "S-MaxAge=9,max-age=60, immutable"],
            "max-age=60, immutable, private",
        ),
        (&["no-store"], "no-store, private"),
        (&["private=\"set-cookie\""], "private"),
    ] {
        let fields: Vec<_> = given
            .iter()
            .map(|value| ("cache-control", *value))
            .collect();
        let mut headers = map(&fields);
        make_private(&mut headers);
        let all: Vec<_> = headers.get_all("cache-control").iter().collect();
        assert_eq!(all, [expected], "{given:?}");
    }
}

#[test]
fn a_list_of_names_is_searched_without_case() {
    let headers = map(&[("vary", "Accept, COOKIE"), ("vary", "x")]);
    for (name, listed) in [("cookie", true), ("x", true), ("cook", false)] {
        let name = HeaderName::from_static(name);
        assert_eq!(names(&headers, &header::VARY, &name), listed, "{name}");
    }
    let all = map(&[("vary", "*")]);
    assert!(names(&all, &header::VARY, &header::COOKIE));
}

#[test]
fn grpc_is_exactly_application_grpc() {
    for (kind, expected) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc;charset=utf-8", true),
        ("Application/gRPC", true),
        ("application/grpc-web", false),
        ("application/grpc-web+proto", false),
        ("application/grpcfoo", false),
        ("application/grp", false),
        ("text/plain; application/grpc", false),
    ] {
        assert_eq!(is_grpc(&map(&[("content-type", kind)])), expected, "{kind}");
    }
}

#[test]
fn rfc_9113_section_8_2_3_the_pieces_of_cookie_count_as_one_field() {
    assert_eq!(
        count(&map(&[("a", "1"), ("cookie", "b=1"), ("cookie", "c=1")])),
        2
    );
    assert_eq!(count(&map(&[("a", "1"), ("b", "2")])), 2);
}
