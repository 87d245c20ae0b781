//! Principals: who makes a call or a change, and what they may do.
//!
//! Laws: a role includes the rights of the roles below it; a principal without a scope may use every
//! service and host; a scope never permits a service or a host that none of its patterns matches.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use cless_proto::token::TokenId;
use serde::{Deserialize, Serialize};

use super::error::{Reason, Violations};
use super::host::HostName;
use super::id::{NodeName, ServiceId};
use super::name;

/// Patterns of each kind in a scope.
const PATTERNS_MAX: usize = 100;

/// The rights of a token; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads: every Get, List and Watch.
    Viewer,
    /// Also changes services, versions and traffic.
    Deployer,
    /// Also manages tokens and nodes, and reads the audit log.
    Admin,
}

impl Role {
    /// All roles, the weakest first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Deployer, Self::Admin];

    /// The name in the database, in messages and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Deployer => "deployer",
            Self::Admin => "admin",
        }
    }

    /// Parses a name.
    pub fn parse(text: &str) -> Result<Self, Reason> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| {
                let shown = text.chars().take(40).collect::<String>();
                Reason::new(format!(
                    "`{}` is not a role: give viewer, deployer or admin",
                    shown.escape_debug()
                ))
            })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The id of a service, or the beginning of ids: `web`, `team-*`, `*`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct ServicePattern(String);

impl ServicePattern {
    fn parse(text: String) -> Result<Self, Reason> {
        match text.strip_suffix('*') {
            None => ServiceId::parse(text.as_str()).map(|_| Self(text)),
            Some("") => Ok(Self(text)),
            // A prefix may end with a dash, a label may not.
            Some(prefix) => match ServiceId::parse(format!("{prefix}0")) {
                Ok(_) => Ok(Self(text)),
                Err(reason) => Err(Reason::new(format!(
                    "the part before `*` is no beginning of a service's id: {reason}"
                ))),
            },
        }
    }

    fn matches(&self, id: &ServiceId) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => id.as_str().starts_with(prefix),
            None => id.as_str() == self.0,
        }
    }
}

/// A host, or all hosts below a name: `shop.example.org`, `*.example.org`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct HostPattern(String);

impl HostPattern {
    fn parse(text: String) -> Result<Self, Reason> {
        HostName::parse(text.strip_prefix("*.").unwrap_or(&text)).map(|_| Self(text))
    }

    fn matches(&self, host: &HostName) -> bool {
        match self.0.strip_prefix("*.") {
            Some(parent) => host
                .as_str()
                .strip_suffix(parent)
                .is_some_and(|labels| labels.ends_with('.')),
            None => host.as_str() == self.0,
        }
    }
}

/// The limits of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    services: Vec<ServicePattern>,
    hosts: Vec<HostPattern>,
}

impl Scope {
    /// Validates patterns of services and of extra hosts; adds refusals at `field` to `violations`.
    pub fn new(
        field: &str,
        services: Vec<String>,
        hosts: Vec<String>,
        violations: &mut Violations,
    ) -> Option<Self> {
        let before = violations.len();
        if services.is_empty() {
            violations.push(
                format!("{field}.services"),
                "is empty: name services, such as `web` or `team-*`, or give no scope at all",
            );
        }
        for (name, given) in [("services", services.len()), ("hosts", hosts.len())] {
            if given > PATTERNS_MAX {
                let reason =
                    format!("{given} patterns are given, at most {PATTERNS_MAX} are taken");
                violations.push(format!("{field}.{name}"), reason);
            }
        }
        let services = services.into_iter().enumerate().filter_map(|(at, text)| {
            violations.take(
                format!("{field}.services[{at}]"),
                ServicePattern::parse(text),
            )
        });
        let services = services.take(PATTERNS_MAX).collect();
        let hosts = hosts.into_iter().enumerate().filter_map(|(at, text)| {
            violations.take(format!("{field}.hosts[{at}]"), HostPattern::parse(text))
        });
        let hosts = hosts.take(PATTERNS_MAX).collect();
        (violations.len() == before).then_some(Self { services, hosts })
    }

    /// Whether a pattern matches the service.
    #[must_use]
    pub fn allows_service(&self, id: &ServiceId) -> bool {
        self.services.iter().any(|pattern| pattern.matches(id))
    }

    /// Whether a pattern matches the extra host.
    #[must_use]
    pub fn allows_host(&self, host: &HostName) -> bool {
        self.hosts.iter().any(|pattern| pattern.matches(host))
    }

    /// The patterns of services, as given.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.services.iter().map(|pattern| pattern.0.as_str())
    }

    /// The patterns of hosts, as given.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.hosts.iter().map(|pattern| pattern.0.as_str())
    }
}

/// Who makes a call or a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// A call with a token.
    Token {
        /// Its public part.
        id: TokenId,
        /// Its rights.
        role: Role,
        /// Its limits; `None`: none.
        scope: Option<Arc<Scope>>,
    },
    /// A node with its certificate.
    Node {
        /// Random id of the node.
        id: String,
        /// Name that the certificate was issued for.
        name: NodeName,
    },
    /// The control plane itself.
    System,
    /// Any caller of a control plane that authenticates nobody (`--insecure`).
    Insecure,
    /// A caller without a credential, of a method that is open to anybody.
    Anonymous,
}

impl Principal {
    /// The limits of the principal; `None`: none.
    #[must_use]
    pub fn scope(&self) -> Option<&Scope> {
        match self {
            Self::Token { scope, .. } => scope.as_deref(),
            Self::Node { .. } | Self::System | Self::Insecure | Self::Anonymous => None,
        }
    }

    /// Whether the principal may use the service, as far as its scope goes.
    #[must_use]
    pub fn allows_service(&self, id: &ServiceId) -> bool {
        self.scope().is_none_or(|scope| scope.allows_service(id))
    }

    /// Whether the principal may give the extra host to a service.
    #[must_use]
    pub fn allows_host(&self, host: &HostName) -> bool {
        self.scope().is_none_or(|scope| scope.allows_host(host))
    }

    /// Whether the identity of the caller was verified.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        matches!(self, Self::Token { .. } | Self::Node { .. })
    }
}

/// The resource name, `system` or `insecure`; empty for an anonymous caller.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token { id, .. } => f.write_str(&name::token(id)),
            Self::Node { name, .. } => f.write_str(&name::node(name)),
            Self::System => f.write_str("system"),
            Self::Insecure => f.write_str("insecure"),
            Self::Anonymous => Ok(()),
        }
    }
}

/// The origin of a change, for the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Who.
    pub principal: Principal,
    /// Address of the caller; `None`: the control plane itself.
    pub peer: Option<IpAddr>,
    /// Path of the call, or name of a task of the control plane.
    pub method: Arc<str>,
}

impl Origin {
    /// The origin of what a task of the control plane does by itself.
    #[must_use]
    pub fn system(task: &str) -> Self {
        Self {
            principal: Principal::System,
            peer: None,
            method: task.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scope(services: &[&str], hosts: &[&str]) -> Result<Scope, super::super::Error> {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        let mut violations = Violations::new();
        let read = Scope::new(
            "token.scope",
            owned(services),
            owned(hosts),
            &mut violations,
        );
        violations.finish()?;
        Ok(read.expect("neither a scope nor violations"))
    }

    fn id(text: &str) -> ServiceId {
        ServiceId::parse(text).unwrap()
    }

    fn host(text: &str) -> HostName {
        HostName::parse(text).unwrap()
    }

    #[test]
    fn a_scope_matches_ids_and_prefixes() {
        let scope = scope(&["web", "team-*"], &["shop.example.org", "*.shop.example"]).unwrap();
        for yes in ["web", "team-a", "team-a-b"] {
            assert!(scope.allows_service(&id(yes)), "{yes}");
        }
        for no in ["web2", "we", "team", "xteam-a"] {
            assert!(!scope.allows_service(&id(no)), "{no}");
        }
        for yes in ["shop.example.org", "a.shop.example", "b.a.shop.example"] {
            assert!(scope.allows_host(&host(yes)), "{yes}");
        }
        for no in [
            "shop.example",
            "xshop.example",
            "a.shop.example.org",
            "example.org",
        ] {
            assert!(!scope.allows_host(&host(no)), "{no}");
        }
        let everything = super::tests::scope(&["*"], &[]).unwrap();
        assert!(everything.allows_service(&id("any")) && !everything.allows_host(&host("a.b")));
    }

    #[test]
    fn invalid_scopes_are_refused_by_pattern() {
        for (services, hosts, field) in [
            (&[][..], &[][..], "token.scope.services"),
            (&["Web"], &[], "token.scope.services[0]"),
            (&["a", "*a"], &[], "token.scope.services[1]"),
            (&["a*b"], &[], "token.scope.services[0]"),
            (&["-*"], &[], "token.scope.services[0]"),
            (&["a"], &["*"], "token.scope.hosts[0]"),
            (&["a"], &["a.*.b"], "token.scope.hosts[0]"),
            (&["a"], &["*.A.b"], "token.scope.hosts[0]"),
            (&["a"], &["*.*.b"], "token.scope.hosts[0]"),
        ] {
            let error = scope(services, hosts).expect_err(field);
            assert_eq!(error.violations()[0].field, field, "{error}");
        }
        let many = vec!["a"; PATTERNS_MAX + 1];
        assert!(scope(&many, &[]).is_err());
    }

    #[test]
    fn roles_are_ordered_and_read_back() {
        assert!(Role::Viewer < Role::Deployer && Role::Deployer < Role::Admin);
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Ok(role));
        }
        assert!(Role::parse("root").is_err());
    }

    proptest! {
        #[test]
        fn a_prefix_matches_exactly_what_begins_with_it(
            prefix in "[a-z][a-z0-9]{0,5}",
            service in "[a-z][a-z0-9]{0,8}",
        ) {
            let scope = scope(&[&format!("{prefix}*")], &[]).unwrap();
            prop_assert_eq!(scope.allows_service(&id(&service)), service.starts_with(&prefix));
        }

        #[test]
        fn no_pattern_panics_and_a_scope_survives_the_database(
            service in "\\PC{0,20}", host in "\\PC{0,20}",
        ) {
            if let Ok(scope) = scope(&[&service], &[&host]) {
                let stored = serde_json::to_string(&scope).unwrap();
                prop_assert_eq!(serde_json::from_str::<Scope>(&stored).unwrap(), scope);
            }
        }
    }
}
