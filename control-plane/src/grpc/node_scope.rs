//! The parts of nodes that the scope of a caller shows.

use crate::auth::Caller;
use crate::domain::ServiceId;
use cless_proto::v1 as pb;

/// Whether the scope of a caller has a service, named `services/{service}` or by its id.
pub(super) fn sees(caller: &Caller, service: &str) -> bool {
    let id = service.strip_prefix("services/").unwrap_or(service);
    caller.principal().scope().is_none()
        || ServiceId::parse(id).is_ok_and(|id| caller.principal().allows_service(&id))
}

/// A node without the services outside of the scope of the caller.
pub(super) fn visible(mut node: pb::Node, caller: &Caller) -> pb::Node {
    node.quarantined
        .retain(|route| sees(caller, &route.service));
    node
}
