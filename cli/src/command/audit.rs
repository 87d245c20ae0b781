//! `audit`: the changes of the cluster and the refused calls.

use std::time::SystemTime;

use clap::Args;

use crate::client::{ApiClient, AuditSelection, WATCH_AUDIT};
use crate::complete;
use crate::error::{Error, Idempotency};
use crate::output::Printer;
use crate::parse;

/// Arguments of `audit`.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// Only changes of this service
    #[arg(long, value_name = "SERVICE", value_parser = parse::service, add = complete::services())]
    service: Option<String>,
    /// Only of this principal, such as `tokens/ID`, `nodes/NAME` or `system`
    #[arg(long, value_name = "PRINCIPAL")]
    #[arg(default_value = "", hide_default_value = true)]
    principal: String,
    /// Only of this time and later: 1h ago, or 2026-12-01T08:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse::since)]
    since: Option<parse::Since>,
    /// Print new entries as they are written, until interrupted
    #[arg(long, short)]
    follow: bool,
    /// Maximum number of results, 0 for all
    #[arg(
        long,
        value_name = "N",
        default_value_t = 50,
        conflicts_with = "follow"
    )]
    limit: u32,
}

pub(crate) async fn run(
    args: AuditArgs,
    client: &ApiClient,
    printer: &Printer,
) -> Result<(), Error> {
    let service = args.service.map(|service| format!("services/{service}"));
    let selection = AuditSelection {
        service: service.unwrap_or_default(),
        principal: args.principal,
        since: args.since.map(|since| since.at(SystemTime::now())),
    };
    if !args.follow {
        return printer.list(&client.list_audit(&selection, args.limit).await?);
    }
    let mut stream = client.watch_audit(&selection).await?;
    loop {
        let message = stream.message().await.map_err(|status| Error::Api {
            operation: WATCH_AUDIT.to_owned(),
            idempotency: Idempotency::ReadOnly,
            status: Box::new(status),
        })?;
        match message {
            None => return Ok(()),
            Some(message) => {
                if let Some(entry) = message.entry {
                    printer.line(&entry)?;
                }
            }
        }
    }
}
