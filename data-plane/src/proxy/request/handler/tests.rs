use super::*;

#[test]
fn rfc_9112_section_3_2_1_the_instance_gets_origin_form() {
    for (given, sent) in [
        ("http://a.example/x?y=1", "/x?y=1"),
        ("/x", "/x"),
        ("http://a.example", "/"),
        ("*", "*"),
    ] {
        assert_eq!(
            origin_form(given.parse().unwrap(), &Method::GET),
            sent,
            "{given}"
        );
    }
}

#[test]
fn rfc_9112_section_3_2_4_options_of_a_whole_server() {
    for (given, sent) in [
        ("http://a.example", "*"),
        ("http://a.example/x", "/x"),
        ("*", "*"),
    ] {
        let uri = given.parse().unwrap();
        assert_eq!(origin_form(uri, &Method::OPTIONS), sent, "{given}");
    }
}

/// The future is moved into its task, so state that few requests need must be boxed.
#[test]
fn the_future_of_a_request_is_small() {
    fn size<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }
    assert!(size(handle) <= 2432, "{} bytes", size(handle));
}
