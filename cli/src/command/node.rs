//! `node` and `instance`: what the data planes report.

use clap::{Args, Subcommand};

use crate::args::LimitArgs;
use crate::client::Client;
use crate::error::Error;
use crate::output::Printer;
use crate::parse;

/// What to ask of nodes.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Show all
    List(LimitArgs),
    /// Show one, with what it warns of
    Get(GetArgs),
}

/// Which node.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// The node
    #[arg(value_name = "NODE", value_parser = parse::node)]
    node: String,
}

/// What to ask of instances.
#[derive(Debug, Subcommand)]
pub(crate) enum InstanceCommand {
    /// Show all, or those of one service
    List(ListArgs),
}

/// Which instances.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only those of this service
    #[arg(value_name = "SVC", value_parser = parse::service)]
    service: Option<String>,
    // No variable: CLESS_NODE is a data plane's own name.
    /// Only those on this node
    #[arg(long, value_name = "NODE", value_parser = parse::node)]
    node: Option<String>,
    #[command(flatten)]
    limit: LimitArgs,
}

pub(crate) async fn run(
    command: NodeCommand,
    client: &Client,
    printer: &Printer,
) -> Result<(), Error> {
    match command {
        NodeCommand::List(args) => printer.list(&client.list_nodes(args.limit).await?),
        NodeCommand::Get(args) => printer.one(&client.get_node(&args.node).await?),
    }
}

pub(crate) async fn instances(
    command: InstanceCommand,
    client: &Client,
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
