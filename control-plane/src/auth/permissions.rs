//! The rights that each call needs: the only table of them. PURE.
//!
//! Law: a call without a row is refused. A test compares the rows with the descriptors of the API.

use crate::domain::Role;

/// The callers that a method serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody: the content of the call is the proof of a right.
    Open,
    /// Tokens with this role or a higher one.
    Role(Role),
    /// Nodes, each as itself.
    Node,
    /// Nodes, and tokens with this role or a higher one but without a scope.
    NodeOrRole(Role),
}

/// The rights that one method needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Permission {
    /// The path of its calls.
    pub(crate) method: &'static str,
    pub(crate) access: Access,
    /// Whether its response is a stream, which ends with the credential of its caller.
    pub(crate) streams: bool,
}

const fn unary(method: &'static str, access: Access) -> Permission {
    Permission {
        method,
        access,
        streams: false,
    }
}

const fn stream(method: &'static str, access: Access) -> Permission {
    Permission {
        method,
        access,
        streams: true,
    }
}

const VIEWER: Access = Access::Role(Role::Viewer);
const DEPLOYER: Access = Access::Role(Role::Deployer);
const ADMIN: Access = Access::Role(Role::Admin);

/// All methods. Health and reflection are no part of it: they are served before it, to anybody.
#[rustfmt::skip]
pub(crate) const PERMISSIONS: &[Permission] = &[
    unary("/cless.v1.CatalogService/CreateService", DEPLOYER),
    unary("/cless.v1.CatalogService/GetService", VIEWER),
    unary("/cless.v1.CatalogService/ListServices", VIEWER),
    unary("/cless.v1.CatalogService/UpdateService", DEPLOYER),
    unary("/cless.v1.CatalogService/DeleteService", DEPLOYER),
    unary("/cless.v1.CatalogService/CreateVersion", DEPLOYER),
    unary("/cless.v1.CatalogService/GetVersion", VIEWER),
    unary("/cless.v1.CatalogService/ListVersions", VIEWER),
    unary("/cless.v1.CatalogService/VerifyVersion", DEPLOYER),
    unary("/cless.v1.CatalogService/CancelVerification", DEPLOYER),
    unary("/cless.v1.CatalogService/ResetVersionImage", DEPLOYER),
    unary("/cless.v1.CatalogService/DeleteVersion", DEPLOYER),
    unary("/cless.v1.TrafficService/GetTraffic", VIEWER),
    unary("/cless.v1.TrafficService/UpdateTraffic", DEPLOYER),
    unary("/cless.v1.TrafficService/ListTrafficRevisions", VIEWER),
    unary("/cless.v1.TrafficService/RollbackTraffic", DEPLOYER),
    unary("/cless.v1.NodeService/ListNodes", VIEWER),
    unary("/cless.v1.NodeService/GetNode", VIEWER),
    unary("/cless.v1.NodeService/ListInstances", VIEWER),
    unary("/cless.v1.NodeService/CheckPropagation", VIEWER),
    unary("/cless.v1.NodeService/CreateJoinToken", ADMIN),
    unary("/cless.v1.NodeService/DrainNode", ADMIN),
    unary("/cless.v1.NodeService/UndrainNode", ADMIN),
    unary("/cless.v1.NodeService/RemoveNode", ADMIN),
    unary("/cless.v1.TokenService/CreateToken", ADMIN),
    unary("/cless.v1.TokenService/ListTokens", ADMIN),
    unary("/cless.v1.TokenService/RevokeToken", ADMIN),
    unary("/cless.v1.TokenService/GetCurrentToken", VIEWER),
    unary("/cless.v1.AuditService/ListAuditEntries", ADMIN),
    stream("/cless.v1.AuditService/WatchAuditEntries", ADMIN),
    unary("/cless.v1.EnrollmentService/EnrollNode", Access::Open),
    unary("/cless.v1.EnrollmentService/RenewCertificate", Access::Open),
    stream("/cless.v1.RouteFeedService/StreamRoutes", Access::Node),
    stream("/cless.v1.RouteFeedService/StreamControl", Access::Node),
    stream("/cless.v1.RouteFeedService/WatchRoutes", VIEWER),
    unary("/cless.v1.RouteFeedService/ReportNodeStatus", Access::Node),
    unary("/cless.v1.RouteFeedService/ListRetainedImages", Access::NodeOrRole(Role::Viewer)),
];

/// The row of a method; `None`: nobody may call it.
pub(crate) fn of(method: &str) -> Option<&'static Permission> {
    PERMISSIONS.iter().find(|row| row.method == method)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;
    use prost_types::FileDescriptorSet;
    use std::collections::BTreeMap;

    /// Path and whether it streams, of all methods of the API.
    fn methods() -> BTreeMap<String, bool> {
        let set = FileDescriptorSet::decode(cless_proto::FILE_DESCRIPTOR_SET).expect("descriptors");
        let mut found = BTreeMap::new();
        for file in set.file {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    found.insert(path, method.server_streaming());
                }
            }
        }
        found
    }

    #[test]
    fn every_method_has_exactly_one_row() {
        let rows = PERMISSIONS
            .iter()
            .map(|row| (row.method.to_owned(), row.streams));
        let rows: BTreeMap<_, _> = rows.collect();
        assert_eq!(rows.len(), PERMISSIONS.len(), "a method has two rows");
        assert_eq!(rows, methods());
    }

    #[test]
    fn reads_are_open_to_viewers_and_changes_are_not() {
        for row in PERMISSIONS {
            let name = row.method.rsplit('/').next().unwrap_or_default();
            let reads = ["Get", "List", "Watch", "Check"];
            let reads = reads.iter().any(|verb| name.starts_with(verb));
            let everybody = matches!(
                row.access,
                Access::Role(Role::Viewer) | Access::NodeOrRole(Role::Viewer)
            );
            let secret =
                name.contains("Token") && name != "GetCurrentToken" || name.contains("Audit");
            assert_eq!(everybody, reads && !secret, "{}", row.method);
        }
        assert_eq!(of("/cless.v1.CatalogService/getService"), None);
        assert_eq!(of(""), None);
    }
}
