//! Names and destinations of a container: `/etc/hosts`, name servers, and servers on the node.
//!
//! Invariants: no text can inject a line or an option; no address is loopback, which in a container
//! is the container itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cless_proto::endpoint::{Endpoint, is_name};
use serde::{Deserialize, Serialize};

use super::list::{over, read_list};
use crate::domain::error::{Reason, Violations};

const HOSTS_MAX: usize = 64;
/// `MAXNS` of resolv.conf(5).
const DNS_MAX: usize = 3;
const EGRESS_MAX: usize = 16;
/// The engine's name of the node, as in `docker run --add-host db:host-gateway`.
const HOST_GATEWAY: &str = "host-gateway";

/// Additional lines of `/etc/hosts`: addresses by host name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExtraHosts(BTreeMap<String, String>);

impl ExtraHosts {
    /// Validates the lines at `field`; adds refusals to `violations`.
    pub(super) fn new(
        field: &str,
        input: BTreeMap<String, String>,
        violations: &mut Violations,
    ) -> Option<Self> {
        if input.len() > HOSTS_MAX {
            violations.push(field, over(input.len(), HOSTS_MAX));
            return None;
        }
        let before = violations.len();
        let mut read = BTreeMap::new();
        for (name, address) in input {
            let shown: String = name.chars().take(80).collect();
            let at = format!("{field}[{}]", shown.escape_debug());
            if !is_name(&name) {
                violations.push(
                    at,
                    "is not a host name: use labels of letters, digits, `-` and `_` between dots",
                );
                continue;
            }
            let address = violations.take(at, host_address(&address));
            read.extend(address.map(|address| (name, address)));
        }
        (violations.len() == before).then_some(Self(read))
    }

    /// Addresses by host name.
    #[must_use]
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// The size of all texts in bytes.
    pub(super) fn text_len(&self) -> usize {
        let lines = self.0.iter();
        lines
            .map(|(name, address)| name.len() + address.len())
            .sum()
    }
}

fn host_address(text: &str) -> Result<String, Reason> {
    if text == HOST_GATEWAY {
        return Ok(HOST_GATEWAY.to_owned());
    }
    let address = text.parse::<IpAddr>().map_err(|_| {
        Reason::new(format!(
            "its address is not an IP address: give one such as `10.0.0.5`, or `{HOST_GATEWAY}` for the node"
        ))
    })?;
    Ok(address.to_string())
}

/// Name servers, in the order in which they are asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Dns(Vec<IpAddr>);

impl Dns {
    /// Validates the addresses at `field`; adds refusals to `violations`.
    pub(super) fn new(
        field: &str,
        input: Vec<String>,
        violations: &mut Violations,
    ) -> Option<Self> {
        read_list(field, &input, DNS_MAX, violations, name_server).map(Self)
    }

    /// The addresses, in the order in which they are asked.
    #[must_use]
    pub fn as_slice(&self) -> &[IpAddr] {
        &self.0
    }
}

fn name_server(text: &str) -> Result<IpAddr, Reason> {
    let address = text.parse::<IpAddr>().map_err(|_| {
        Reason::new("is not an IP address: give the address of a name server, such as `10.0.0.53`")
    })?;
    if address.is_loopback() || address.is_unspecified() {
        return Err(Reason::new(
            "is loopback, which in a container is the container itself: give another address of the name server",
        ));
    }
    Ok(address)
}

/// TCP destinations on the node, as `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Egress(BTreeSet<String>);

impl Egress {
    /// Validates the destinations at `field`; adds refusals to `violations`.
    pub(super) fn new(
        field: &str,
        input: Vec<String>,
        violations: &mut Violations,
    ) -> Option<Self> {
        let read = |text: &str| {
            let endpoint = text.parse::<Endpoint>();
            let endpoint = endpoint.map(|endpoint| endpoint.to_string());
            endpoint.map_err(|error| Reason::new(error.to_string()))
        };
        read_list(field, &input, EGRESS_MAX, violations, read).map(Self)
    }

    /// The destinations in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields<T>(read: impl FnOnce(&mut Violations) -> Option<T>) -> Result<T, Vec<String>> {
        let mut violations = Violations::new();
        let read = read(&mut violations);
        match violations.finish() {
            Ok(()) => Ok(read.expect("neither a value nor violations")),
            Err(error) => Err(error.violations().iter().map(|v| v.field.clone()).collect()),
        }
    }

    fn hosts(lines: &[(&str, &str)]) -> Result<ExtraHosts, Vec<String>> {
        let lines = lines
            .iter()
            .map(|(name, at)| ((*name).to_owned(), (*at).to_owned()));
        fields(|violations| ExtraHosts::new("extra_hosts", lines.collect(), violations))
    }

    #[test]
    fn a_host_line_is_a_name_and_an_address() {
        for (name, address) in [
            ("db", "10.0.0.5"),
            ("db.internal", "fd00::5"),
            ("host.docker.internal", "host-gateway"),
            ("a_b", "127.0.0.1"),
        ] {
            assert!(hosts(&[(name, address)]).is_ok(), "{name} {address}");
        }
        for (name, address) in [
            ("", "10.0.0.5"),
            ("a b", "10.0.0.5"),
            ("a\n10.0.0.6 b", "10.0.0.5"),
            ("db:10.0.0.6", "10.0.0.5"),
            ("db", ""),
            ("db", "db2"),
            ("db", "10.0.0.5 evil"),
            ("db", "10.0.0.5:5432"),
        ] {
            let field = format!("extra_hosts[{}]", name.escape_debug());
            assert_eq!(
                hosts(&[(name, address)]),
                Err(vec![field]),
                "{name:?} {address:?}"
            );
        }
    }

    #[test]
    fn a_name_server_is_an_address_outside_of_the_container() {
        let dns = |given: &[&str]| {
            let given = given.iter().map(|text| (*text).to_owned()).collect();
            fields(|violations| Dns::new("dns", given, violations))
        };
        assert!(dns(&["10.0.0.53", "fd00::53"]).is_ok());
        for bad in [
            "",
            "127.0.0.53",
            "::1",
            "0.0.0.0",
            "resolver",
            "10.0.0.53:53",
        ] {
            assert_eq!(
                dns(&["10.0.0.53", bad]),
                Err(vec!["dns[1]".to_owned()]),
                "{bad}"
            );
        }
        assert_eq!(dns(&["10.0.0.53"; 4]), Err(vec!["dns".to_owned()]));
    }

    #[test]
    fn a_destination_has_one_spelling() {
        let egress = |given: &[&str]| {
            let given = given.iter().map(|text| (*text).to_owned()).collect();
            fields(|violations| Egress::new("egress", given, violations))
        };
        let read = egress(&["DB:5432", "db:5432"]).unwrap();
        assert_eq!(read.iter().collect::<Vec<_>>(), ["db:5432"]);
        for bad in ["db", "localhost:5432", "[fd00::5]:5432", "*:5432"] {
            assert_eq!(egress(&[bad]), Err(vec!["egress[0]".to_owned()]), "{bad}");
        }
        assert_eq!(egress(&["db:1"; 17]), Err(vec!["egress".to_owned()]));
    }
}
