//! Bad input for every RPC: the field is named in the error, and the state is unchanged.

mod services;
mod traffic;
mod versions;

use anyhow::{Result, ensure};
use cless_proto::v1;
use cless_tests::cluster::{Api, Cluster, settings};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// What an RPC refused, and what its error must say: the code, and the field's path, or for a
/// state that forbids it the subject.
struct Case {
    what: &'static str,
    refusal: Option<Status>,
    code: Code,
    names: &'static str,
}

fn invalid<T>(what: &'static str, answer: Result<T, Status>, field: &'static str) -> Case {
    Case {
        what,
        refusal: answer.err(),
        code: Code::InvalidArgument,
        names: field,
    }
}

fn refused<T>(
    what: &'static str,
    answer: Result<T, Status>,
    code: Code,
    names: &'static str,
) -> Case {
    Case {
        what,
        refusal: answer.err(),
        code,
        names,
    }
}

/// Everything that the error's details name.
fn named(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let mut names = Vec::new();
    if let Some(bad) = details.bad_request() {
        names.extend(
            bad.field_violations
                .iter()
                .map(|violation| violation.field.clone()),
        );
    }
    if let Some(precondition) = details.precondition_failure() {
        names.extend(
            precondition
                .violations
                .iter()
                .map(|violation| violation.subject.clone()),
        );
    }
    if let Some(resource) = details.resource_info() {
        names.push(resource.resource_name.clone());
    }
    names
}

fn check(cases: Vec<Case>) -> Result<()> {
    let mut wrong = Vec::new();
    for case in cases {
        let Some(status) = case.refusal else {
            wrong.push(format!("{}: was accepted", case.what));
            continue;
        };
        let names = named(&status);
        let details = status.get_error_details();
        let domain = details.error_info().map(|info| info.domain.as_str());
        if status.code() != case.code {
            wrong.push(format!(
                "{}: {:?}: {}",
                case.what,
                status.code(),
                status.message()
            ));
        } else if !names.iter().any(|name| name == case.names) {
            wrong.push(format!(
                "{}: names {names:?}, not {}",
                case.what, case.names
            ));
        } else if domain != Some("cless.dev") {
            wrong.push(format!("{}: no ErrorInfo of cless.dev", case.what));
        } else if status.message().is_empty() {
            wrong.push(format!("{}: no message", case.what));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// The state, as the API shows it.
async fn state(api: &mut Api) -> Result<String> {
    let request = v1::ListServicesRequest::default();
    let services = api.catalog.list_services(request).await?.into_inner();
    let parent = "services/hello".to_owned();
    let request = v1::ListVersionsRequest {
        parent,
        ..Default::default()
    };
    let versions = api.catalog.list_versions(request).await?.into_inner();
    let parent = "services/hello/traffic".to_owned();
    let request = v1::ListTrafficRevisionsRequest {
        parent,
        ..Default::default()
    };
    let history = api
        .traffic
        .list_traffic_revisions(request)
        .await?
        .into_inner();
    let head = api.check_propagation(0).await?.revision;
    Ok(format!("{head} {services:?} {versions:?} {history:?}"))
}

/// A cluster without nodes with `hello`, its versions 1 and 2, and all traffic on 1.
async fn catalog() -> Result<Cluster> {
    let cluster = Cluster::start(0).await?;
    let mut api = cluster.api()?;
    api.create_service("hello", settings()).await?;
    api.create_version("hello", "hello:1", &[]).await?;
    api.create_version("hello", "hello:2", &[]).await?;
    api.set_traffic("hello", &[(1, 100)]).await?;
    Ok(cluster)
}
