//! The choice of the control plane of a command, PURE.
//!
//! A flag decides before a variable, and both before the current context. Without any of them it is
//! the address of a control plane with `--insecure` on this machine.
//!
//! Law: a token of a context goes only to servers of that context, the token of `CLESS_TOKEN` not to
//! another server than `CLESS_SERVER` if that is set, and neither over `http`. A command with
//! `https` has a fingerprint, or is refused.

use cless_proto::tls::Fingerprint;

use super::contexts::{Config, Context, ContextName, Error};
use super::server_url::ServerUrl;
use super::token::{InvalidToken, Token};

/// The address where nothing else is configured.
pub(crate) const DEFAULT_SERVER: &str = "http://127.0.0.1:7070";

/// What the user gave. Empty texts count as absent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Choice {
    /// `--server`.
    pub(crate) server_flag: Vec<String>,
    /// `--context`.
    pub(crate) context_flag: Option<String>,
    /// `CLESS_SERVER`.
    pub(crate) server_variable: Vec<String>,
    /// `CLESS_CONTEXT`.
    pub(crate) context_variable: Option<String>,
    /// `CLESS_TOKEN`.
    pub(crate) token: Option<String>,
    /// `CLESS_CA_FINGERPRINT`, or several separated by commas.
    pub(crate) fingerprints: Option<String>,
}

impl Choice {
    /// The context that the user named.
    pub(crate) fn context_name(&self) -> Option<&str> {
        let named = [&self.context_flag, &self.context_variable];
        let named = named.into_iter().flatten().map(String::as_str);
        named.into_iter().find(|name| !name.is_empty())
    }
}

/// The control plane of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Tried in order. Not empty.
    pub(crate) servers: Vec<ServerUrl>,
    /// The only authorities that are trusted.
    pub(crate) pins: Vec<Fingerprint>,
    pub(crate) token: Option<Token>,
    /// The context that it is from.
    pub(crate) context: Option<ContextName>,
}

/// The reason why there is no target. [`Refusal::hint`] is the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("{0} and {1} are both set")]
    Both(&'static str, &'static str),
    #[error("{name}: `{value}` {reason}")]
    Value {
        name: &'static str,
        value: String,
        reason: String,
    },
    #[error("CLESS_TOKEN: {0}")]
    Token(InvalidToken),
    #[error("{name}: {error}")]
    Context { name: &'static str, error: Error },
    #[error("{0} is not known: no fingerprint of its authority is stored")]
    NoPin(ServerUrl),
}

impl Refusal {
    /// The remedy.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Both("--server", _) => Some("leave one of them out".to_owned()),
            Self::Both(..) => Some("unset one of them".to_owned()),
            Self::Value { .. } | Self::Token(_) => None,
            Self::Context { .. } => Some("list contexts with `cless context list`".to_owned()),
            Self::NoPin(server) => Some(format!(
                "log in with `cless login {server}`, or set CLESS_CA_FINGERPRINT"
            )),
        }
    }
}

impl From<Refusal> for crate::error::Error {
    fn from(refusal: Refusal) -> Self {
        Self::Usage {
            message: refusal.to_string(),
            hint: refusal.hint(),
        }
    }
}

/// Where the servers are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Flag,
    Variable,
    Context,
    Default,
}

/// Chooses the control plane.
///
/// # Errors
/// If the choice is invalid or ambiguous.
pub(crate) fn choose(choice: &Choice, config: &Config) -> Result<Target, Refusal> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (context_flag, context_variable) =
        (given(&choice.context_flag), given(&choice.context_variable));
    let server_variable = urls("CLESS_SERVER", &choice.server_variable);
    let (source, servers, (name, context)) = if !choice.server_flag.is_empty() {
        if context_flag.is_some() {
            return Err(Refusal::Both("--server", "--context"));
        }
        let servers = urls("--server", &choice.server_flag)?;
        let known = of_servers(config, &servers);
        (Source::Flag, servers, known)
    } else if let Some(name) = context_flag {
        from_context(config, "--context", &name)?
    } else if !choice.server_variable.is_empty() {
        if context_variable.is_some() {
            return Err(Refusal::Both("CLESS_SERVER", "CLESS_CONTEXT"));
        }
        let servers = server_variable.clone()?;
        let known = of_servers(config, &servers);
        (Source::Variable, servers, known)
    } else if let Some(name) = context_variable {
        from_context(config, "CLESS_CONTEXT", &name)?
    } else if let Ok((name, context)) = config.context(None) {
        let servers = context.servers.clone();
        (Source::Context, servers, (Some(name), Some(context)))
    } else {
        let servers = urls("--server", &[DEFAULT_SERVER.to_owned()])?;
        let known = of_servers(config, &servers);
        (Source::Default, servers, known)
    };
    // The variables belong together: those beside CLESS_SERVER are for that server.
    let variables_apply = choice.server_variable.is_empty()
        || source == Source::Variable
        || server_variable.is_ok_and(|variable| servers.iter().all(|s| variable.contains(s)));
    let is_encrypted = servers.iter().any(ServerUrl::is_encrypted);
    let token = match given(&choice.token).filter(|_| variables_apply && is_encrypted) {
        Some(text) => Some(text.parse().map_err(Refusal::Token)?),
        None => {
            let context = context.filter(|_| is_encrypted);
            context.and_then(|context| context.token.clone())
        }
    };
    let pins = match given(&choice.fingerprints).filter(|_| variables_apply) {
        Some(text) => fingerprints(&text)?,
        None => context
            .map(|context| context.pins.clone())
            .unwrap_or_default(),
    };
    if let Some(server) = servers.iter().find(|server| server.is_encrypted())
        && pins.is_empty()
    {
        return Err(Refusal::NoPin(server.clone()));
    }
    Ok(Target {
        servers,
        pins,
        token,
        context: name.cloned(),
    })
}

/// The context that has all the servers.
fn of_servers<'c>(
    config: &'c Config,
    servers: &[ServerUrl],
) -> (Option<&'c ContextName>, Option<&'c Context>) {
    let has_all = |context: &Context| servers.iter().all(|s| context.servers.contains(s));
    let found = servers.first().and_then(|server| config.of_server(server));
    match found.filter(|(_, context)| has_all(context)) {
        Some((name, context)) => (Some(name), Some(context)),
        None => (None, None),
    }
}

type Chosen<'c> = (
    Source,
    Vec<ServerUrl>,
    (Option<&'c ContextName>, Option<&'c Context>),
);

fn from_context<'c>(
    config: &'c Config,
    field: &'static str,
    name: &str,
) -> Result<Chosen<'c>, Refusal> {
    let context = config.context(Some(name));
    let (name, context) = context.map_err(|error| Refusal::Context { name: field, error })?;
    let servers = context.servers.clone();
    Ok((Source::Context, servers, (Some(name), Some(context))))
}

fn urls(name: &'static str, texts: &[String]) -> Result<Vec<ServerUrl>, Refusal> {
    let read = |text: &String| {
        let url: Result<ServerUrl, _> = text.trim().parse();
        url.map_err(|error| Refusal::Value {
            name,
            value: text.clone(),
            reason: error.to_string(),
        })
    };
    texts.iter().map(read).collect()
}

/// Reads one or several fingerprints, separated by commas.
fn fingerprints(text: &str) -> Result<Vec<Fingerprint>, Refusal> {
    let read = |text: &str| {
        let fingerprint: Result<Fingerprint, _> = text.trim().parse();
        fingerprint.map_err(|error| Refusal::Value {
            name: "CLESS_CA_FINGERPRINT",
            value: text.to_owned(),
            reason: error.to_string(),
        })
    };
    text.split(',').map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::super::contexts::tests::context;
    use super::*;
    use proptest::prelude::*;

    /// `prod` (current) and `stage`, each with a token.
    fn config() -> Config {
        let mut config = Config::default();
        let mut add = |name: &str, server: &str, token: &str| {
            let name = name.parse().unwrap();
            config.log_in(name, context(server, Some(token))).unwrap();
        };
        add("prod", "https://prod:1", "cless_p_p");
        add("stage", "https://stage:1", "cless_s_s");
        config.use_context("prod").unwrap();
        config
    }

    fn chosen(choice: Choice) -> Result<(String, Option<String>), Refusal> {
        let target = choose(&choice, &config())?;
        let token = target.token.map(|token| token.expose().to_owned());
        Ok((target.servers[0].to_string(), token))
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn to(server: &str, token: Option<&str>) -> Result<(String, Option<String>), Refusal> {
        Ok((server.to_owned(), token.map(str::to_owned)))
    }

    #[test]
    fn a_flag_decides_before_a_variable_and_both_before_the_current_context() {
        let pin = some(&Fingerprint::from_bytes([1; 32]).to_string());
        let server = |text: &str| vec![text.to_owned()];
        assert_eq!(
            chosen(Choice::default()),
            to("https://prod:1", Some("cless_p_p"))
        );
        let flag = Choice {
            context_flag: some("stage"),
            context_variable: some("nothing"),
            ..Choice::default()
        };
        assert_eq!(chosen(flag), to("https://stage:1", Some("cless_s_s")));
        let variable = Choice {
            context_variable: some("stage"),
            ..Choice::default()
        };
        assert_eq!(chosen(variable), to("https://stage:1", Some("cless_s_s")));
        // A server of a context has its token, and no other has.
        let known = Choice {
            server_flag: server("stage:1"),
            context_variable: some("prod"),
            ..Choice::default()
        };
        assert_eq!(chosen(known), to("https://stage:1", Some("cless_s_s")));
        let other = Choice {
            server_flag: server("https://other:1"),
            fingerprints: pin.clone(),
            ..Choice::default()
        };
        assert_eq!(chosen(other), to("https://other:1", None));
        // In CI three variables are all there is.
        let ci = Choice {
            server_variable: server("https://ci:1"),
            token: some("cless_c_c"),
            fingerprints: pin,
            ..Choice::default()
        };
        assert_eq!(chosen(ci.clone()), to("https://ci:1", Some("cless_c_c")));
        let elsewhere = Choice {
            server_flag: server("https://prod:1"),
            ..ci
        };
        assert_eq!(chosen(elsewhere), to("https://prod:1", Some("cless_p_p")));
        let token = Choice {
            token: some("cless_c_c"),
            ..Choice::default()
        };
        assert_eq!(chosen(token), to("https://prod:1", Some("cless_c_c")));
        let insecure = Choice {
            server_flag: server("http://localhost:7070"),
            token: some("cless_c_c"),
            ..Choice::default()
        };
        assert_eq!(chosen(insecure), to("http://localhost:7070", None));
        let nothing = choose(&Choice::default(), &Config::default()).unwrap();
        assert_eq!(nothing.servers[0].to_string(), DEFAULT_SERVER);
        assert_eq!(nothing.token, None);
    }

    #[test]
    fn an_ambiguous_or_invalid_choice_is_refused() {
        let refused = |choice: Choice| chosen(choice).unwrap_err().to_string();
        let server = || vec!["https://other:1".to_owned()];
        for (choice, words) in [
            (
                Choice {
                    server_flag: server(),
                    context_flag: some("prod"),
                    ..Choice::default()
                },
                "--server and --context are both set",
            ),
            (
                Choice {
                    server_variable: server(),
                    context_variable: some("prod"),
                    ..Choice::default()
                },
                "CLESS_SERVER and CLESS_CONTEXT are both set",
            ),
            (
                Choice {
                    server_flag: server(),
                    ..Choice::default()
                },
                "https://other:1 is not known: no fingerprint of its authority is stored",
            ),
            (
                Choice {
                    context_flag: some("nope"),
                    ..Choice::default()
                },
                "--context: there is no context `nope`",
            ),
            (
                Choice {
                    token: some("secret"),
                    ..Choice::default()
                },
                "CLESS_TOKEN: is not a token: give `cless_ID_SECRET` as `cless token create` prints it, whole",
            ),
            (
                Choice {
                    fingerprints: some("x"),
                    ..Choice::default()
                },
                "CLESS_CA_FINGERPRINT: `x` is no fingerprint: give `sha256:` and 64 hexadecimal digits, as the control plane logs it at its start",
            ),
            (
                Choice {
                    server_flag: vec!["http://other:1".to_owned()],
                    ..Choice::default()
                },
                "--server: `http://other:1` is another machine, and http:// is neither encrypted nor authenticated: write https:// (http:// reaches a control plane with --insecure on this machine alone)",
            ),
        ] {
            assert_eq!(refused(choice), words);
        }
    }

    proptest! {
        #[test]
        fn a_token_goes_only_to_its_servers(
            flag in proptest::option::of(0usize..5),
            variable in proptest::option::of(0usize..5),
            context_flag in proptest::option::of("prod|stage"),
            context_variable in proptest::option::of("prod|stage"),
            has_token: bool,
            has_pin: bool,
        ) {
            const SERVERS: [&str; 5] = [
                "https://prod:1", "https://stage:1", "https://other:1", "http://localhost:1", "https://prod:2",
            ];
            let server = |at: Option<usize>| at.map(|at| SERVERS[at].to_owned()).into_iter().collect();
            let choice = Choice {
                server_flag: server(flag),
                server_variable: server(variable),
                context_flag,
                context_variable,
                token: has_token.then(|| "cless_e_e".to_owned()),
                fingerprints: has_pin.then(|| Fingerprint::from_bytes([1; 32]).to_string()),
            };
            let Ok(target) = choose(&choice, &config()) else { return Ok(()) };
            let server = target.servers[0].to_string();
            prop_assert!(!target.servers[0].is_encrypted() || !target.pins.is_empty());
            match target.token.as_ref().map(Token::expose) {
                None => {}
                Some("cless_p_p") => prop_assert_eq!(&server, "https://prod:1"),
                Some("cless_s_s") => prop_assert_eq!(&server, "https://stage:1"),
                Some(_) => {
                    prop_assert!(target.servers[0].is_encrypted());
                    if let Some(variable) = variable {
                        prop_assert_eq!(&server, SERVERS[variable]);
                    }
                }
            }
        }
    }
}
