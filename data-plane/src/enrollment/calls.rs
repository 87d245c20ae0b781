//! The two calls of EnrollmentService. Protobuf types stop here.

use super::answer::Credential;
use super::schedule::Life;
use super::{Applicant, Inner, PlaneAddress};
use crate::error_chain;
use cless_proto::join_token::JoinToken;
use cless_proto::tls::{self, Fingerprint};
use cless_proto::v1 as pb;
use pb::enrollment_service_client::EnrollmentServiceClient;
use rustls::ClientConfig;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

/// Time limit of a connection, and of a call, which is one write of the control plane.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Reasons why a call gave no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// No control plane gave an answer.
    #[error("{0}")]
    Unreachable(String),
    /// The control plane refused.
    #[error("the control plane refused: {} ({})", .0.message(), .0.code())]
    Refused(Status),
    /// The answer cannot be used.
    #[error("the control plane's answer cannot be used: {0}")]
    Answer(String),
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::Unauthenticated
            | Code::PermissionDenied
            | Code::InvalidArgument
            | Code::AlreadyExists
            | Code::NotFound
            | Code::FailedPrecondition
            | Code::ResourceExhausted
            | Code::Unimplemented => Self::Refused(status),
            code => Self::Unreachable(format!("{} ({code})", status.message())),
        }
    }
}

/// Joins with a token, at a control plane with the token's authority.
pub(super) async fn join(
    node: &Inner,
    address: &PlaneAddress,
    token: &JoinToken,
) -> Result<Credential, Error> {
    let pin = Fingerprint::from_bytes(token.authority());
    let mut client = connect(address, tls::client_config(vec![pin], None), None).await?;
    let now = SystemTime::now();
    let Applicant { id, name } = node.applicant.clone();
    let request = pb::EnrollNodeRequest {
        join_token: token.expose(),
        node_id: id,
        node_name: name,
        csr: csr(node)?,
        node_time: Some(now.into()),
    };
    credential(
        node,
        now,
        timeout(TIMEOUT, client.enroll_node(request)).await,
    )
}

/// Renews a certificate, at a control plane with one of its authorities.
pub(super) async fn renew(
    node: &Inner,
    address: &PlaneAddress,
    current: &Credential,
) -> Result<Credential, Error> {
    let config = current.client_config(None);
    let mut client = connect(address, config, Some(&current.cluster)).await?;
    let now = SystemTime::now();
    let request = pb::RenewCertificateRequest {
        csr: csr(node)?,
        node_time: Some(now.into()),
    };
    let answer = timeout(TIMEOUT, client.renew_certificate(request)).await;
    let next = credential(node, now, answer)?;
    if next.cluster != current.cluster {
        return Err(Error::Answer(format!(
            "cluster: this node is in {}, not in {}",
            current.cluster, next.cluster
        )));
    }
    Ok(next)
}

async fn connect(
    address: &PlaneAddress,
    config: Arc<ClientConfig>,
    cluster: Option<&str>,
) -> Result<EnrollmentServiceClient<Channel>, Error> {
    let unreachable = |error: &dyn std::error::Error| Error::Unreachable(error_chain::text(error));
    let endpoint = address.endpoint().map_err(|error| unreachable(&error))?;
    let endpoint = endpoint.connect_timeout(TIMEOUT);
    match tls::connect(endpoint, config, cluster).await {
        Ok(channel) => Ok(EnrollmentServiceClient::new(channel)),
        Err(error) => Err(unreachable(&error)),
    }
}

fn csr(node: &Inner) -> Result<bytes::Bytes, Error> {
    node.key.request().map(Into::into).map_err(Error::Answer)
}

type Answer = Result<Result<Response<pb::NodeCertificate>, Status>, tokio::time::error::Elapsed>;

fn credential(node: &Inner, now: SystemTime, answer: Answer) -> Result<Credential, Error> {
    let answer = answer.map_err(|_| Error::Unreachable(format!("no answer within {TIMEOUT:?}")))?;
    let pb::NodeCertificate {
        certificate,
        expire_time,
        authorities,
        cluster,
    } = answer?.into_inner();
    let expires = expire_time.and_then(|time| SystemTime::try_from(time).ok());
    let expires = expires.ok_or_else(|| Error::Answer("expire_time: is no time".to_owned()))?;
    if expires <= now {
        return Err(Error::Answer(format!(
            "expire_time: the new certificate expired at {}, and the clock of this node says {}: \
             set the clocks of both machines",
            text(expires),
            text(now)
        )));
    }
    let life = Life {
        received: now,
        expires,
    };
    let authorities = authorities.into_iter().map(Into::into).collect();
    Credential::new(&node.key, cluster, certificate.into(), authorities, life)
        .map_err(Error::Answer)
}

/// RFC 3339, UTC.
pub(super) fn text(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since.ok().and_then(|since| since.as_secs().try_into().ok());
    let time = seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(|| "a time out of range".to_owned(), |time| time.to_string())
}
