//! Names of fields that claim to describe the connection of a client. Pure.

use http::HeaderName;

/// Fields beside `X-Forwarded*` from which common servers, frameworks and balancers take the
/// client's address, the scheme, the host or the target.
pub(super) const ORIGIN_CLAIMS: [&str; 28] = [
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "client-ip",
    "cluster-client-ip",
    "fastly-client-ip",
    "forwarded",
    "forwarded-for",
    "forwarded-for-ip",
    "front-end-https",
    "proxy",
    "proxy-client-ip",
    "true-client-ip",
    "wl-proxy-client-ip",
    "wl-proxy-ssl",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "x-forward-for",
    "x-host",
    "x-original-forwarded-for",
    "x-original-host",
    "x-original-url",
    "x-real-ip",
    "x-remote-addr",
    "x-remote-ip",
    "x-rewrite-url",
    "x-scheme",
    "x-url-scheme",
];

/// Equality if `_` is read as `-`.
fn equals_folded(name: &str, plain: &str) -> bool {
    name.len() == plain.len()
        && name
            .bytes()
            .zip(plain.bytes())
            .all(|(a, b)| a == b || (a == b'_' && b == b'-'))
}

fn starts_folded(name: &str, prefix: &str) -> bool {
    let begin = name.get(..prefix.len());
    begin.is_some_and(|begin| equals_folded(begin, prefix))
}

/// Whether a field claims to describe the connection, in any spelling. `more`: names that the
/// operator adds, with `-`.
pub(super) fn is_origin_claim(name: &HeaderName, more: &[Box<str>]) -> bool {
    let name = name.as_str();
    let is_listed = match name.as_bytes().first() {
        Some(b'x') => {
            starts_folded(name, "x-forwarded")
                || ORIGIN_CLAIMS.iter().any(|claim| equals_folded(name, claim))
        }
        Some(b'c' | b'f' | b'p' | b't' | b'w') => {
            ORIGIN_CLAIMS.iter().any(|claim| equals_folded(name, claim))
        }
        _ => false,
    };
    is_listed || more.iter().any(|more| equals_folded(name, more))
}
