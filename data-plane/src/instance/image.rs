//! Image references, as far as pulling by digest needs them. Pure.

use crate::runtime::Image;

/// `repository@digest` for an image reference, whatever tag or digest it had.
pub(super) fn by_digest(image: &str, digest: &str) -> String {
    format!("{}@{digest}", repository(image))
}

fn repository(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or(image);
    match name.rsplit_once(':') {
        // A colon before the last slash is a registry's port.
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

/// The digest under which the image's own repository has it.
pub(super) fn digest_of(image: &str, found: &Image) -> Option<String> {
    let wanted = repository(image);
    found.repo_digests.iter().find_map(|known| {
        let (repository, digest) = known.split_once('@')?;
        (repository == wanted).then(|| digest.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_pulled_by_digest_without_its_tag() {
        let digest = "sha256:00";
        for (image, want) in [
            ("hello:1", "hello@sha256:00"),
            (
                "r.example:5000/team/app:2",
                "r.example:5000/team/app@sha256:00",
            ),
            ("r.example:5000/app", "r.example:5000/app@sha256:00"),
            ("app@sha256:ff", "app@sha256:00"),
        ] {
            assert_eq!(by_digest(image, digest), want);
        }
    }

    #[test]
    fn the_digest_is_that_of_the_images_own_repository() {
        let image = Image {
            id: String::new(),
            exposed: vec![],
            repo_digests: vec!["other@sha256:1".into(), "r:5000/app@sha256:2".into()],
        };
        assert_eq!(
            digest_of("r:5000/app:tag", &image).as_deref(),
            Some("sha256:2")
        );
        assert_eq!(digest_of("app:tag", &image), None);
    }
}
