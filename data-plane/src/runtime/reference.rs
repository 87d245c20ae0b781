//! Image references in the engine's canonical form. Pure.
//!
//! One image has many spellings: `hello`, `hello:latest` and `docker.io/library/hello:latest` are
//! equal. The canonical form is the one in which the engine lists names, so names can be compared.
//!
//! Laws, tested below: canonical forms are fixed points; no text causes a panic. The control plane
//! validates references (`domain/image.rs`).

/// The default registry and its old name.
pub const HUB: &str = "docker.io";
const HUB_OLD: &str = "index.docker.io";

/// Host, and port if given, of the image's registry; `docker.io` by default.
pub fn registry(image: &str) -> &str {
    split(image).0
}

/// The repository in canonical form: without `docker.io/`, `library/`, tag and digest.
pub fn repository(image: &str) -> String {
    let (registry, path) = split(image);
    let path = path.split('@').next().unwrap_or(path);
    let path = match path.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => path,
        _ => path,
    };
    if registry != HUB {
        return format!("{registry}/{path}");
    }
    match path.strip_prefix("library/") {
        Some(name) if !name.contains('/') => name.to_owned(),
        _ => path.to_owned(),
    }
}

/// `repository@digest`, replacing any tag or digest of the reference.
pub fn by_digest(image: &str, digest: &str) -> String {
    format!("{}@{digest}", repository(image))
}

/// The digest in the reference, if any.
pub fn own_digest(image: &str) -> Option<&str> {
    image.split_once('@').map(|(_, digest)| digest)
}

/// Whether the text has only characters of references, and is not longer than one may be.
pub fn is_plausible(image: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/@[]".contains(&byte);
    let is_bounded = (1..=1024).contains(&image.len());
    is_bounded && image.bytes().all(allowed) && image.split('/').all(|part| part != "..")
}

/// The canonical name: `repository@digest` with a digest, otherwise `repository:tag`.
pub fn name(image: &str) -> String {
    if let Some(digest) = own_digest(image) {
        return by_digest(image, digest);
    }
    let (_, path) = split(image);
    match path.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => format!("{}:{tag}", repository(image)),
        _ => format!("{}:latest", repository(image)),
    }
}

/// Splits registry and path. The first part is a registry if it contains `.` or `:`, or is
/// `localhost`.
fn split(image: &str) -> (&str, &str) {
    match image.split_once('/') {
        Some((HUB | HUB_OLD, path)) => (HUB, path),
        Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => (first, path),
        _ => (HUB, image),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_reference_is_pulled_by_digest_without_its_tag() {
        for (image, want) in [
            ("hello:1", "hello@sha256:00"),
            (
                "r.example:5000/team/app:2",
                "r.example:5000/team/app@sha256:00",
            ),
            ("r.example:5000/app", "r.example:5000/app@sha256:00"),
            ("app@sha256:ff", "app@sha256:00"),
            ("app:3@sha256:ff", "app@sha256:00"),
        ] {
            assert_eq!(by_digest(image, "sha256:00"), want);
        }
    }

    #[test]
    fn one_image_has_one_name() {
        for (image, want) in [
            ("hello", "hello:latest"),
            ("docker.io/library/hello", "hello:latest"),
            ("index.docker.io/library/hello:latest", "hello:latest"),
            ("docker.io/team/app:1", "team/app:1"),
            ("library/hello:2", "hello:2"),
            ("library/a/b", "library/a/b:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest"),
            ("[::1]:5000/app:1", "[::1]:5000/app:1"),
            ("team/app:1@sha256:ab", "team/app@sha256:ab"),
        ] {
            assert_eq!(name(image), want);
        }
    }

    #[test]
    fn a_registry_is_distinguished_from_a_path() {
        for (image, want) in [
            ("hello", "docker.io"),
            ("team/app", "docker.io"),
            ("localhost/app", "localhost"),
            ("localhost:5000/app", "localhost:5000"),
            ("ghcr.io/team/app:1", "ghcr.io"),
        ] {
            assert_eq!(registry(image), want);
        }
    }

    #[test]
    fn text_that_would_change_a_request_is_no_reference() {
        for bad in [
            "",
            "a b",
            "a?b",
            "a#b",
            "../a",
            "a%2f",
            "a\n",
            &"a".repeat(1025),
        ] {
            assert!(!is_plausible(bad), "{bad}");
        }
    }

    fn references() -> impl Strategy<Value = String> {
        let registry = prop_oneof![
            Just(""),
            Just("docker.io/"),
            Just("index.docker.io/"),
            Just("localhost/"),
            Just("r.example:5000/"),
        ];
        let path = prop_oneof![Just("library/"), Just("team/"), Just("")];
        (
            registry,
            path,
            "[a-z]{1,5}(/[a-z]{1,3})?",
            "(:[a-z0-9.]{1,3})?",
            "(@sha256:[0-9a-f]{4})?",
        )
            .prop_map(|(registry, path, app, tag, digest)| {
                format!("{registry}{path}{app}{tag}{digest}")
            })
    }

    proptest! {
        #[test]
        fn a_name_is_its_own_name(image in references()) {
            prop_assert!(is_plausible(&image));
            let once = name(&image);
            prop_assert_eq!(name(&once), once.clone());
            prop_assert_eq!(registry(&once), registry(&image));
        }

        #[test]
        fn no_text_panics(image in "\\PC{0,60}") {
            let _ = (registry(&image).len(), name(&image), repository(&image));
        }
    }
}
