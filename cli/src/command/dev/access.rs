//! The access of this user to the control plane of `cless dev`, without a question: the token of an
//! administrator, the join of the only node, and the context `dev`.
//!
//! The token is in files of this user alone, so another user of the machine has none.

use std::path::Path;

use cless_control_plane::Running;
use cless_proto::join_token::JoinToken;
use cless_proto::v1 as pb;
use tonic::Code;

use crate::client::ApiClient;
use crate::config::{Context, ContextName, ServerUrl, Target, Token, store};
use crate::error::Error;
use crate::file;
use crate::output::Printer;

/// The name of the context.
const CONTEXT: &str = "dev";
/// Its name where a user has given the first one to another control plane.
const OTHER_CONTEXT: &str = "cless-dev";
/// The file of the token that the first start of a control plane writes.
const ADMIN_TOKEN_FILE: &str = "admin-token";
/// A token has some 60 characters.
const MAX_TOKEN_BYTES: u64 = 4096;

/// The access of an administrator.
pub(super) struct Access {
    context: Context,
    client: ApiClient,
}

impl Access {
    /// Finds the token of an administrator among those stored, or else makes one.
    pub(super) async fn open(
        control: &Running,
        server: ServerUrl,
        dir: &Path,
    ) -> Result<Self, Error> {
        let failed = |message: String| Error::Dev {
            message: format!("the control plane failed to start: {message}"),
            hint: None,
        };
        let pin = control.fingerprint();
        let pin = pin.ok_or_else(|| failed("it has no authority".to_owned()))?;
        let access = |token| {
            let context = Context {
                servers: vec![server.clone()],
                pins: vec![pin],
                token: Some(token),
            };
            async move { Self::connect(context).await }
        };
        let stored = [of_file(&dir.join(ADMIN_TOKEN_FILE)), of_context(&server)];
        for token in stored.into_iter().flatten() {
            let access = access(token).await?;
            if access.is_administrator().await? {
                return Ok(access);
            }
        }
        let made = control.new_admin_token().await;
        let made = made.map_err(|error| failed(error.to_string()))?;
        let token = made
            .parse()
            .map_err(|error| failed(format!("its token {error}")))?;
        access(token).await
    }

    async fn connect(context: Context) -> Result<Self, Error> {
        let target = Target {
            servers: context.servers.clone(),
            pins: context.pins.clone(),
            token: context.token.clone(),
            context: None,
        };
        let client = ApiClient::connect(&target, String::new()).await?;
        Ok(Self { context, client })
    }

    async fn is_administrator(&self) -> Result<bool, Error> {
        match self.client.current_token().await {
            Ok(token) => Ok(token.role() == pb::token::Role::Admin && token.scope.is_none()),
            Err(error) if error.code() == Some(Code::Unauthenticated) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The token with which the node joins; `None` if it has joined this cluster before.
    pub(super) async fn join_token(
        &self,
        control: &Running,
        node: &str,
        cache_dir: &Path,
    ) -> Result<Option<JoinToken>, Error> {
        let failed = |message: String| Error::Dev {
            message: format!("the node failed to start: {message}"),
            hint: None,
        };
        let cluster = control.cluster().unwrap_or_default();
        let joined = cless_data_plane::enrollment::has_joined(cache_dir, cluster);
        if joined.map_err(|error| failed(error.to_string()))? {
            return Ok(None);
        }
        let created = self.client.create_join_token(node.to_owned()).await?;
        let token = JoinToken::parse(&created.join_token);
        token.map(Some).map_err(|error| failed(error.to_string()))
    }

    /// Stores the context, and makes it current if none is. Returns the flag with which another
    /// command reaches this control plane; empty if it needs none.
    pub(super) fn store(self, dir: &Path, printer: &Printer) -> String {
        let Self { context, .. } = self;
        let server = context
            .servers
            .first()
            .map(ToString::to_string)
            .unwrap_or_default();
        let pins = context
            .pins
            .first()
            .map(ToString::to_string)
            .unwrap_or_default();
        let stored = store::file().and_then(|file| {
            file.change(|config| {
                let is_foreign = |(_, context): (&ContextName, &Context)| {
                    !context.servers.iter().all(ServerUrl::is_loopback)
                };
                let name = match config.context(Some(CONTEXT)).is_ok_and(is_foreign) {
                    true => OTHER_CONTEXT,
                    false => CONTEXT,
                };
                let name: ContextName = name.parse().map_err(|error| Error::Dev {
                    message: format!("`{name}` {error}"),
                    hint: None,
                })?;
                config.adopt(name.clone(), context);
                Ok((config.current() == Some(&name), name))
            })
        });
        match stored {
            Ok((true, _)) => String::new(),
            Ok((false, name)) => format!(" --context {name}"),
            Err(error) => {
                printer.note(&format!(
                    "warning: no context is stored, because {error}; other commands need \
                     CLESS_SERVER={server} CLESS_CA_FINGERPRINT={pins} CLESS_TOKEN=$(cat {})",
                    dir.join(ADMIN_TOKEN_FILE).display()
                ));
                String::new()
            }
        }
    }
}

/// The token in a file; `None` without a usable one.
fn of_file(path: &Path) -> Option<Token> {
    let opened = file::open(path).ok()?;
    let bytes = file::read(opened, MAX_TOKEN_BYTES).ok()?;
    String::from_utf8(bytes).ok()?.parse().ok()
}

/// The token of a context with this server.
fn of_context(server: &ServerUrl) -> Option<Token> {
    let config = store::read().ok()?;
    let (_, context) = config.of_server(server)?;
    context.token.clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    async fn start(dir: &Path) -> Running {
        let options = cless_control_plane::Options {
            listen: ([127, 0, 0, 1], 0).into(),
            database_url: format!("sqlite://{}?mode=rwc", dir.join("cless.db").display()),
            data_dir: Some(dir.join("state")),
            ..Default::default()
        };
        cless_control_plane::start(options)
            .await
            .expect("it starts")
    }

    fn token(access: &Access) -> String {
        let token = access.context.token.as_ref().expect("a token");
        token.expose().to_owned()
    }

    #[tokio::test]
    async fn the_token_is_made_once_and_again_only_if_it_is_of_no_use() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let control = start(dir.path()).await;
        let server: ServerUrl = format!("https://{}", control.addr())
            .parse()
            .expect("a URL");
        let open = || Access::open(&control, server.clone(), &dir.path().join("state"));
        let made = token(&open().await.expect("access"));
        let file = dir.path().join("state").join(ADMIN_TOKEN_FILE);
        std::fs::write(&file, format!("{made}\n")).expect("it is written");
        let again = open().await.expect("access");
        assert_eq!(token(&again), made);
        let joined = again
            .join_token(&control, "local", &dir.path().join("node"))
            .await;
        assert!(joined.expect("a join token").is_some());
        for useless in [
            "",
            "damaged",
            "cless_00000000000_0000000000000000000000000000000000000000000",
        ] {
            std::fs::write(&file, useless).expect("it is written");
            let other = open().await.expect("access");
            assert!(other.is_administrator().await.expect("an answer"));
            assert_ne!(token(&other), made);
        }
        control.shutdown().await;
    }

    #[tokio::test]
    async fn another_user_of_the_machine_is_not_authenticated() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let control = start(dir.path()).await;
        for (scheme, pins) in [
            ("https", Vec::from_iter(control.fingerprint())),
            ("http", vec![]),
        ] {
            let server = format!("{scheme}://{}", control.addr())
                .parse()
                .expect("a URL");
            let target = Target {
                servers: vec![server],
                pins,
                token: None,
                context: None,
            };
            let client = ApiClient::connect(&target, String::new())
                .await
                .expect("a connection");
            let error = client.list_services(0).await.expect_err("it is refused");
            assert_eq!(error.code(), Some(Code::Unauthenticated), "{error}");
            assert_eq!(
                Printer::new(Format::Table, true, String::new()).error(&error),
                4
            );
        }
        control.shutdown().await;
    }
}
