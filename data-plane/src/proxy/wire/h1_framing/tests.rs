use super::*;
use proptest::prelude::*;

fn fault(text: &str) -> Option<Fault> {
    let found = Inspector::new(65_536).inspect(text.as_bytes());
    found.fault.map(|(_, fault)| fault)
}

fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")
}

#[test]
fn rfc_9112_section_6_3_one_length_or_none() {
    assert_eq!(fault(&post("Content-Length: 3\r\n", "abc")), None);
    assert_eq!(
        fault(&post("Transfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        None
    );
    assert_eq!(fault(&post("", "")), None);
    for both in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        "transfer-encoding:chunked\r\nCONTENT-LENGTH:\t3 \r\n",
    ] {
        assert_eq!(fault(&post(both, "")), Some(Fault::BothLengths), "{both}");
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
            fault(&post(&field, "")),
            Some(Fault::ContentLength),
            "{length}"
        );
    }
    let twice = "Content-Length: 3\r\nContent-Length: 3\r\n";
    assert_eq!(fault(&post(twice, "abc")), Some(Fault::ContentLength));
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
            fault(&post(&field, "")),
            Some(Fault::TransferEncoding),
            "{coding}"
        );
    }
    let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n";
    assert_eq!(fault(&post(twice, "")), Some(Fault::TransferEncoding));
    let old = "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(fault(old), Some(Fault::TransferEncoding));
}

#[test]
fn rfc_9112_section_2_2_lines_end_with_cr_lf() {
    for text in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
    ] {
        assert_eq!(fault(text), Some(Fault::LineEnd), "{text:?}");
    }
    assert_eq!(fault("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), None);
}

#[test]
fn rfc_9112_section_5_2_no_folded_field() {
    let folded = post("X-A: b\r\n c\r\n", "");
    assert_eq!(fault(&folded), Some(Fault::Folded));
    assert_eq!(fault(&post("no colon\r\n", "")), Some(Fault::Field));
}

#[test]
fn rfc_9112_section_7_1_chunks_are_well_formed() {
    let chunked = |body: &str| fault(&post("Transfer-Encoding: chunked\r\n", body));
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
        assert_eq!(chunked(bad), Some(Fault::Chunk), "{bad:?}");
    }
}

#[test]
fn a_fault_names_the_head_it_is_in() {
    let good = post("Content-Length: 3\r\n", "abc");
    let bad = post("Content-Length: x\r\n", "");
    let mut inspector = Inspector::new(65_536);
    let found = inspector.inspect(format!("{good}{good}{bad}{good}").as_bytes());
    assert_eq!(found.fault, Some((2, Fault::ContentLength)));
    // What follows is not looked at: the connection ends with the answer to that request.
    assert_eq!(inspector.inspect(b"\n\n\n").fault, None);
}

#[test]
fn what_follows_a_switch_waits_behind_the_gate() {
    let switch = "GET / HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let text = format!("{switch}no http");
    for switched in [true, false] {
        let mut inspector = Inspector::new(65_536);
        let found = inspector.inspect(text.as_bytes());
        assert_eq!((found.pass, found.fault), (switch.len(), None));
        assert!(inspector.is_gated());
        inspector.open_gate(switched);
        assert_eq!(inspector.inspect(b"no http").fault, None);
        assert_eq!(inspector.inspect(b"\n\n").fault.is_none(), switched);
    }
    let h2c = "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    let mut inspector = Inspector::new(65_536);
    assert_eq!(inspector.inspect(h2c.as_bytes()).pass, h2c.len());
    assert!(
        !inspector.is_gated(),
        "an upgrade that is never taken waits for nothing"
    );
}

#[test]
fn the_phase_tells_a_slow_head_from_an_idle_connection() {
    let mut inspector = Inspector::new(65_536);
    assert_eq!(inspector.phase(), Phase::Idle);
    inspector.inspect(b"\r\n");
    assert_eq!(inspector.phase(), Phase::Idle);
    inspector.inspect(b"GET / HT");
    assert_eq!(inspector.phase(), Phase::Head);
    inspector.inspect(b"TP/1.1\r\ncontent-length: 1\r\n\r\n");
    assert_eq!((inspector.phase(), inspector.heads()), (Phase::Body, 1));
    inspector.inspect(b"x");
    assert_eq!(inspector.phase(), Phase::Idle);
}

proptest! {
    /// Law: in pieces as whole.
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
        let (mut rest, mut cuts, mut fault) = (text.as_bytes(), cuts.into_iter().cycle(), None);
        let mut passed = 0;
        while !rest.is_empty() {
            let cut = cuts.next().unwrap_or(7).min(rest.len());
            let found = pieces.inspect(&rest[..cut]);
            fault = fault.or(found.fault);
            if fault.is_some() {
                break;
            }
            passed += found.pass;
            rest = &rest[cut..];
        }
        prop_assert_eq!(fault, expected.fault);
        if fault.is_none() {
            prop_assert_eq!(passed, expected.pass);
            prop_assert_eq!(pieces.heads(), whole.heads());
        }
    }

    /// Law 10: any bytes give a verdict.
    #[test]
    fn never_panics(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..20)) {
        let mut inspector = Inspector::new(100);
        for piece in pieces {
            let found = inspector.inspect(&piece);
            prop_assert!(found.pass <= piece.len());
        }
    }
}
