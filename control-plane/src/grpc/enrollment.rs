//! `EnrollmentService`: certificates of nodes. Its calls need no credential: a join presents a join
//! token, a renewal is signed by the key that is enrolled.
//!
//! An unknown token or key is refused before anything is written, and refused attempts are limited
//! by peer.

use super::{Api, caller, now, status, validated};
use crate::auth::csr::ProvedKey;
use crate::auth::{Ca, Caller};
use crate::domain::enrollment::{Enrollment, Join};
use crate::domain::{NodeName, Origin, Principal, Reason, Violations};
use crate::grpc::convert::feed::read_id;
use crate::grpc::convert::{read_timestamp, timestamp};
use crate::store::{self, TokenProof, WriteOptions};
use cless_proto::join_token::JoinToken;
use cless_proto::token::secret_hash;
use cless_proto::v1 as pb;
use cless_proto::v1::enrollment_service_server::EnrollmentService;
use tonic::{Request, Response, Status};

/// Maximum size of a request: a token, an id, a name and a signing request.
pub(super) const REQUEST_MAX: usize = 16 * 1024;

#[tonic::async_trait]
impl EnrollmentService for Api {
    async fn enroll_node(
        &self,
        request: Request<pb::EnrollNodeRequest>,
    ) -> Result<Response<pb::NodeCertificate>, Status> {
        let caller = caller(&request)?;
        let ca = self.certifier()?;
        let pb::EnrollNodeRequest {
            join_token,
            node_id,
            node_name,
            csr,
            node_time,
        } = request.into_inner();
        let mut violations = Violations::new();
        let token = JoinToken::parse(&join_token);
        let token = token.map_err(|error| Reason::new(error.to_string()));
        let token = violations.take("join_token", token);
        let id = read_id("node_id", node_id, &mut violations);
        let name = violations.take("node_name", NodeName::parse(node_name));
        let key = violations.take("csr", ProvedKey::read(&csr));
        let node_time = read_clock(node_time, &mut violations);
        let read = token.zip(id).zip(name).zip(key).zip(node_time);
        let ((((token, id), name), key), node_time) = validated(read, violations)?;
        self.check_attempts(&caller)?;
        let proof = TokenProof {
            id: token.id(),
            hash: secret_hash(token.secret()),
        };
        let join = Join {
            id,
            name,
            key: key.hash(),
            node_time,
        };
        let options = options_of(&caller, &join.id, &join.name);
        let now = options.now;
        let joined = self.store.join(proof, join.clone(), options).await;
        let joined = joined.map_err(|error| self.refused_certificate(&caller, error))?;
        tracing::info!(node = %join.name, id = join.id, "a node has joined");
        self.auth.refresh(&self.store).await;
        certify(ca, &key, &joined.resource, &join.name, now)
    }

    async fn renew_certificate(
        &self,
        request: Request<pb::RenewCertificateRequest>,
    ) -> Result<Response<pb::NodeCertificate>, Status> {
        let caller = caller(&request)?;
        let ca = self.certifier()?;
        let pb::RenewCertificateRequest { csr, node_time } = request.into_inner();
        let mut violations = Violations::new();
        let key = violations.take("csr", ProvedKey::read(&csr));
        let node_time = read_clock(node_time, &mut violations);
        let (key, node_time) = validated(key.zip(node_time), violations)?;
        // A neighbour behind the same address must not keep an enrolled node from renewing.
        if !self.auth.has_node_key(&key.hash()) {
            self.check_attempts(&caller)?;
        }
        let now = now();
        let renewed = self.store.renew(key.hash(), node_time, now).await;
        let (enrollment, name) =
            renewed.map_err(|error| self.refused_certificate(&caller, error))?;
        certify(ca, &key, &enrollment, &name, now)
    }
}

impl Api {
    /// The authority, without which no node needs a certificate.
    fn certifier(&self) -> Result<&Ca, Status> {
        self.ca.as_deref().ok_or_else(status::no_authority)
    }

    fn check_attempts(&self, caller: &Caller) -> Result<(), Status> {
        let checked = self.auth.check_attempts(caller);
        checked.map_err(|refused| status::refused(&refused))
    }

    /// The status of a failed join or renewal; a refusal goes to the audit log.
    fn refused_certificate(&self, caller: &Caller, error: store::Error) -> Status {
        match error {
            store::Error::Enrollment(refusal) => {
                status::refused(&self.auth.refuse_enrollment(caller, refusal))
            }
            other => status::store(other),
        }
    }
}

fn read_clock(
    time: Option<prost_types::Timestamp>,
    violations: &mut Violations,
) -> Option<crate::domain::Timestamp> {
    let read = read_timestamp(time);
    if read.is_none() {
        violations.push("node_time", "is missing: give the time of the node's clock");
    }
    read
}

/// The node is the author of its join.
fn options_of(caller: &Caller, id: &str, name: &NodeName) -> WriteOptions {
    WriteOptions {
        now: now(),
        validate_only: false,
        request_id: None,
        by: Origin {
            principal: Principal::Node {
                id: id.to_owned(),
                name: name.clone(),
            },
            ..caller.origin.clone()
        },
    }
}

fn certify(
    ca: &Ca,
    key: &ProvedKey,
    node: &Enrollment,
    name: &NodeName,
    now: crate::domain::Timestamp,
) -> Result<Response<pb::NodeCertificate>, Status> {
    let certificate = ca
        .issue_node(&key.spki, &node.id, name.as_str(), now)
        .map_err(|error| status::not_issued(&error))?;
    Ok(Response::new(pb::NodeCertificate {
        certificate: certificate.into(),
        expire_time: Some(timestamp(Ca::node_expiry(now))),
        authorities: ca.authorities().into_iter().map(Into::into).collect(),
        cluster: ca.cluster().to_owned(),
    }))
}
