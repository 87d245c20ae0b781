//! Each method of the API that takes one request, called by the type of that request.

use cless_proto::v1 as pb;
use pb::catalog_service_client::CatalogServiceClient;
use pb::node_service_client::NodeServiceClient;
use pb::route_feed_service_client::RouteFeedServiceClient;
use pb::traffic_service_client::TrafficServiceClient;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

/// A request of one method.
pub(crate) trait Call: std::fmt::Debug {
    /// Name of the type, which is that of the method with `Request` behind it.
    const REQUEST: &'static str;
    type Response;

    async fn send(self, channel: Channel) -> Result<Self::Response, Status>;
}

macro_rules! calls {
    ($($client:ident { $($method:ident($request:ident) -> $response:ty;)* })*) => {$($(
        impl Call for pb::$request {
            const REQUEST: &'static str = stringify!($request);
            type Response = $response;

            async fn send(self, channel: Channel) -> Result<$response, Status> {
                $client::new(channel).$method(self).await.map(Response::into_inner)
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
    RouteFeedServiceClient {
        watch_routes(WatchRoutesRequest) -> Streaming<pb::WatchRoutesResponse>;
        report_node_status(ReportNodeStatusRequest) -> ();
        list_retained_images(ListRetainedImagesRequest) -> pb::ListRetainedImagesResponse;
    }
}
