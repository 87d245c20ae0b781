//! `node` and `instance`: the nodes and instances that data planes report.

use clap::{Args, Subcommand};

use crate::args::LimitArgs;
use crate::client::ApiClient;
use crate::complete;
use crate::error::Error;
use crate::output::Printer;
use crate::parse;

/// The `node` commands.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List nodes
    #[command(visible_alias = "ls")]
    List(LimitArgs),
    /// Show a node and its warnings
    #[command(visible_alias = "describe")]
    Get(GetArgs),
}

/// Arguments of `node get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Node name
    #[arg(value_name = "NODE", value_parser = parse::node, add = complete::nodes())]
    node: String,
}

/// The `instance` commands.
#[derive(Debug, Subcommand)]
pub(crate) enum InstanceCommand {
    /// List instances
    #[command(visible_aliases = ["ls", "ps"])]
    List(ListArgs),
}

/// Arguments of `instance list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only instances of this service
    #[arg(value_name = "SERVICE", value_parser = parse::service, add = complete::services())]
    service: Option<String>,
    /// Only instances on this node
    #[arg(long, value_name = "NODE", value_parser = parse::node, add = complete::nodes())]
    node: Option<String>,
    #[command(flatten)]
    limit: LimitArgs,
}

pub(crate) async fn run(
    command: NodeCommand,
    client: &ApiClient,
    printer: &Printer,
) -> Result<(), Error> {
    match command {
        NodeCommand::List(args) => printer.list(&client.list_nodes(args.limit).await?),
        NodeCommand::Get(args) => printer.show(&client.get_node(&args.node).await?),
    }
}

pub(crate) async fn instances(
    command: InstanceCommand,
    client: &ApiClient,
    printer: &Printer,
) -> Result<(), Error> {
    let InstanceCommand::List(args) = command;
    let node = args.node.unwrap_or_else(|| "-".to_owned());
    let service = args.service.unwrap_or_default();
    printer.list(
        &client
            .list_instances(&node, &service, args.limit.limit)
            .await?,
    )
}
