//! Formatting and parsing of resource names (AIP-122).
//!
//! A parser accepts only the exact pattern; its error shows the pattern.

use cless_proto::token::TokenId;

use super::error::Reason;
use super::id::{NodeName, ServiceId, VersionNumber};

/// `services/{service}`
#[must_use]
pub fn service(service: &ServiceId) -> String {
    format!("services/{service}")
}

/// `services/{service}/versions/{number}`
#[must_use]
pub fn version(service: &ServiceId, number: VersionNumber) -> String {
    format!("services/{service}/versions/{number}")
}

/// `services/{service}/traffic`
#[must_use]
pub fn traffic(service: &ServiceId) -> String {
    format!("services/{service}/traffic")
}

/// `services/{service}/traffic/revisions/{number}`
#[must_use]
pub fn traffic_revision(service: &ServiceId, number: i32) -> String {
    format!("services/{service}/traffic/revisions/{number}")
}

/// `nodes/{node}`
#[must_use]
pub fn node(node: &NodeName) -> String {
    format!("nodes/{node}")
}

/// `nodes/{node}/instances/{instance}`
#[must_use]
pub fn instance(node: &NodeName, instance: &str) -> String {
    format!("nodes/{node}/instances/{instance}")
}

/// `tokens/{token}`
#[must_use]
pub fn token(token: &TokenId) -> String {
    format!("tokens/{token}")
}

/// `auditEntries/{entry}`
#[must_use]
pub fn audit_entry(id: i64) -> String {
    format!("auditEntries/{id}")
}

fn refuse(name: &str, pattern: &str) -> Reason {
    let mut shown: String = name.chars().take(200).collect();
    if shown.len() < name.len() {
        shown.push('…');
    }
    Reason::new(format!(
        "`{}` does not match `{pattern}`: write it so",
        shown.escape_debug()
    ))
}

/// Parses `services/{service}`.
pub fn parse_service(name: &str) -> Result<ServiceId, Reason> {
    match segments(name).as_slice() {
        ["services", id] => ServiceId::parse(*id),
        _ => Err(refuse(name, "services/{service}")),
    }
}

/// Parses `services/{service}/versions/{number}`.
pub fn parse_version(name: &str) -> Result<(ServiceId, VersionNumber), Reason> {
    match segments(name).as_slice() {
        ["services", id, "versions", number] => Ok((
            ServiceId::parse(*id)?,
            VersionNumber::new(parse_number(number)?)?,
        )),
        _ => Err(refuse(name, "services/{service}/versions/{number}")),
    }
}

/// Parses `services/{service}/traffic`.
pub fn parse_traffic(name: &str) -> Result<ServiceId, Reason> {
    match segments(name).as_slice() {
        ["services", id, "traffic"] => ServiceId::parse(*id),
        _ => Err(refuse(name, "services/{service}/traffic")),
    }
}

/// Parses `services/{service}/traffic/revisions/{number}`.
pub fn parse_traffic_revision(name: &str) -> Result<(ServiceId, i32), Reason> {
    match segments(name).as_slice() {
        ["services", id, "traffic", "revisions", number] => {
            Ok((ServiceId::parse(*id)?, parse_number(number)?))
        }
        _ => Err(refuse(
            name,
            "services/{service}/traffic/revisions/{number}",
        )),
    }
}

/// Parses `nodes/{node}`.
pub fn parse_node(name: &str) -> Result<NodeName, Reason> {
    match segments(name).as_slice() {
        ["nodes", id] => NodeName::parse(*id),
        _ => Err(refuse(name, "nodes/{node}")),
    }
}

/// Parses `tokens/{token}`.
pub fn parse_token(name: &str) -> Result<TokenId, Reason> {
    match segments(name).as_slice() {
        ["tokens", id] => TokenId::parse(id).map_err(|_| {
            Reason::new("holds no id of a token: `cless token list` has the ids".to_owned())
        }),
        _ => Err(refuse(name, "tokens/{token}")),
    }
}

/// Parses `nodes/{node}`; `None` for `nodes/-`, which means all nodes (AIP-159).
pub fn parse_node_or_all(name: &str) -> Result<Option<NodeName>, Reason> {
    if name == "nodes/-" {
        return Ok(None);
    }
    parse_node(name).map(Some)
}

/// No valid name has more than five segments; the limit bounds the work for a hostile name.
fn segments(name: &str) -> Vec<&str> {
    name.splitn(6, '/').collect()
}

fn parse_number(text: &str) -> Result<i32, Reason> {
    // `+1` and `01` are numbers too, but a name has one spelling.
    match text.parse::<i32>() {
        Ok(number) if number >= 1 && number.to_string() == text => Ok(number),
        _ => Err(Reason::new(format!(
            "`{}` is not a number from 1: write it in digits",
            text.chars().take(40).collect::<String>().escape_debug()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_as_written() {
        let id = ServiceId::parse("hello").unwrap();
        let n = VersionNumber::new(7).unwrap();
        let on = NodeName::parse("n1").unwrap();
        assert_eq!(parse_service(&service(&id)).unwrap(), id);
        assert_eq!(parse_version(&version(&id, n)).unwrap(), (id.clone(), n));
        assert_eq!(parse_traffic(&traffic(&id)).unwrap(), id);
        assert_eq!(
            parse_traffic_revision(&traffic_revision(&id, 3)).unwrap(),
            (id, 3)
        );
        assert_eq!(parse_node(&node(&on)).unwrap(), on);
        assert_eq!(parse_node_or_all("nodes/-").unwrap(), None);
    }

    #[test]
    fn other_spellings_are_refused() {
        for bad in [
            "",
            "hello",
            "services/",
            "services/hello/",
            "/services/hello",
            "services/Hello",
        ] {
            assert!(parse_service(bad).is_err(), "{bad}");
        }
        for bad in [
            "services/a/versions/0",
            "services/a/versions/01",
            "services/a/versions/+1",
            "services/a/versions/x",
            "services/a/versions/99999999999",
        ] {
            assert!(parse_version(bad).is_err(), "{bad}");
        }
        assert!(parse_traffic("services/a").is_err());
    }
}
