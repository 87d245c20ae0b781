//! Invalid input to the methods of nodes.

use super::{Checker, with};
use cless_proto::v1 as pb;
use tonic::Code;

pub(super) async fn rows(checker: &mut Checker<'_>) {
    let get = |name: &str| pb::GetNodeRequest { name: name.into() };
    let instances = |parent: &str| pb::ListInstancesRequest {
        parent: parent.into(),
        ..Default::default()
    };
    for (page_size, token, field) in [(-1, "", "page_size"), (0, "x", "page_token")] {
        let page_token = String::from(token);
        let request = pb::ListInstancesRequest {
            page_size,
            page_token: page_token.clone(),
            ..instances("nodes/-")
        };
        checker.bad(request, field).await;
        let request = pb::ListNodesRequest {
            page_size,
            page_token,
            ..Default::default()
        };
        checker.bad(request, field).await;
    }
    for name in ["", "n1", "nodes/", "nodes/UPPER", "nodes/a/b"] {
        checker.bad(get(name), "name").await;
        checker.bad(instances(name), "parent").await;
    }
    let missing = "nodes/missing";
    checker.refused(get(missing), Code::NotFound, "").await;
    let of_missing = instances(missing);
    checker.refused(of_missing, Code::NotFound, "").await;
    let id_alone = with(instances("nodes/-"), |r| r.service = "hello".into());
    checker.bad(id_alone, "service").await;
    for revision in [-1, i64::MAX] {
        let request = pb::CheckPropagationRequest { revision };
        checker.bad(request, "revision").await;
    }
}
