//! The contexts and their changes, PURE. Law: the current context exists.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use cless_proto::tls::Fingerprint;

use super::server_url::ServerUrl;
use super::token::Token;

/// Maximum length of the name of a context.
const NAME_MAX: usize = 63;

/// The name of a context: letters, digits, `-`, `_` and `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ContextName(String);

/// A text that is no [`ContextName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not the name of a context: use 1 to 63 characters of a-z, A-Z, 0-9, `-`, `_` and `.`")]
pub(crate) struct InvalidName;

impl FromStr for ContextName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let is_valid = (1..=NAME_MAX).contains(&text.len())
            && text.bytes().all(is_allowed)
            && !text.starts_with(['-', '.']);
        is_valid.then(|| Self(text.to_owned())).ok_or(InvalidName)
    }
}

impl fmt::Display for ContextName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A control plane with a way to trust it and a token for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Context {
    /// Addresses of one cluster, tried in order. Not empty.
    pub(crate) servers: Vec<ServerUrl>,
    /// Authorities of the cluster. Not empty for `https`.
    pub(crate) pins: Vec<Fingerprint>,
    /// `None` after a logout.
    pub(crate) token: Option<Token>,
}

/// All contexts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Config {
    /// The context of commands that name none. `None`, or the name of a context.
    current: Option<ContextName>,
    contexts: BTreeMap<ContextName, Context>,
}

/// The reason why a context cannot be used or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// No context has the name.
    #[error("there is no context `{0}`")]
    Unknown(String),
    /// No context is current.
    #[error("no context is current")]
    NoCurrent,
    /// The name belongs to another control plane.
    #[error("the context `{name}` is another control plane, {server}")]
    Taken {
        name: ContextName,
        server: ServerUrl,
    },
}

impl From<Error> for crate::error::Error {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Unknown(_) | Error::NoCurrent => Self::Usage {
                message,
                hint: Some("list contexts with `cless context list`".to_owned()),
            },
            Error::Taken { .. } => Self::Conflict {
                message,
                hint: "give this one another name with --name".to_owned(),
            },
        }
    }
}

impl Config {
    /// Contexts, of which the current one is among them.
    pub(super) fn new(
        contexts: BTreeMap<ContextName, Context>,
        current: Option<ContextName>,
    ) -> Result<Self, Error> {
        match current {
            Some(name) if !contexts.contains_key(&name) => Err(Error::Unknown(name.0)),
            current => Ok(Self { current, contexts }),
        }
    }

    pub(crate) fn current(&self) -> Option<&ContextName> {
        self.current.as_ref()
    }

    /// All contexts by name.
    pub(crate) fn contexts(&self) -> impl Iterator<Item = (&ContextName, &Context)> {
        self.contexts.iter()
    }

    /// The context of the name, or the current one.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn context(&self, name: Option<&str>) -> Result<(&ContextName, &Context), Error> {
        let Some(name) = name else {
            let current = self.current.as_ref().ok_or(Error::NoCurrent)?;
            let context = self.contexts.get_key_value(current);
            return context.ok_or(Error::NoCurrent);
        };
        let known = name.parse().ok();
        let context = known.and_then(|name: ContextName| self.contexts.get_key_value(&name));
        context.ok_or_else(|| Error::Unknown(name.to_owned()))
    }

    /// The context that has the server; the current one first.
    pub(crate) fn of_server(&self, server: &ServerUrl) -> Option<(&ContextName, &Context)> {
        let has = |context: &Context| context.servers.contains(server);
        let current = self.context(None).ok().filter(|(_, context)| has(context));
        current.or_else(|| self.contexts.iter().find(|(_, context)| has(context)))
    }

    /// Adds or replaces a context.
    ///
    /// # Errors
    /// If the name belongs to a context without any of the servers.
    pub(crate) fn log_in(&mut self, name: ContextName, context: Context) -> Result<(), Error> {
        if let Some(other) = self.contexts.get(&name)
            && !other.servers.iter().any(|s| context.servers.contains(s))
            && let Some(server) = other.servers.first()
        {
            let server = server.clone();
            return Err(Error::Taken { name, server });
        }
        self.contexts.insert(name, context);
        Ok(())
    }

    /// Adds or replaces a context that this program owns, whatever it was before, and makes it
    /// current if none is.
    pub(crate) fn adopt(&mut self, name: ContextName, context: Context) {
        self.current.get_or_insert_with(|| name.clone());
        self.contexts.insert(name, context);
    }

    /// Makes a context current.
    ///
    /// # Errors
    /// If there is none of the name.
    pub(crate) fn use_context(&mut self, name: &str) -> Result<ContextName, Error> {
        let name = self.context(Some(name))?.0.clone();
        self.current = Some(name.clone());
        Ok(name)
    }

    /// Removes the token of a context, and returns its name and whether it had one.
    ///
    /// # Errors
    /// If there is no such context.
    pub(crate) fn log_out(&mut self, name: Option<&str>) -> Result<(ContextName, bool), Error> {
        let name = self.context(name)?.0.clone();
        let context = self.contexts.get_mut(&name);
        let had = context.is_some_and(|context| context.token.take().is_some());
        Ok((name, had))
    }

    /// Removes a context; if it is current, none is afterwards.
    ///
    /// # Errors
    /// If there is none of the name.
    pub(crate) fn remove(&mut self, name: &str) -> Result<ContextName, Error> {
        let name = self.context(Some(name))?.0.clone();
        self.contexts.remove(&name);
        if self.current.as_ref() == Some(&name) {
            self.current = None;
        }
        Ok(name)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn context(server: &str, token: Option<&str>) -> Context {
        Context {
            servers: vec![server.parse().unwrap()],
            pins: vec![Fingerprint::from_bytes([7; 32])],
            token: token.map(|token| token.parse().unwrap()),
        }
    }

    /// Any configuration.
    pub(crate) fn configs() -> impl Strategy<Value = Config> {
        let server = ("[a-z]{1,8}(\\.[a-z]{2,4})?", 1..=u16::MAX)
            .prop_map(|(host, port)| format!("https://{host}:{port}").parse().unwrap());
        let token = "cless_[0-9A-Za-z]{11}_[0-9A-Za-z]{43}".prop_map(|text| text.parse().unwrap());
        let context = (
            proptest::collection::vec(server, 1..3),
            proptest::collection::vec(any::<[u8; 32]>(), 1..3),
            proptest::option::of(token),
        );
        let context = context.prop_map(|(servers, pins, token)| Context {
            servers,
            pins: pins.into_iter().map(Fingerprint::from_bytes).collect(),
            token,
        });
        let name = "[A-Za-z0-9_][A-Za-z0-9._-]{0,62}".prop_map(|name| name.parse().unwrap());
        let contexts = proptest::collection::btree_map(name, context, 0..4);
        (contexts, any::<prop::sample::Index>(), any::<bool>()).prop_map(
            |(contexts, at, is_set)| {
                let names: Vec<&ContextName> = contexts.keys().collect();
                let current = (is_set && !names.is_empty()).then(|| (*at.get(&names)).clone());
                Config { current, contexts }
            },
        )
    }

    proptest! {
        #[test]
        fn the_current_context_exists_after_any_change(
            mut config in configs(),
            name in "[a-c]",
            changes in proptest::collection::vec(0u8..5, 0..8),
        ) {
            for change in changes {
                let name: ContextName = name.parse().unwrap();
                let text = name.to_string();
                let context = context("https://a:1", None);
                let _ = match change {
                    0 => config.log_in(name, context),
                    1 => { config.adopt(name, context); Ok(()) }
                    2 => config.use_context(&text).map(drop),
                    3 => config.log_out(Some(&text)).map(drop),
                    _ => config.remove(&text).map(drop),
                };
                if let Some(current) = config.current() {
                    prop_assert!(config.contexts.contains_key(current));
                }
            }
        }
    }

    #[test]
    fn a_name_belongs_to_one_control_plane() {
        let mut config = Config::default();
        let name = || "prod".parse::<ContextName>().unwrap();
        config.log_in(name(), context("https://a:1", None)).unwrap();
        let again = context("https://a:1", Some("cless_0_1"));
        config.log_in(name(), again.clone()).unwrap();
        let other = config.log_in(name(), context("https://b:1", None));
        let words = other.unwrap_err().to_string();
        assert_eq!(
            words,
            "the context `prod` is another control plane, https://a:1"
        );
        assert_eq!(config.context(Some("prod")).unwrap().1, &again);
        assert_eq!(config.context(None), Err(Error::NoCurrent));
        config.use_context("prod").unwrap();
        assert_eq!(config.log_out(None), Ok((name(), true)));
        assert_eq!(config.log_out(None), Ok((name(), false)));
        config.adopt("dev".parse().unwrap(), again);
        assert_eq!(config.current(), Some(&name()));
        config.remove("prod").unwrap();
        assert_eq!(config.current(), None);
    }

    #[test]
    fn names_are_plain() {
        for good in ["a", "prod.eu-1", "_x", &"x".repeat(63)] {
            assert!(good.parse::<ContextName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "a b", "a/b", "ä", "a\n", &"x".repeat(64)] {
            assert!(bad.parse::<ContextName>().is_err(), "{bad}");
        }
    }
}
