//! Image pulls with the node's registry credentials.

use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::errors::Error as BollardError;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt as _;

use super::error::{classify, is_out_of_space};
use crate::runtime::credentials::{Credentials, RegistryConfig};
use crate::runtime::{Error, PullStep, reference};

/// Maximum time between two progress messages of a pull.
const PULL_SILENCE: Duration = Duration::from_secs(120);

/// Parts of error messages that indicate missing or insufficient credentials.
const DENIALS: [&str; 5] = [
    "unauthorized",
    "no basic auth credentials",
    "authentication required",
    "access denied",
    "access to the resource is denied",
];

/// Timeout of a question to a registry.
const REGISTRY_TIMEOUT: Duration = Duration::from_secs(8);

/// Parts of error messages that indicate a registry that does not respond, fails, or limits requests.
/// The engine passes such errors on as text.
const OUTAGES: [&str; 17] = [
    "dial tcp",
    "no such host",
    "server misbehaving",
    "connection refused",
    "connection reset",
    "network is unreachable",
    "i/o timeout",
    "context deadline exceeded",
    "client.timeout",
    "tls handshake",
    "x509:",
    "unexpected eof",
    ": eof",
    "broken pipe",
    "toomanyrequests",
    "unexpected http status: 5",
    "no progress for",
];

/// See [`crate::runtime::Runtime::pull`].
pub(super) async fn pull(
    client: &bollard::Docker,
    registries: &RegistryConfig,
    image: &str,
    progress: &(dyn Fn(PullStep) + Send + Sync),
) -> Result<Option<String>, Error> {
    let credentials = credentials(registries, image).await?;
    let known = credentials.is_some();
    let failed = |message: String| classify_message(image, message, registries, known);

    // Without a tag the engine would pull every tag of the repository.
    let options = CreateImageOptionsBuilder::default()
        .from_image(&reference::name(image))
        .build();
    let mut steps = Box::pin(client.create_image(Some(options), None, credentials));
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
                let step = pull_step(CreateImageInfo {
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
            Err(other) => return Err(classify(other)),
        }
    }
}

/// See [`crate::runtime::Runtime::registry_digest`].
pub(super) async fn registry_digest(
    client: &bollard::Docker,
    registries: &RegistryConfig,
    image: &str,
) -> Result<String, Error> {
    let credentials = credentials(registries, image).await?;
    let known = credentials.is_some();
    let unavailable = |message: String| Error::RegistryUnavailable {
        image: image.to_owned(),
        message,
    };
    let name = reference::name(image);
    let asked = client.inspect_registry_image(&name, credentials);
    match tokio::time::timeout(REGISTRY_TIMEOUT, asked).await {
        Ok(Ok(answer)) => answer
            .descriptor
            .digest
            .filter(|digest| digest.starts_with("sha256:"))
            .ok_or_else(|| unavailable("it gave no digest".to_owned())),
        Ok(Err(BollardError::DockerResponseServerError {
            status_code,
            message,
        })) => Err(match classify_message(image, message, registries, known) {
            // Only a client error of the registry is about the image.
            Error::Pull { message, .. } if status_code >= 500 => unavailable(message),
            other => other,
        }),
        Ok(Err(other)) => Err(classify(other)),
        Err(_) => Err(unavailable(format!(
            "no response within {} s",
            REGISTRY_TIMEOUT.as_secs()
        ))),
    }
}

/// The credentials of this node for the registry of an image, in the engine's form.
async fn credentials(
    registries: &RegistryConfig,
    image: &str,
) -> Result<Option<DockerCredentials>, Error> {
    let registry = reference::registry(image);
    match registries.credentials(registry).await {
        Ok(known) => Ok(known.map(|known| docker_credentials(known, registry))),
        Err(error) => Err(Error::Credentials {
            image: image.to_owned(),
            message: error.to_string(),
        }),
    }
}

/// Classifies the message of a registry, which the engine passes on as text.
fn classify_message(
    image: &str,
    message: String,
    registries: &RegistryConfig,
    known: bool,
) -> Error {
    if is_out_of_space(&message) {
        return Error::NoSpace(message);
    }
    let lower = message.to_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| lower.contains(part));
    let image = image.to_owned();
    if has(&DENIALS) {
        let remedy = remedy(reference::registry(&image), registries, known);
        return Error::Denied {
            image,
            message,
            remedy,
        };
    }
    match has(&OUTAGES) {
        true => Error::RegistryUnavailable { image, message },
        false => Error::Pull { image, message },
    }
}

fn pull_step(info: CreateImageInfo) -> PullStep {
    let detail = info.progress_detail.unwrap_or_default();
    let bytes = |count: Option<i64>| count.and_then(|count| u64::try_from(count).ok());
    PullStep {
        layer: info.id,
        status: info.status.unwrap_or_default(),
        current: bytes(detail.current),
        total: bytes(detail.total),
    }
}

/// The remedy for a denied pull.
fn remedy(registry: &str, registries: &RegistryConfig, known: bool) -> String {
    let file = match registries.path() {
        Some(path) => path.display().to_string(),
        None => "any registry configuration (no home folder is known)".to_owned(),
    };
    if known {
        format!(
            "check the name; if it is right, the credentials for {registry} in {file} on this node are \
             insufficient: renew them with `docker login {registry}`"
        )
    } else {
        format!(
            "check the name; if the image is private, this node has no credentials for {registry} \
             in {file}: run `docker login {registry}`, or choose another file with --registry-config"
        )
    }
}

/// Converts credentials to the engine's form.
fn docker_credentials(credentials: Credentials, registry: &str) -> DockerCredentials {
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

/// The engine decodes the header with the URL-safe alphabet and silently proceeds without
/// credentials if that fails. Bollard 0.21 encodes with the standard alphabet, which differs for
/// some passwords.
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
    fn an_outage_of_a_registry_is_not_the_fault_of_the_image() {
        let class = |message: &str| {
            let config = RegistryConfig::new(None);
            classify_message("r.example/app:1", message.to_owned(), &config, false)
        };
        for outage in [
            "Get \"http://127.0.0.1:5999/v2/\": dial tcp 127.0.0.1:5999: connect: connection refused",
            "Get \"https://r.example/v2/\": dial tcp: lookup r.example: no such host",
            "Get \"https://r.example/v2/\": net/http: TLS handshake timeout",
            "received unexpected HTTP status: 503 Service Unavailable",
            "toomanyrequests: You have reached your pull rate limit.",
            "no progress for 120 s",
            // The connection was closed before a response.
            "error pulling image configuration: download failed after attempts=6: EOF",
            "Get \"https://r.example/v2/\": EOF",
        ] {
            let error = class(outage);
            assert!(
                matches!(error, Error::RegistryUnavailable { .. }),
                "{error:?}"
            );
        }
        let error = class("manifest for geoffrey/eof:1 not found: manifest unknown");
        assert!(matches!(error, Error::Pull { .. }), "{error:?}");
        let error = class("unauthorized: authentication required");
        assert!(matches!(error, Error::Denied { .. }), "{error:?}");
        let error = class("write /x: no space left on device");
        assert!(matches!(error, Error::NoSpace(_)), "{error:?}");
    }

    #[test]
    fn a_refusal_names_the_remedy() {
        let config = RegistryConfig::new(Some("/etc/cless/registries.json".into()));
        let unknown = remedy("r.example", &config, false);
        assert!(unknown.contains("has no credentials for r.example in /etc/cless/registries.json"));
        let known = remedy("r.example", &config, true);
        assert!(known.contains("are insufficient"), "{known}");
    }
}
