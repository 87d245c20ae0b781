//! Completion of the names that a control plane knows. Silent on failure, and bounded in time, because
//! a shell waits for it.

use std::ffi::OsStr;
use std::time::Duration;

use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};

use crate::client::ApiClient;
use crate::config::target::{self, Choice};
use crate::config::{Target, store};

/// Limit of one completion.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum number of names offered.
const MAX_NAMES: u32 = 200;

/// Completes the name of a service.
pub(crate) fn services() -> ArgValueCompleter {
    completer(async |client, _| {
        let services = client.list_services(MAX_NAMES).await.ok()?;
        Some(services.into_iter().map(|service| service.name).collect())
    })
}

/// Completes the name of a node.
pub(crate) fn nodes() -> ArgValueCompleter {
    completer(async |client, _| {
        let nodes = client.list_nodes(MAX_NAMES).await.ok()?;
        Some(nodes.into_iter().map(|node| node.name).collect())
    })
}

/// Completes the name of a context.
pub(crate) fn contexts() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let current = current.to_string_lossy();
        let config = store::read().unwrap_or_default();
        let names = config.contexts().map(|(name, _)| name.to_string());
        let names = names.filter(|name| name.starts_with(&*current));
        names.map(CompletionCandidate::new).collect()
    })
}

/// Completes a version of the service that the command line names.
pub(crate) fn versions() -> ArgValueCompleter {
    completer(async |client, words| {
        let services = client.list_services(0).await.ok()?;
        let named = |word: &&String| {
            services
                .iter()
                .any(|s| s.name == format!("services/{word}"))
        };
        let service = words.iter().find(named)?;
        let versions = client.list_versions(service, MAX_NAMES).await.ok()?;
        let numbers = versions
            .iter()
            .map(|version| format!("v{}", version.number));
        let symbols = ["@latest", "@prev"].map(str::to_owned);
        Some(numbers.chain(symbols).collect())
    })
}

/// A completer of the names that `list` reads; `list` gets the words of the command line.
fn completer(
    list: impl AsyncFn(ApiClient, Vec<String>) -> Option<Vec<String>> + Send + Sync + 'static,
) -> ArgValueCompleter {
    ArgValueCompleter::new(move |current: &OsStr| {
        let words = words();
        let target = target(&words);
        let names = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .ok()
            .and_then(|runtime| {
                runtime.block_on(async {
                    let names = async {
                        let client = ApiClient::connect(&target?, String::new()).await.ok()?;
                        list(client, words).await
                    };
                    tokio::time::timeout(TIMEOUT, names).await.ok().flatten()
                })
            });
        let current = current.to_string_lossy();
        let names = names.unwrap_or_default().into_iter();
        let ids = names.map(|name| match name.rsplit_once('/') {
            Some((_, id)) => id.to_owned(),
            None => name,
        });
        // The shell shows them.
        let is_safe = |id: &String| !id.contains(cless_proto::text::is_active);
        let ids = ids.filter(|id| id.starts_with(&*current)).filter(is_safe);
        ids.map(CompletionCandidate::new).collect()
    })
}

/// The words of the command line to complete, which follow `--`.
fn words() -> Vec<String> {
    std::env::args()
        .skip_while(|word| word != "--")
        .skip(1)
        .collect()
}

/// The control plane of the command that the words are, without a report of problems.
fn target(words: &[String]) -> Option<Target> {
    let flag = |name: &str| {
        words.iter().enumerate().find_map(|(at, word)| {
            let next = || words.get(at + 1).cloned();
            let joined = word
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('='));
            joined
                .map(str::to_owned)
                .or_else(|| (word == name).then(next).flatten())
        })
    };
    let variable = |name| std::env::var(name).ok();
    let list = |text: Option<String>| {
        let text = text.unwrap_or_default();
        let servers = text.split(',').filter(|server| !server.is_empty());
        servers.map(str::to_owned).collect()
    };
    let choice = Choice {
        server_flag: list(flag("--server")),
        context_flag: flag("--context"),
        server_variable: list(variable("CLESS_SERVER")),
        context_variable: variable("CLESS_CONTEXT"),
        token: variable("CLESS_TOKEN"),
        fingerprints: variable("CLESS_CA_FINGERPRINT"),
    };
    target::choose(&choice, &store::read().ok()?).ok()
}
