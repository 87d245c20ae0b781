//! Each method of the API that takes one request, called by the type of that request.

use cless_proto::v1 as pb;
use pb::audit_service_client::AuditServiceClient;
use pb::catalog_service_client::CatalogServiceClient;
use pb::node_service_client::NodeServiceClient;
use pb::route_feed_service_client::RouteFeedServiceClient;
use pb::token_service_client::TokenServiceClient;
use pb::traffic_service_client::TrafficServiceClient;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

/// A request of one method.
pub(crate) trait Call: std::fmt::Debug {
    /// Name of the type, which is that of the method with `Request` behind it.
    const REQUEST: &'static str;
    type Response;

    /// Makes the call with a token; `None` presents none.
    async fn send_as(self, channel: Channel, token: Option<&str>)
    -> Result<Self::Response, Status>;
}

macro_rules! calls {
    ($($client:ident { $($method:ident($request:ident) -> $response:ty;)* })*) => {$($(
        impl Call for pb::$request {
            const REQUEST: &'static str = stringify!($request);
            type Response = $response;

            async fn send_as(
                self,
                channel: Channel,
                token: Option<&str>,
            ) -> Result<$response, Status> {
                let mut request = Request::new(self);
                if let Some(token) = token {
                    let bearer = format!("Bearer {token}").parse().expect("ASCII");
                    request.metadata_mut().insert("authorization", bearer);
                }
                $client::new(channel).$method(request).await.map(Response::into_inner)
            }
        }
    )*)*};
}

calls! {
    CatalogServiceClient {
        create_service(CreateServiceRequest) -> pb::Service;
        get_service(GetServiceRequest) -> pb::Service;
        list_services(ListServicesRequest) -> pb::ListServicesResponse;
        update_service(UpdateServiceRequest) -> pb::Service;
        delete_service(DeleteServiceRequest) -> ();
        create_version(CreateVersionRequest) -> pb::Version;
        get_version(GetVersionRequest) -> pb::Version;
        list_versions(ListVersionsRequest) -> pb::ListVersionsResponse;
        verify_version(VerifyVersionRequest) -> pb::Version;
        cancel_verification(CancelVerificationRequest) -> pb::Version;
        reset_version_image(ResetVersionImageRequest) -> pb::Version;
        delete_version(DeleteVersionRequest) -> ();
    }
    TrafficServiceClient {
        get_traffic(GetTrafficRequest) -> pb::Traffic;
        update_traffic(UpdateTrafficRequest) -> pb::Traffic;
        list_traffic_revisions(ListTrafficRevisionsRequest) -> pb::ListTrafficRevisionsResponse;
        rollback_traffic(RollbackTrafficRequest) -> pb::Traffic;
    }
    NodeServiceClient {
        list_nodes(ListNodesRequest) -> pb::ListNodesResponse;
        get_node(GetNodeRequest) -> pb::Node;
        list_instances(ListInstancesRequest) -> pb::ListInstancesResponse;
        check_propagation(CheckPropagationRequest) -> pb::CheckPropagationResponse;
        create_join_token(CreateJoinTokenRequest) -> pb::CreateJoinTokenResponse;
        drain_node(DrainNodeRequest) -> pb::Node;
        undrain_node(UndrainNodeRequest) -> pb::Node;
        remove_node(RemoveNodeRequest) -> ();
    }
    TokenServiceClient {
        create_token(CreateTokenRequest) -> pb::CreateTokenResponse;
        list_tokens(ListTokensRequest) -> pb::ListTokensResponse;
        revoke_token(RevokeTokenRequest) -> pb::Token;
        get_current_token(GetCurrentTokenRequest) -> pb::Token;
    }
    AuditServiceClient {
        list_audit_entries(ListAuditEntriesRequest) -> pb::ListAuditEntriesResponse;
        watch_audit_entries(WatchAuditEntriesRequest) -> Streaming<pb::WatchAuditEntriesResponse>;
    }
    RouteFeedServiceClient {
        watch_routes(WatchRoutesRequest) -> Streaming<pb::WatchRoutesResponse>;
        report_node_status(ReportNodeStatusRequest) -> ();
        list_retained_images(ListRetainedImagesRequest) -> pb::ListRetainedImagesResponse;
    }
}
