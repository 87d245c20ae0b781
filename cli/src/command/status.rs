//! `status`: services with their traffic and instances, and the nodes, on one screen.

use clap::Args;

use crate::client::ApiClient;
use crate::complete;
use crate::error::Error;
use crate::output::{Printer, Status};
use crate::parse;

/// Maximum number of services, each of which costs a call.
const MAX_SERVICES: u32 = 100;
/// Maximum number of instances counted.
const MAX_INSTANCES: u32 = 10_000;
/// Number of versions of a single service.
const RECENT_VERSIONS: u32 = 10;

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Only this service, with its newest versions and its instances
    #[arg(value_name = "SERVICE", value_parser = parse::service, add = complete::services())]
    service: Option<String>,
}

pub(crate) async fn run(
    args: StatusArgs,
    client: &ApiClient,
    printer: &Printer,
) -> Result<(), Error> {
    let mut status = Status::default();
    let filter = args.service.as_deref().unwrap_or_default();
    let mut services = match &args.service {
        Some(id) => vec![client.get_service(id).await?],
        None => client.list_services(MAX_SERVICES + 1).await?,
    };
    status.is_cut = services.len() > MAX_SERVICES as usize;
    services.truncate(MAX_SERVICES as usize);
    for service in services {
        let id = service.name.trim_start_matches("services/");
        let traffic = client.get_traffic(id).await?;
        status.services.push((service, traffic));
    }
    if let Some(id) = &args.service {
        status.versions = client.list_versions(id, RECENT_VERSIONS).await?;
    }
    status.instances = client.list_instances("-", filter, MAX_INSTANCES).await?;
    status.nodes = client.list_nodes(0).await?;
    printer.status(&status)
}
