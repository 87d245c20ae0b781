//! `login` and `logout`: the trust in a control plane and the token for it, stored as a context.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use cless_proto::tls::{self, Fingerprint};
use cless_proto::v1 as pb;

use crate::client::ApiClient;
use crate::config::target::Choice;
use crate::config::{self, Config, Context, ContextName, ServerUrl, Target, Token, store};
use crate::error::Error;
use crate::file;
use crate::output::Printer;

/// Limit of the look at the authority of a server.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// A token has some 60 characters.
const MAX_TOKEN_BYTES: u64 = 4096;
/// The name of the context of a control plane on this machine.
const LOCAL: &str = "local";

/// Arguments of `login`.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// Address of the control plane; of several planes, separated by commas
    #[arg(value_name = "URL", required = true, value_delimiter = ',')]
    #[arg(value_parser = server_url)]
    urls: Vec<ServerUrl>,
    /// Fingerprint of the authority, as the control plane logs it at its start
    /// [default: ask on the terminal]
    #[arg(long, env = "CLESS_CA_FINGERPRINT", value_name = "SHA256")]
    #[arg(value_delimiter = ',', value_parser = fingerprint)]
    ca_fingerprint: Vec<Fingerprint>,
    /// File with the token, - for stdin [default: CLESS_TOKEN, else the terminal or stdin]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Name of the context [default: the host]
    #[arg(long, value_name = "NAME", value_parser = context_name)]
    name: Option<ContextName>,
}

fn server_url(text: &str) -> Result<ServerUrl, String> {
    text.parse().map_err(|error| format!("`{text}` {error}"))
}

fn fingerprint(text: &str) -> Result<Fingerprint, String> {
    text.parse().map_err(|error| format!("`{text}` {error}"))
}

fn context_name(text: &str) -> Result<ContextName, String> {
    text.parse().map_err(|error| format!("`{text}` {error}"))
}

/// Stores a context after its token was accepted.
pub(crate) async fn login(args: LoginArgs, actor: String, printer: &Printer) -> Result<(), Error> {
    let file = store::file()?;
    let config = file.read()?;
    let servers = args.urls;
    if let Some(plain) = servers.iter().find(|server| !server.is_encrypted()) {
        return Err(Error::Usage {
            message: format!(
                "{plain} knows no tokens: http:// is for a control plane with --insecure"
            ),
            hint: Some(format!("use it without a login, with --server {plain}")),
        });
    }
    let known = servers.first().and_then(|server| config.of_server(server));
    let pins = match known {
        _ if !args.ca_fingerprint.is_empty() => args.ca_fingerprint,
        Some((_, context)) if !context.pins.is_empty() => context.pins.clone(),
        _ => vec![ask_for_trust(&servers, printer).await?],
    };
    let token = read_token(args.token_file, printer).await?;
    let target = Target {
        servers: servers.clone(),
        pins: pins.clone(),
        token: Some(token.clone()),
        context: None,
    };
    let client = ApiClient::connect(&target, actor).await?;
    let accepted = client.current_token().await?;
    let name = match (args.name, known) {
        (Some(name), _) => name,
        (None, Some((name, _))) => name.clone(),
        (None, None) => default_name(&servers),
    };
    let context = Context {
        servers,
        pins,
        token: Some(token),
    };
    file.change(|config| {
        config.log_in(name.clone(), context)?;
        config.use_context(&name.to_string())?;
        Ok(())
    })?;
    printer.note(&format!(
        "logged in to {} with {}; the context `{name}` is current",
        client.server(),
        described(&accepted)
    ));
    Ok(())
}

/// `tokens/AbC (admin)`.
fn described(token: &pb::Token) -> String {
    let role = token.role().as_str_name();
    let role = role.strip_prefix("ROLE_").unwrap_or(role).to_lowercase();
    format!("{} ({role})", crate::text::clean(&token.name))
}

/// Shows the authority that the first server presents, and asks whether it is the right one.
async fn ask_for_trust(servers: &[ServerUrl], printer: &Printer) -> Result<Fingerprint, Error> {
    let Some(server) = servers.first() else {
        return Err(Error::Usage {
            message: "no address of a control plane".to_owned(),
            hint: None,
        });
    };
    if !printer.can_ask() {
        return Err(Error::Usage {
            message: format!(
                "{server} is not known, and there is no terminal to ask whether to trust it"
            ),
            hint: Some(
                "give --ca-fingerprint or CLESS_CA_FINGERPRINT: the control plane logs it at its start"
                    .to_owned(),
            ),
        });
    }
    let presented = tls::presented_authority(server.host(), server.port(), LOOK_TIMEOUT).await;
    let presented = presented.map_err(|error| Error::Connect {
        attempts: vec![crate::error::ConnectAttempt {
            server: server.to_string(),
            reason: error.to_string(),
            is_untrusted: false,
        }],
    })?;
    let question = format!(
        "{server} is not known. Its authority has the fingerprint\n  {presented}\n\
         Compare it with the one that the control plane logs at its start. Trust it?"
    );
    printer.confirm(&question).await?;
    Ok(presented)
}

/// The token from a file, the surroundings, the terminal, or else the standard input.
async fn read_token(path: Option<PathBuf>, printer: &Printer) -> Result<Token, Error> {
    let variable = std::env::var("CLESS_TOKEN").ok();
    let variable = variable.filter(|token| !token.is_empty());
    let (name, text) = match (path, variable) {
        (Some(path), _) => {
            let name = format!("--token-file {}", path.display());
            (name, read_file(path).await?)
        }
        (None, Some(token)) => ("CLESS_TOKEN".to_owned(), token),
        (None, None) if std::io::stdin().is_terminal() => {
            ("the token".to_owned(), printer.ask_secret("Token: ").await?)
        }
        (None, None) => (
            "the token on stdin".to_owned(),
            read_file("-".into()).await?,
        ),
    };
    text.parse().map_err(|error| Error::Usage {
        message: format!("{name} {error}"),
        hint: None,
    })
}

async fn read_file(path: PathBuf) -> Result<String, Error> {
    let shown = path.display().to_string();
    let read = move || {
        let opened = file::open(&path).map_err(|error| error.to_string())?;
        let bytes = file::read(opened, MAX_TOKEN_BYTES)?;
        String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
    };
    // A pipe blocks, and a signal still ends the command.
    let text = tokio::task::spawn_blocking(read).await;
    let text = text.unwrap_or_else(|error| Err(error.to_string()));
    text.map_err(|reason| Error::Usage {
        message: format!("--token-file: {shown}: {reason}"),
        hint: None,
    })
}

/// The host as a name, `local` for this machine.
fn default_name(servers: &[ServerUrl]) -> ContextName {
    let host = servers.first().filter(|server| !server.is_loopback());
    let name = host.and_then(|server| server.host().parse().ok());
    let local = || LOCAL.parse().expect("`local` is a valid name");
    name.unwrap_or_else(local)
}

/// Removes the token of a context.
pub(crate) fn logout(choice: &Choice, printer: &Printer) -> Result<(), Error> {
    let name = choice.context_name();
    let file = store::file()?;
    let id = token_id(&file.read()?, name)?;
    let (name, had) = file.change(|config| Ok(config.log_out(name)?))?;
    if had {
        printer.note(&format!(
            "logged out of `{name}`; its token is valid until it expires or `cless token revoke {id}`"
        ));
    } else {
        printer.note(&format!("`{name}` has no token"));
    }
    Ok(())
}

fn token_id(config: &Config, name: Option<&str>) -> Result<String, config::Error> {
    let token = config.context(name)?.1.token.as_ref();
    Ok(token.map_or_else(String::new, |token| token.id().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_named_after_its_host() {
        for (url, name) in [
            ("https://plane.example.org:7070", "plane.example.org"),
            ("https://127.0.0.1:7070", "local"),
            ("https://[::1]:7070", "local"),
            ("https://10.0.0.1", "10.0.0.1"),
            ("https://[fd00::1]:7070", "local"),
        ] {
            assert_eq!(default_name(&[url.parse().unwrap()]).to_string(), name);
        }
    }
}
