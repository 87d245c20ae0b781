//! `node` and `instance`: the nodes and instances that data planes report, and the place of nodes in
//! the cluster.

use clap::{Args, Subcommand};

use crate::args::LimitArgs;
use crate::client::ApiClient;
use crate::complete;
use crate::error::Error;
use crate::output::Printer;
use crate::{parse, text};

/// The `node` commands.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List nodes
    #[command(visible_alias = "ls")]
    List(LimitArgs),
    /// Show a node and its warnings
    #[command(visible_alias = "describe")]
    Get(GetArgs),
    /// Manage the tokens with which nodes join the cluster
    #[command(subcommand)]
    Token(NodeTokenCommand),
    /// Take a node out of service: it serves requests, but verifies nothing and keeps
    /// no instance for --min-instances
    Drain(GetArgs),
    /// Put a drained node into service again
    Undrain(GetArgs),
    /// Remove a node from the cluster: its certificate is refused, and its name is free
    #[command(visible_alias = "rm")]
    Remove(RemoveArgs),
}

/// The `node token` commands.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeTokenCommand {
    /// Create a token for one join within 15 minutes; it is shown once
    #[command(
        after_help = "Example: cless node token create --name node-2 > /run/join-token\n\
         On the node: cless-data-plane --node node-2 --control-plane https://HOST:7070 \\\n    \
         --join-token-file /run/join-token"
    )]
    Create(CreateTokenArgs),
}

/// Arguments of `node token create`.
#[derive(Debug, Args)]
pub(crate) struct CreateTokenArgs {
    /// The only name that the node may join with
    #[arg(long, value_name = "NODE", value_parser = parse::node)]
    name: Option<String>,
}

/// Arguments of `node remove`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    #[command(flatten)]
    node: GetArgs,
    /// Do not ask for confirmation
    #[arg(long, short)]
    yes: bool,
}

/// Arguments of commands about one node.
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
        NodeCommand::Token(NodeTokenCommand::Create(args)) => {
            create_token(args, client, printer).await
        }
        NodeCommand::Drain(args) => set_drained(&args.node, true, client, printer).await,
        NodeCommand::Undrain(args) => set_drained(&args.node, false, client, printer).await,
        NodeCommand::Remove(args) => remove(args, client, printer).await,
    }
}

async fn create_token(
    args: CreateTokenArgs,
    client: &ApiClient,
    printer: &Printer,
) -> Result<(), Error> {
    let created = client
        .create_join_token(args.name.unwrap_or_default())
        .await?;
    printer.show(&created)?;
    printer.note(&format!(
        "one node can join with this token until {}; it is not shown again",
        text::time(created.expire_time.as_ref())
    ));
    Ok(())
}

async fn set_drained(
    node: &str,
    drained: bool,
    client: &ApiClient,
    printer: &Printer,
) -> Result<(), Error> {
    let changed = client.set_drained(node, drained).await?;
    printer.list(&[changed])?;
    printer.note(&if drained {
        format!("nodes/{node} is drained; back into service: cless node undrain {node}")
    } else {
        format!("nodes/{node} is in service")
    });
    Ok(())
}

async fn remove(args: RemoveArgs, client: &ApiClient, printer: &Printer) -> Result<(), Error> {
    let node = &args.node.node;
    if !args.yes {
        let question = format!("Remove nodes/{node} from the cluster and refuse its certificate?");
        printer.confirm(&question).await?;
    }
    client.remove_node(node).await?;
    printer.removed(&format!("nodes/{node}"))
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
