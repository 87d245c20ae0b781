//! The image that a version's reference named, in words.

use cless_proto::v1 as pb;
use pb::resolved_image::Source;

use crate::output::table::{DetailPage, RenderContext};
use crate::text;

/// The lines of the page of a version.
pub(super) fn lines(version: &pb::Version, context: &RenderContext, page: &mut DetailPage) {
    let Some(image) = &version.resolved_image else {
        return;
    };
    let at = text::time(image.resolve_time.as_ref());
    page.line("Image id", text::clean(&image.id))
        .line("Image age", age(image, context))
        .line("Resolved", format!("{at}, from {}", origin(image)))
        .line("Warning", text::clean(&image.warning));
}

/// The age of the image; empty if its build time is unknown.
fn age(image: &pb::ResolvedImage, context: &RenderContext) -> String {
    match &image.create_time {
        Some(built) => format!("{} (built {built})", text::age(context.now, Some(built))),
        None => String::new(),
    }
}

fn origin(image: &pb::ResolvedImage) -> String {
    let node = text::clean(&image.node);
    match image.source() {
        Source::Registry => format!("the registry, by {node}"),
        Source::LocalCopy => format!("the copy on {node}, because the registry did not answer"),
        Source::LocalImage => format!("{node}; it was never in a registry"),
        Source::Unspecified => node,
    }
}

/// The line of a deploy about the image of its version, and the warning of the resolution.
pub(crate) fn resolution(
    version: &pb::Version,
    context: &RenderContext,
) -> (String, Option<String>) {
    let reference = version.spec.as_ref().map_or("", |spec| spec.image.as_str());
    let reference = text::clean(reference);
    let Some(image) = &version.resolved_image else {
        return if reference.contains('@') {
            (format!("image {reference}"), None)
        } else {
            let line = format!("image {reference}: not resolved yet; the first start decides");
            (line, None)
        };
    };
    let mut parts = Vec::new();
    if !version.image_digest.is_empty() {
        parts.push(abbreviated(&version.image_digest));
    }
    if !image.id.is_empty() {
        parts.push(format!("id {}", abbreviated(&image.id)));
    }
    if let Some(built) = &image.create_time {
        parts.push(format!("built {} ago", text::age(context.now, Some(built))));
    }
    parts.push(format!("from {}", origin(image)));
    let warning = text::clean(&image.warning);
    let line = format!("image {reference}: {}", parts.join(", "));
    (line, (!warning.is_empty()).then_some(warning))
}

/// The first 12 digits of a digest, as Docker shows it; the page of the version has all.
fn abbreviated(digest: &str) -> String {
    const SHOWN: usize = "sha256:".len() + 12;
    text::clean(digest).chars().take(SHOWN).collect()
}

/// Whether both versions name their images alike and yet run different ones.
pub(crate) fn resolution_changed(before: &pb::Version, after: &pb::Version) -> bool {
    let image = |version: &pb::Version| version.spec.clone().unwrap_or_default().image;
    let id = |version: &pb::Version| {
        let resolved = version.resolved_image.as_ref();
        resolved.map_or_else(String::new, |image| image.id.clone())
    };
    let differ = |a: &str, b: &str| !a.is_empty() && !b.is_empty() && a != b;
    let digests = (&before.image_digest, &after.image_digest);
    let unlike = match digests {
        (a, b) if a.is_empty() && b.is_empty() => differ(&id(before), &id(after)),
        (a, b) => differ(a, b),
    };
    image(before) == image(after) && unlike
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    fn version(digest: &str, image: Option<pb::ResolvedImage>) -> pb::Version {
        pb::Version {
            spec: Some(pb::VersionSpec {
                image: "hello:1".to_owned(),
                ..Default::default()
            }),
            image_digest: digest.to_owned(),
            resolved_image: image,
            ..Default::default()
        }
    }

    fn resolved(source: Source, id: &str, warning: &str) -> pb::ResolvedImage {
        pb::ResolvedImage {
            source: source.into(),
            id: id.to_owned(),
            create_time: Some(prost_types::Timestamp {
                seconds: 1_000,
                nanos: 0,
            }),
            node: "nodes/one".to_owned(),
            warning: warning.to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn a_deploy_says_which_image_the_reference_named() {
        let context = RenderContext {
            now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000 + 3 * 3600),
            proxy: String::new(),
        };
        let line = |version: &pb::Version| resolution(version, &context);
        assert_eq!(
            line(&version("", None)).0,
            "image hello:1: not resolved yet; the first start decides"
        );
        let registry = version(
            "sha256:aa",
            Some(resolved(Source::Registry, "sha256:1", "")),
        );
        assert_eq!(
            line(&registry).0,
            "image hello:1: sha256:aa, id sha256:1, built 3h ago, from the registry, by nodes/one"
        );
        let copy = version(
            "sha256:aa",
            Some(resolved(
                Source::LocalCopy,
                "",
                "the registry did not answer",
            )),
        );
        assert_eq!(
            line(&copy).1.as_deref(),
            Some("the registry did not answer")
        );
        let id = "sha256:0123456789abcdef";
        let local = version("", Some(resolved(Source::LocalImage, id, "")));
        assert_eq!(
            line(&local).0,
            "image hello:1: id sha256:0123456789ab, built 3h ago, from nodes/one; it was never in a registry"
        );
    }

    #[test]
    fn a_tag_that_moved_is_noticed() {
        let local = |id: &str| version("", Some(resolved(Source::LocalImage, id, "")));
        assert!(resolution_changed(&local("sha256:1"), &local("sha256:2")));
        assert!(!resolution_changed(&local("sha256:1"), &local("sha256:1")));
        assert!(!resolution_changed(&version("", None), &local("sha256:2")));
        let pushed = |digest: &str| version(digest, None);
        assert!(resolution_changed(&pushed("sha256:a"), &pushed("sha256:b")));
        assert!(!resolution_changed(&pushed("sha256:a"), &local("sha256:1")));
    }
}
