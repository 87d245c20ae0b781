//! Reads and writes tokens and entries of the audit log.

use super::{read_duration, read_timestamp, timestamp};
use crate::domain::{Role, Scope, Violations, name};
use crate::grpc::validated;
use crate::store::{AuditEntry, AuditQuery, Token};
use cless_proto::v1 as pb;
use std::time::Duration;
use tonic::Status;

/// Bytes of a description.
const DESCRIPTION_MAX: usize = 200;
/// Bytes of a principal in a query.
const PRINCIPAL_MAX: usize = 200;
const TTL_MIN: Duration = Duration::from_secs(60);
/// A hundred years; an absent ttl says `never` better.
const TTL_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The rights of a token to create.
pub(crate) struct TokenRights {
    pub(crate) role: Role,
    pub(crate) scope: Option<Scope>,
    pub(crate) description: String,
    pub(crate) ttl: Option<Duration>,
}

/// The token to create.
pub(crate) fn new_token(
    token: Option<pb::Token>,
    ttl: Option<prost_types::Duration>,
    violations: &mut Violations,
) -> Option<TokenRights> {
    let Some(token) = token else {
        violations.push("token", "is missing: send one with its role");
        return None;
    };
    let before = violations.len();
    let role = role(token.role, violations);
    if token.description.len() > DESCRIPTION_MAX {
        let reason = format!(
            "has {} bytes, at most {DESCRIPTION_MAX} are taken: shorten it",
            token.description.len()
        );
        violations.push("token.description", reason);
    }
    let scoped = token.scope.is_some();
    let scope = token
        .scope
        .and_then(|scope| Scope::new("token.scope", scope.services, scope.hosts, violations));
    if scoped && role == Some(Role::Admin) {
        violations.push(
            "token.scope",
            "an administrator manages the whole cluster: leave the scope out, or choose \
             ROLE_DEPLOYER or ROLE_VIEWER",
        );
    }
    let ttl = read_duration("ttl", ttl, violations);
    if let Some(ttl) = ttl
        && !(TTL_MIN..=TTL_MAX).contains(&ttl)
    {
        let reason = "is out of range: give 1 min to 100 years, or leave it out for a token that \
                      does not expire";
        violations.push("ttl", reason);
    }
    let role = role.filter(|_| violations.len() == before)?;
    Some(TokenRights {
        role,
        scope,
        description: token.description,
        ttl,
    })
}

fn role(role: i32, violations: &mut Violations) -> Option<Role> {
    use pb::token::Role as Given;
    let read = match Given::try_from(role) {
        Ok(Given::Viewer) => Some(Role::Viewer),
        Ok(Given::Deployer) => Some(Role::Deployer),
        Ok(Given::Admin) => Some(Role::Admin),
        Ok(Given::Unspecified) | Err(_) => None,
    };
    if read.is_none() {
        let reason = format!("{role} is not a role: give ROLE_VIEWER, ROLE_DEPLOYER or ROLE_ADMIN");
        violations.push("token.role", reason);
    }
    read
}

/// A token, without its secret.
pub(crate) fn token(token: &Token) -> pb::Token {
    use pb::token::Role as Shown;
    let role = match token.role {
        Role::Viewer => Shown::Viewer,
        Role::Deployer => Shown::Deployer,
        Role::Admin => Shown::Admin,
    };
    let scope = token.scope.as_ref().map(|scope| pb::token::Scope {
        services: scope.services().map(str::to_owned).collect(),
        hosts: scope.hosts().map(str::to_owned).collect(),
    });
    pb::Token {
        name: name::token(&token.id),
        description: token.description.clone(),
        role: role.into(),
        scope,
        create_time: Some(timestamp(token.create_time)),
        creator: token.creator.clone(),
        expire_time: token.expire_time.map(timestamp),
        last_use_time: token.last_use_time.map(timestamp),
        revoke_time: token.revoke_time.map(timestamp),
    }
}

/// The entries that a request selects.
pub(crate) fn audit_query(
    service: &str,
    principal: String,
    start_time: Option<prost_types::Timestamp>,
) -> Result<AuditQuery, Status> {
    let mut violations = Violations::new();
    let service = if service.is_empty() {
        None
    } else {
        violations.take("service", name::parse_service(service))
    };
    if principal.len() > PRINCIPAL_MAX {
        violations.push(
            "principal",
            "is longer than any principal: give `tokens/{token}`, `nodes/{node}` or `system`",
        );
    }
    let query = AuditQuery {
        service,
        principal: Some(principal).filter(|principal| !principal.is_empty()),
        since: read_timestamp(start_time),
    };
    validated(Some(query), violations)
}

/// An entry of the audit log.
pub(crate) fn audit_entry(entry: AuditEntry) -> pb::AuditEntry {
    let changes = entry.changes.into_iter();
    let changes = changes.map(|change| pb::audit_entry::FieldChange {
        field: change.field,
        before: change.before.unwrap_or_default(),
        after: change.after.unwrap_or_default(),
    });
    pb::AuditEntry {
        name: name::audit_entry(entry.id),
        time: Some(timestamp(entry.time)),
        principal: entry.principal,
        peer: entry.peer,
        method: entry.method,
        resource: entry.resource,
        changes: changes.collect(),
        code: entry.code,
        message: entry.message,
        count: entry.count,
    }
}
