//! Parsing of the credentials file and lookup of a registry. Pure.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::{Credentials, Secret};

/// Docker Hub's key, an address kept for compatibility.
const HUB_KEY: &str = "https://index.docker.io/v1/";
const HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// Padding is optional: some tools omit it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The relevant part of the file; other fields are ignored.
#[derive(serde::Deserialize, Default)]
pub(super) struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(default, rename = "credsStore")]
    store: String,
}

#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// The entry with this key is malformed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadAuth(pub(super) String);

impl Config {
    /// The configured helper for this registry, if any.
    pub(super) fn helper(&self, registry: &str) -> Option<&str> {
        let name = match find(&self.helpers, registry) {
            Some((_, own)) => own,
            None => &self.store,
        };
        (!name.is_empty()).then_some(name)
    }

    /// The file's own credentials for this registry. Entries without a secret are ignored; they
    /// remain when a helper stores it.
    pub(super) fn entry(&self, registry: &str) -> Result<Option<Credentials>, BadAuth> {
        let Some((key, entry)) = find(&self.auths, registry) else {
            return Ok(None);
        };
        let secret = |text: &str| Secret(text.to_owned());
        if !entry.identitytoken.is_empty() {
            return Ok(Some(Credentials::IdentityToken(secret(
                &entry.identitytoken,
            ))));
        }
        if !entry.registrytoken.is_empty() {
            return Ok(Some(Credentials::RegistryToken(secret(
                &entry.registrytoken,
            ))));
        }
        let (username, password) = if entry.auth.is_empty() {
            (entry.username.clone(), entry.password.clone())
        } else {
            decode(&entry.auth).ok_or_else(|| BadAuth(key.to_owned()))?
        };
        let known = !username.is_empty();
        Ok(known.then_some(Credentials::Password {
            username,
            password: Secret(password),
        }))
    }
}

/// The registry's name in requests to helpers.
pub(super) fn server_address(registry: &str) -> &str {
    if HUB.contains(&registry) {
        HUB_KEY
    } else {
        registry
    }
}

/// The entry of a registry: by its current key, otherwise by an older form with scheme or path.
fn find<'a, T>(entries: &'a BTreeMap<String, T>, registry: &str) -> Option<(&'a str, &'a T)> {
    let exact = entries.get_key_value(server_address(registry));
    let wanted = host(registry);
    exact
        .or_else(|| entries.iter().find(|(key, _)| host(key) == wanted))
        .map(|(key, value)| (key.as_str(), value))
}

/// Host and port of a key; all names of Docker Hub map to one.
fn host(key: &str) -> &str {
    let bare = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    let host = bare.split('/').next().unwrap_or(bare);
    if HUB.contains(&host) { HUB[0] } else { host }
}

/// Decodes base64 of `USER:PASSWORD`. The password may contain colons; trailing NULs, left by old
/// versions of `docker login`, are removed.
fn decode(auth: &str) -> Option<(String, String)> {
    let text = String::from_utf8(BASE64.decode(auth.trim()).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    let password = password.trim_end_matches('\0');
    Some((username.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config(text: &str) -> Config {
        serde_json::from_str(text).unwrap()
    }

    fn password(username: &str, password: &str) -> Credentials {
        Credentials::Password {
            username: username.into(),
            password: Secret(password.into()),
        }
    }

    #[test]
    fn a_registry_is_found_however_its_key_is_written() {
        for (key, registry) in [
            ("r.example", "r.example"),
            ("https://r.example", "r.example"),
            ("http://r.example/v2/", "r.example"),
            ("r.example:5000", "r.example:5000"),
            ("http://127.0.0.1:5000", "127.0.0.1:5000"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("docker.io", "docker.io"),
            ("registry-1.docker.io", "docker.io"),
        ] {
            // "me:a:b" in base64.
            let file = config(&format!(
                r#"{{"auths": {{"{key}": {{"auth": "bWU6YTpi"}}}}}}"#
            ));
            assert_eq!(
                file.entry(registry),
                Ok(Some(password("me", "a:b"))),
                "{key}"
            );
            assert_eq!(file.entry("other.example"), Ok(None), "{key}");
            assert_eq!(file.entry("r.example:5001"), Ok(None), "{key}");
        }
    }

    #[test]
    fn the_exact_key_wins_over_an_old_form() {
        let file = config(
            r#"{"auths": {"https://r.example": {"username": "old", "password": "1"},
                          "r.example": {"username": "new", "password": "2"}}}"#,
        );
        assert_eq!(file.entry("r.example"), Ok(Some(password("new", "2"))));
    }

    #[test]
    fn tokens_come_before_passwords() {
        let file = config(
            r#"{"auths": {"a": {"auth": "bWU6YQ==", "identitytoken": "i"},
                          "b": {"registrytoken": "r"}, "c": {}, "d": {"auth": "bWU6AAA"}}}"#,
        );
        let secret = |text: &str| Secret(text.into());
        assert_eq!(
            file.entry("a"),
            Ok(Some(Credentials::IdentityToken(secret("i"))))
        );
        assert_eq!(
            file.entry("b"),
            Ok(Some(Credentials::RegistryToken(secret("r"))))
        );
        assert_eq!(file.entry("c"), Ok(None), "a helper keeps it");
        assert_eq!(
            file.entry("d"),
            Ok(Some(password("me", ""))),
            "NULs, no padding"
        );
    }

    #[test]
    fn a_helper_of_the_registry_comes_before_the_store() {
        let file = config(
            r#"{"credHelpers": {"r.example": "own", "index.docker.io": "hub", "none.example": ""},
                "credsStore": "all", "auths": {"r.example": {}}}"#,
        );
        assert_eq!(file.helper("r.example"), Some("own"));
        assert_eq!(file.helper("docker.io"), Some("hub"));
        assert_eq!(file.helper("other.example"), Some("all"));
        assert_eq!(file.helper("none.example"), None, "switched off for it");
        assert_eq!(config("{}").helper("r.example"), None);
        assert_eq!(server_address("docker.io"), "https://index.docker.io/v1/");
    }

    proptest! {
        #[test]
        fn no_content_panics(key in "\\PC{0,20}", auth in "[A-Za-z0-9+/=]{0,20}", registry in "\\PC{0,20}") {
            let entry = Entry { auth, ..Default::default() };
            let file = Config { auths: [(key, entry)].into(), ..Default::default() };
            let _ = file.entry(&registry);
        }
    }
}
