//! Pulls, with the node's credentials for the registry.

use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::errors::Error as BollardError;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt as _;

use super::answer::{is_out_of_space, sort};
use crate::runtime::credentials::{Credentials, RegistryConfig};
use crate::runtime::{Error, PullStep, reference};

/// The longest a pull may go without any word of progress.
const PULL_SILENCE: Duration = Duration::from_secs(120);

/// In what the engine says of a registry that wants (other) credentials.
const DENIALS: [&str; 5] = [
    "unauthorized",
    "no basic auth credentials",
    "authentication required",
    "access denied",
    "access to the resource is denied",
];

/// See [`crate::runtime::Runtime::pull`].
pub(super) async fn pull(
    client: &bollard::Docker,
    registries: &RegistryConfig,
    image: &str,
    progress: &(dyn Fn(PullStep) + Send + Sync),
) -> Result<Option<String>, Error> {
    let registry = reference::registry(image);
    let credentials = registries.credentials(registry).await;
    let credentials = credentials.map_err(|error| Error::Credentials {
        image: image.to_owned(),
        message: error.to_string(),
    })?;
    let known = credentials.is_some();
    let failed = |message: String| {
        if is_out_of_space(&message) {
            return Error::NoSpace(message);
        }
        let lower = message.to_lowercase();
        if !DENIALS.iter().any(|denial| lower.contains(denial)) {
            return Error::Pull {
                image: image.to_owned(),
                message,
            };
        }
        Error::Denied {
            image: image.to_owned(),
            message,
            remedy: remedy(registry, registries, known),
        }
    };

    // Without a tag the engine would fetch every tag of the repository.
    let options = CreateImageOptionsBuilder::default()
        .from_image(&reference::name(image))
        .build();
    let shown = credentials.map(|known| shown(known, registry));
    let mut steps = Box::pin(client.create_image(Some(options), None, shown));
    let mut digest = None;
    loop {
        let step = match tokio::time::timeout(PULL_SILENCE, steps.next()).await {
            Ok(Some(step)) => step,
            Ok(None) => return Ok(digest),
            Err(_) => {
                return Err(failed(format!(
                    "no progress for {} s",
                    PULL_SILENCE.as_secs()
                )));
            }
        };
        match step {
            Ok(info) => {
                if let Some(detail) = info.error_detail.and_then(|error| error.message) {
                    return Err(failed(detail));
                }
                let step = step_of(CreateImageInfo {
                    error_detail: None,
                    ..info
                });
                if let Some(found) = step.status.strip_prefix("Digest: ") {
                    digest = Some(found.trim().to_owned());
                }
                progress(step);
            }
            Err(BollardError::DockerStreamError { error }) => return Err(failed(error)),
            Err(BollardError::DockerResponseServerError { message, .. }) => {
                return Err(failed(message));
            }
            Err(other) => return Err(sort(other)),
        }
    }
}

fn step_of(info: CreateImageInfo) -> PullStep {
    let detail = info.progress_detail.unwrap_or_default();
    let bytes = |count: Option<i64>| count.and_then(|count| u64::try_from(count).ok());
    PullStep {
        layer: info.id,
        status: info.status.unwrap_or_default(),
        current: bytes(detail.current),
        total: bytes(detail.total),
    }
}

/// What to do about a registry that refuses.
fn remedy(registry: &str, registries: &RegistryConfig, known: bool) -> String {
    let file = match registries.path() {
        Some(path) => path.display().to_string(),
        None => "any registry configuration (there is no home folder)".to_owned(),
    };
    if known {
        format!(
            "check the name; if it is right, the credentials for {registry} in {file} on this node do \
             not suffice: `docker login {registry}` renews them"
        )
    } else {
        format!(
            "check the name; if it is right and private, this node has no credentials for {registry} \
             in {file}: `docker login {registry}` there, or give another file with --registry-config"
        )
    }
}

/// In the engine's form.
fn shown(credentials: Credentials, registry: &str) -> DockerCredentials {
    let server = DockerCredentials {
        serveraddress: Some(registry.to_owned()),
        ..Default::default()
    };
    match credentials {
        Credentials::Password { username, password } => DockerCredentials {
            username: Some(username),
            password: Some(password.reveal().to_owned()),
            ..server
        },
        Credentials::IdentityToken(token) => DockerCredentials {
            identitytoken: Some(token.reveal().to_owned()),
            ..server
        },
        Credentials::RegistryToken(token) => DockerCredentials {
            registrytoken: Some(token.reveal().to_owned()),
            ..server
        },
    }
}

/// The engine reads the header in the URL-safe alphabet and, where it cannot, goes on without
/// credentials and without a word; bollard 0.21 writes it in the other, which differs for some
/// passwords.
pub(super) fn url_safe_credentials(
    mut request: bollard::BollardRequest,
) -> bollard::BollardRequest {
    const HEADER: &str = "x-registry-auth";
    let given = request.headers().get(HEADER);
    if let Some(Ok(text)) = given.map(|value| value.to_str())
        && text.contains(['+', '/'])
        && let Ok(mut value) = http::HeaderValue::try_from(text.replace('+', "-").replace('/', "_"))
    {
        value.set_sensitive(true);
        request.headers_mut().insert(HEADER, value);
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_reproduce_credentials_lost_for_their_alphabet() {
        let header = |value: &str| {
            let request = http::Request::builder().header("X-Registry-Auth", value);
            let request = request
                .body(bollard::body_full(bytes::Bytes::new()))
                .unwrap();
            let request = url_safe_credentials(request);
            request.headers()["x-registry-auth"]
                .to_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(header("ab+/Pz8="), "ab-_Pz8=");
        assert_eq!(header("abcd"), "abcd");
    }

    #[test]
    fn a_refusal_tells_what_to_do() {
        let config = RegistryConfig::new(Some("/etc/cless/registries.json".into()));
        let unknown = remedy("r.example", &config, false);
        assert!(unknown.contains("has no credentials for r.example in /etc/cless/registries.json"));
        let known = remedy("r.example", &config, true);
        assert!(known.contains("do not suffice"), "{known}");
    }
}
