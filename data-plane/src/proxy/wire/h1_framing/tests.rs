use super::*;
use proptest::prelude::*;

fn error(text: &str) -> Option<FramingError> {
    let found = Inspector::new(65_536).inspect(text.as_bytes());
    found.error.map(|(_, error)| error)
}

fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")
}

#[test]
fn rfc_9112_section_6_3_one_length_or_none() {
    assert_eq!(error(&post("Content-Length: 3\r\n", "abc")), None);
    assert_eq!(
        error(&post("Transfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        None
    );
    assert_eq!(error(&post("", "")), None);
    for both in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        "transfer-encoding:chunked\r\nCONTENT-LENGTH:\t3 \r\n",
    ] {
        assert_eq!(
            error(&post(both, "")),
            Some(FramingError::BothLengths),
            "{both}"
        );
    }
    for length in [
        "",
        "+3",
        "-1",
        "3, 3",
        "3 3",
        "0x3",
        "3a",
        "18446744073709551616",
    ] {
        let field = format!("Content-Length: {length}\r\n");
        assert_eq!(
            error(&post(&field, "")),
            Some(FramingError::ContentLength),
            "{length}"
        );
    }
    let twice = "Content-Length: 3\r\nContent-Length: 3\r\n";
    assert_eq!(
        error(&post(twice, "abc")),
        Some(FramingError::ContentLength)
    );
}

#[test]
fn rfc_9112_section_6_1_chunked_alone() {
    for coding in [
        "gzip",
        "gzip, chunked",
        "chunked, gzip",
        "xchunked",
        "chunked,",
        "\"chunked\"",
    ] {
        let field = format!("Transfer-Encoding: {coding}\r\n");
        assert_eq!(
            error(&post(&field, "")),
            Some(FramingError::TransferEncoding),
            "{coding}"
        );
    }
    let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n";
    assert_eq!(
        error(&post(twice, "")),
        Some(FramingError::TransferEncoding)
    );
    let old = "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(error(old), Some(FramingError::TransferEncoding));
}

#[test]
fn rfc_9112_section_2_2_lines_end_with_cr_lf() {
    for text in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
    ] {
        assert_eq!(error(text), Some(FramingError::LineEnd), "{text:?}");
    }
    assert_eq!(error("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), None);
}

#[test]
fn rfc_9112_section_5_2_no_folded_field() {
    let folded = post("X-A: b\r\n c\r\n", "");
    assert_eq!(error(&folded), Some(FramingError::Folded));
    assert_eq!(error(&post("no colon\r\n", "")), Some(FramingError::Field));
}

#[test]
fn rfc_9112_section_7_1_chunks_are_well_formed() {
    let chunked = |body: &str| error(&post("Transfer-Encoding: chunked\r\n", body));
    for good in [
        "3\r\nabc\r\n0\r\n\r\n",
        "3;a=b\r\nabc\r\n0\r\n\r\n",
        "3 ;a\r\nabc\r\n00\r\n\r\n",
        "A\r\n0123456789\r\n0\r\nX-T: 1\r\nY: 2\r\n\r\n",
    ] {
        assert_eq!(chunked(good), None, "{good:?}");
    }
    for bad in [
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\n\r\n",
        "3\r\nabc\r\n0\r\n\n",
        "3\r\nabc\r\n0\r\nX: 1\n\r\n",
        "3\r\nabc\r\n0\r\n X: 1\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3;a\nabc\r\n0\r\n\r\n",
        "1000000000000000\r\n",
        "g\r\n",
    ] {
        assert_eq!(chunked(bad), Some(FramingError::Chunk), "{bad:?}");
    }
}

#[test]
fn an_error_names_the_request_it_is_in() {
    let good = post("Content-Length: 3\r\n", "abc");
    let bad = post("Content-Length: x\r\n", "");
    let mut inspector = Inspector::new(65_536);
    let found = inspector.inspect(format!("{good}{good}{bad}{good}").as_bytes());
    assert_eq!(found.error, Some((2, FramingError::ContentLength)));
    // Bytes behind it are not inspected: the connection ends with the response.
    assert_eq!(inspector.inspect(b"\n\n\n").error, None);
}

#[test]
fn bytes_behind_an_upgrade_wait_for_its_outcome() {
    let switch = "GET / HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let text = format!("{switch}no http");
    for switched in [true, false] {
        let mut inspector = Inspector::new(65_536);
        let found = inspector.inspect(text.as_bytes());
        assert_eq!((found.pass, found.error), (switch.len(), None));
        assert!(inspector.is_upgrade_pending());
        inspector.resolve_upgrade(switched);
        assert_eq!(inspector.inspect(b"no http").error, None);
        assert_eq!(inspector.inspect(b"\n\n").error.is_none(), switched);
    }
    let h2c = "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    let mut inspector = Inspector::new(65_536);
    assert_eq!(inspector.inspect(h2c.as_bytes()).pass, h2c.len());
    assert!(
        !inspector.is_upgrade_pending(),
        "h2c is never accepted, so nothing waits"
    );
}

#[test]
fn the_phase_distinguishes_a_partial_head_from_idle() {
    let mut inspector = Inspector::new(65_536);
    assert_eq!(inspector.phase(), ReadPhase::Idle);
    inspector.inspect(b"\r\n");
    assert_eq!(inspector.phase(), ReadPhase::Idle);
    inspector.inspect(b"GET / HT");
    assert_eq!(inspector.phase(), ReadPhase::Head);
    inspector.inspect(b"TP/1.1\r\ncontent-length: 1\r\n\r\n");
    assert_eq!((inspector.phase(), inspector.heads()), (ReadPhase::Body, 1));
    inspector.inspect(b"x");
    assert_eq!(inspector.phase(), ReadPhase::Idle);
}

proptest! {
    /// Law: the verdict does not depend on how bytes are split.
    #[test]
    fn pieces_give_what_the_whole_gives(
        messages in prop::collection::vec(0usize..9, 1..5),
        cuts in prop::collection::vec(1usize..40, 0..40),
    ) {
        let kinds = [
            post("", ""),
            post("Content-Length: 3\r\n", "abc"),
            post("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n"),
            post("Transfer-Encoding: chunked\r\n", "3;x\r\nabc\r\n0\r\nT: 1\r\n\r\n"),
            post("Transfer-Encoding: chunked\r\n", "3\nabc\r\n0\r\n\r\n"),
            post("Content-Length: x\r\n", ""),
            post("A: b\n", ""),
            format!("\r\n{}", post("", "")),
            post("Connection: upgrade\r\nUpgrade: x\r\n", "after"),
        ];
        let text: String = messages.iter().map(|at| kinds[*at].as_str()).collect();
        let mut whole = Inspector::new(65_536);
        let expected = whole.inspect(text.as_bytes());
        let mut pieces = Inspector::new(65_536);
        let (mut rest, mut cuts, mut error) = (text.as_bytes(), cuts.into_iter().cycle(), None);
        let mut passed = 0;
        while !rest.is_empty() {
            let cut = cuts.next().unwrap_or(7).min(rest.len());
            let found = pieces.inspect(&rest[..cut]);
            error = error.or(found.error);
            if error.is_some() {
                break;
            }
            passed += found.pass;
            rest = &rest[cut..];
        }
        prop_assert_eq!(error, expected.error);
        if error.is_none() {
            prop_assert_eq!(passed, expected.pass);
            prop_assert_eq!(pieces.heads(), whole.heads());
        }
    }

    /// Law 10: no bytes cause a panic.
    #[test]
    fn never_panics(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..20)) {
        let mut inspector = Inspector::new(100);
        for piece in pieces {
            let found = inspector.inspect(&piece);
            prop_assert!(found.pass <= piece.len());
        }
    }
}
