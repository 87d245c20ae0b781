//! The image that a reference names at this moment: in its registry, else on this node.
//!
//! A tag may be pushed or built again at any time, so the control plane asks one node when a version
//! is created. The registry comes first, because the node's copy may be old. A name that the node has
//! without a digest was built or loaded here: Docker Hub is not asked for it, since another person may
//! own that name there.
//!
//! [`decide_locally`] and [`decide`] are pure. Laws, tested below: the digest of a registry that
//! responds is the answer; without a registry the answer is the node's own image or a failure; a
//! failure blames the reference only if its registry says that there is no such image, or is not to
//! be asked.

use std::time::{Duration, SystemTime};

use super::puller::digest_of;
use crate::report::{FailureReason, ImageSource, Resolution, ResolvedImage, StartFailure};
use crate::runtime::{Error, Image, Runtime, reference};

/// Resolves a reference with the engine and the registry credentials of this node. `local_only`: the
/// registry is not asked.
///
/// # Errors
/// [`FailureReason::Image`] if the reference names no image; another reason is trouble of the node.
pub async fn resolve(runtime: &dyn Runtime, image: &str, local_only: bool) -> Resolution {
    let failed = |reason, message| Err(failure(reason, message, SystemTime::now()));
    if !reference::is_plausible(image) {
        let message = "the image reference has a character that no reference has".to_owned();
        return failed(FailureReason::Image, message);
    }
    let local = match runtime.image(image).await {
        Ok(found) => Some(found),
        Err(Error::ImageMissing { .. }) => None,
        Err(error) => return failed(FailureReason::Engine, error.to_string()),
    };
    let now = SystemTime::now();
    if let Some(decided) = decide_locally(image, local.as_ref(), local_only, now) {
        return decided;
    }
    let asked = runtime.registry_digest(image).await;
    decide(image, local.as_ref(), asked, SystemTime::now())
}

/// The answer if no registry is to be asked; `None` if it is.
fn decide_locally(
    image: &str,
    local: Option<&Image>,
    local_only: bool,
    now: SystemTime,
) -> Option<Resolution> {
    let hub = reference::registry(image) == reference::HUB;
    match local {
        Some(found) if local_only || (hub && digest_of(image, found).is_none()) => {
            Some(Ok(local_image(found, now, None)))
        }
        None if local_only => Some(Err(failure(FailureReason::Image, never_pulled(image), now))),
        _ => None,
    }
}

/// The answer after the registry was asked.
fn decide(
    image: &str,
    local: Option<&Image>,
    asked: Result<String, Error>,
    now: SystemTime,
) -> Resolution {
    let error = match asked {
        Ok(digest) => {
            let by_digest = reference::by_digest(image, &digest);
            let pulled = local.filter(|found| found.repo_digests.contains(&by_digest));
            return Ok(ResolvedImage {
                source: ImageSource::Registry,
                id: pulled.map(|found| found.id.clone()),
                digest: Some(digest),
                created: pulled.and_then(|found| found.created),
                resolved_at: now,
                warning: None,
            });
        }
        Err(error) => error,
    };
    let unknown_to_registry = matches!(error, Error::Pull { .. });
    let Some(found) = local else {
        let (reason, remedy) = match &error {
            Error::Pull { .. } => (
                FailureReason::Image,
                ": check the reference, or push or load the image",
            ),
            Error::Denied { remedy, .. } => (FailureReason::Engine, &*format!(": {remedy}")),
            _ => (FailureReason::Engine, ""),
        };
        return Err(failure(reason, format!("{error}{remedy}"), now));
    };
    let warning = || {
        let age = found
            .created
            .and_then(|created| now.duration_since(created).ok())
            .map(|age| format!(", built {} ago", in_words(age)));
        format!(
            "{error}; the image of this node is used{}",
            age.unwrap_or_default()
        )
    };
    match digest_of(image, found) {
        Some(digest) => Ok(ResolvedImage {
            source: ImageSource::LocalCopy,
            id: Some(found.id.clone()),
            digest: Some(digest),
            created: found.created,
            resolved_at: now,
            warning: Some(warning()),
        }),
        None => Ok(local_image(
            found,
            now,
            (!unknown_to_registry).then(warning),
        )),
    }
}

/// The failure of an image that is missing on this node and is not to be pulled.
pub fn never_pulled(image: &str) -> String {
    format!(
        "image {image} is not on this node and the pull policy is `never`: load it on the node, or \
         deploy with --pull missing"
    )
}

fn failure(reason: FailureReason, message: String, now: SystemTime) -> Box<StartFailure> {
    Box::new(StartFailure::new(reason, message, now))
}

fn local_image(found: &Image, now: SystemTime, warning: Option<String>) -> ResolvedImage {
    ResolvedImage {
        source: ImageSource::LocalImage,
        id: Some(found.id.clone()),
        digest: None,
        created: found.created,
        resolved_at: now,
        warning,
    }
}

/// A span of time in its largest unit, as in `3 days`.
fn in_words(span: Duration) -> String {
    let seconds = span.as_secs();
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7200 => (seconds / 60, "minute"),
        7200..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + 1000 * DAY
    }

    fn local(repo_digests: &[&str]) -> Image {
        Image {
            id: "sha256:id".into(),
            exposed: vec![],
            tags: vec![],
            repo_digests: repo_digests.iter().map(|&one| one.to_owned()).collect(),
            created: Some(now() - 3 * DAY),
        }
    }

    fn unavailable(image: &str) -> Error {
        Error::RegistryUnavailable {
            image: image.into(),
            message: "connection refused".into(),
        }
    }

    fn missing(image: &str) -> Error {
        Error::Pull {
            image: image.into(),
            message: "manifest unknown".into(),
        }
    }

    #[test]
    fn a_local_name_of_the_hub_is_not_looked_up_there() {
        let built = local(&[]);
        let decided = decide_locally("app:1", Some(&built), false, now());
        let resolved = decided.expect("at once").unwrap();
        assert_eq!(resolved.source, ImageSource::LocalImage);
        assert_eq!(
            (resolved.id, resolved.digest),
            (Some(built.id.clone()), None)
        );
        let pulled = local(&["app@sha256:1"]);
        assert_eq!(decide_locally("app:1", Some(&pulled), false, now()), None);
        assert_eq!(
            decide_locally("r:5000/app:1", Some(&built), false, now()),
            None
        );
        assert_eq!(decide_locally("app:1", None, false, now()), None);
    }

    #[test]
    fn never_means_the_image_of_the_node() {
        let pulled = local(&["app@sha256:1"]);
        let resolved = decide_locally("app:1", Some(&pulled), true, now()).unwrap();
        assert_eq!(resolved.unwrap().source, ImageSource::LocalImage);
        let failure = decide_locally("app:1", None, true, now()).unwrap();
        assert_eq!(failure.unwrap_err().reason, FailureReason::Image);
    }

    #[test]
    fn a_registry_that_does_not_respond_leaves_the_copy_with_its_age() {
        let image = "r:5000/app:1";
        let copy = local(&["r:5000/app@sha256:1"]);
        let resolved = decide(image, Some(&copy), Err(unavailable(image)), now()).unwrap();
        assert_eq!(resolved.source, ImageSource::LocalCopy);
        assert_eq!(resolved.digest.as_deref(), Some("sha256:1"));
        let warning = resolved.warning.unwrap();
        assert!(
            warning.contains("connection refused") && warning.ends_with("built 3 days ago"),
            "{warning}"
        );
        let resolved = decide(image, Some(&local(&[])), Err(unavailable(image)), now()).unwrap();
        assert_eq!(resolved.source, ImageSource::LocalImage);
        assert!(resolved.warning.is_some());
    }

    #[test]
    fn an_image_that_its_registry_does_not_know_is_the_local_one_or_none() {
        let image = "r:5000/app:1";
        let resolved = decide(image, Some(&local(&[])), Err(missing(image)), now()).unwrap();
        assert_eq!(
            (resolved.source, resolved.warning),
            (ImageSource::LocalImage, None)
        );
        let failure = decide(image, None, Err(missing(image)), now()).unwrap_err();
        assert_eq!(failure.reason, FailureReason::Image);
        assert!(failure.message.contains("manifest unknown"), "{failure:?}");
        let failure = decide(image, None, Err(unavailable(image)), now()).unwrap_err();
        assert_eq!(failure.reason, FailureReason::Engine);
    }

    #[test]
    fn the_id_is_that_of_the_digest() {
        let image = "r:5000/app:1";
        let copy = local(&["r:5000/app@sha256:1"]);
        let of = |digest: &str| decide(image, Some(&copy), Ok(digest.into()), now()).unwrap();
        assert_eq!(of("sha256:1").id.as_deref(), Some("sha256:id"));
        assert_eq!((of("sha256:2").id, of("sha256:2").created), (None, None));
    }

    #[test]
    fn ages_are_in_words() {
        for (seconds, words) in [
            (1, "1 second"),
            (119, "119 seconds"),
            (3600, "60 minutes"),
            (7200, "2 hours"),
            (400_000, "4 days"),
        ] {
            assert_eq!(in_words(Duration::from_secs(seconds)), words);
        }
    }

    proptest! {
        #[test]
        fn the_answer_is_the_registrys_or_the_nodes_own(
            has_local: bool,
            digests in prop::collection::vec(prop::sample::select(vec![
                "r:5000/app@sha256:1", "r:5000/app@sha256:2", "other@sha256:1",
            ]), 0..3),
            answer in 0u8..5,
        ) {
            let image = "r:5000/app:1";
            let own = local(&digests);
            let asked = match answer {
                0 => Ok("sha256:2".to_owned()),
                1 => Err(missing(image)),
                2 => Err(unavailable(image)),
                3 => Err(Error::Denied { image: image.into(), message: "denied".into(), remedy: "log in".into() }),
                _ => Err(Error::NoResponse("none".into())),
            };
            match decide(image, has_local.then_some(&own), asked, now()) {
                Ok(resolved) if answer == 0 => {
                    prop_assert_eq!(resolved.source, ImageSource::Registry);
                    prop_assert_eq!(resolved.digest.as_deref(), Some("sha256:2"));
                }
                Ok(resolved) => {
                    prop_assert!(has_local);
                    prop_assert_eq!(resolved.id, Some(own.id.clone()));
                    prop_assert_eq!(&resolved.digest, &digest_of(image, &own));
                    prop_assert_eq!(resolved.digest.is_some(), resolved.source == ImageSource::LocalCopy);
                }
                Err(failure) => {
                    prop_assert!(!has_local && answer != 0);
                    prop_assert_eq!(failure.reason == FailureReason::Image, answer == 1);
                }
            }
        }
    }
}
