//! The one place that resolves `@latest` and `@prev`.

use cless_proto::v1 as pb;

use crate::client::{ApiClient, RollbackTo};
use crate::error::Error;
use crate::output::Printer;
use crate::parse::VersionRef;

/// The `ErrorInfo.reason` of a service without earlier traffic.
const NO_EARLIER: &str = "NO_EARLIER_TRAFFIC";

/// The number that a reference names now; prints the number of `@latest` and `@prev`.
///
/// # Errors
/// [`Error::Conflict`] if no version fits, and those of the calls.
pub(super) async fn resolve(
    client: &ApiClient,
    printer: &Printer,
    service: &str,
    reference: VersionRef,
) -> Result<i32, Error> {
    let number = match reference {
        VersionRef::Number(number) => return Ok(number),
        VersionRef::Latest => {
            let newest = client.newest_verified(service).await?;
            newest.ok_or_else(|| Error::Conflict {
                message: format!("@latest: services/{service} has no verified version"),
                hint: format!(
                    "name a version as `cless version list {service}` shows it, or verify one with `cless version verify {service}`"
                ),
            })?
        }
        VersionRef::Previous => previous(client, service).await?,
    };
    printer.note(&format!("{reference} of {service} is v{number}"));
    Ok(number)
}

/// The version with the largest share of the traffic that a rollback would restore.
async fn previous(client: &ApiClient, service: &str) -> Result<i32, Error> {
    let (before, no_text) = (RollbackTo::Before, String::new);
    let restored = client
        .rollback_traffic(service, before, no_text(), no_text(), true)
        .await;
    let none = || Error::Conflict {
        message: format!("@prev: services/{service} had no other traffic before"),
        hint: format!("list its traffic with `cless traffic history {service}`"),
    };
    match restored {
        Ok(traffic) => largest(&traffic.targets).ok_or_else(none),
        Err(error) if error.reason().as_deref() == Some(NO_EARLIER) => Err(none()),
        Err(error) => Err(error),
    }
}

/// The version with the largest share, the newest of equals; `None` without traffic.
pub(super) fn largest(targets: &[pb::TrafficTarget]) -> Option<i32> {
    let shares = targets.iter().filter(|target| target.percent > 0);
    let largest = shares.max_by_key(|target| (target.percent, target.version));
    largest.map(|target| target.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_share_counts_and_then_the_newest_version() {
        let largest = |shares: &[(i32, u32)]| {
            let target = |&(version, percent): &(i32, u32)| pb::TrafficTarget {
                version,
                percent,
                tag: "t".to_owned(),
            };
            largest(&shares.iter().map(target).collect::<Vec<_>>())
        };
        assert_eq!(largest(&[(1, 60), (2, 40)]), Some(1));
        assert_eq!(largest(&[(1, 50), (3, 50), (9, 0)]), Some(3));
        assert_eq!(largest(&[(4, 0)]), None);
        assert_eq!(largest(&[]), None);
    }
}
