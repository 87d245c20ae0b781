//! `TrafficService`: the split of a service's requests over its versions, and its history.

use super::convert::{requests, resources};
use super::{Api, caller, now, page, parsed, status, validated};
use crate::domain::{TrafficSplit, Violations, name};
use cless_proto::v1 as pb;
use cless_proto::v1::traffic_service_server::TrafficService;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl TrafficService for Api {
    async fn get_traffic(
        &self,
        request: Request<pb::GetTrafficRequest>,
    ) -> Result<Response<pb::Traffic>, Status> {
        let caller = caller(&request)?;
        let service = parsed("name", name::parse_traffic(&request.into_inner().name))?;
        self.permit(&caller, &service)?;
        let traffic = self
            .store
            .get_traffic(&service)
            .await
            .map_err(status::store)?;
        Ok(Response::new(resources::traffic(&traffic)))
    }

    async fn update_traffic(
        &self,
        request: Request<pb::UpdateTrafficRequest>,
    ) -> Result<Response<pb::Traffic>, Status> {
        let caller = caller(&request)?;
        let pb::UpdateTrafficRequest {
            traffic,
            actor,
            reason,
            validate_only,
            request_id,
            allow_unverified,
        } = request.into_inner();
        let Some(traffic) = traffic else {
            return Err(status::missing(
                "traffic",
                "send it with its name and targets",
            ));
        };
        let mut violations = Violations::new();
        let service = violations.take("traffic.name", name::parse_traffic(&traffic.name));
        let split = service.as_ref().and_then(|service| {
            let targets = requests::targets(traffic.targets);
            TrafficSplit::new("traffic.targets", service, targets, &mut violations)
        });
        let note = requests::change_note(&caller, actor, reason, &mut violations);
        let options =
            requests::write_options(&caller, now(), validate_only, request_id, &mut violations);
        let ((service, split), (note, options)) =
            validated(service.zip(split).zip(note.zip(options)), violations)?;
        self.permit(&caller, &service)?;
        let written = self
            .store
            .update_traffic(
                &service,
                split,
                allow_unverified,
                requests::etag(&traffic.etag),
                note,
                options,
            )
            .await
            .map_err(status::store)?;
        Ok(Response::new(resources::traffic(&written.resource)))
    }

    async fn list_traffic_revisions(
        &self,
        request: Request<pb::ListTrafficRevisionsRequest>,
    ) -> Result<Response<pb::ListTrafficRevisionsResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let service = parsed("parent", name::parse_traffic(&request.parent))?;
        self.permit(&caller, &service)?;
        let size = page::size(request.page_size).map_err(status::invalid_page)?;
        let list = format!("traffic revisions of {service}");
        let before = page::parsed_key(&list, &request.page_token, |key| key.parse().ok())
            .map_err(status::invalid_page)?;
        let found = self
            .store
            .list_traffic_revisions(&service, size, before)
            .await
            .map_err(status::store)?;
        let next_page_token =
            page::next_token(&found, &list, |revision| revision.number.to_string());
        let revisions = found
            .items
            .iter()
            .map(resources::traffic_revision)
            .collect();
        Ok(Response::new(pb::ListTrafficRevisionsResponse {
            revisions,
            next_page_token,
        }))
    }

    async fn rollback_traffic(
        &self,
        request: Request<pb::RollbackTrafficRequest>,
    ) -> Result<Response<pb::Traffic>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut violations = Violations::new();
        let service = violations.take("name", name::parse_traffic(&request.name));
        let to = requests::rollback_to(request.revision, request.version, &mut violations);
        let note = requests::change_note(&caller, request.actor, request.reason, &mut violations);
        let options = requests::write_options(
            &caller,
            now(),
            request.validate_only,
            request.request_id,
            &mut violations,
        );
        let ((service, to), (note, options)) =
            validated(service.zip(to).zip(note.zip(options)), violations)?;
        self.permit(&caller, &service)?;
        let written = self
            .store
            .rollback_traffic(&service, to, requests::etag(&request.etag), note, options)
            .await
            .map_err(status::store)?;
        Ok(Response::new(resources::traffic(&written.resource)))
    }
}
