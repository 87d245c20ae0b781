//! Reads and writes the messages of control streams.

use super::feed::{clipped, read_id, read_identity};
use super::read_timestamp;
use crate::domain::{ImageDigest, ImageSource, Violations};
use crate::nodes::control::{Answer, FoundImage, ImageAnswer, Question, QuestionContent};
use crate::nodes::report::NodeIdentity;
use cless_proto::v1 as pb;

/// A ControlHello: the node's identity and its boot id.
pub(crate) fn read_hello(
    hello: pb::ControlHello,
    violations: &mut Violations,
) -> Option<(NodeIdentity, String)> {
    let identity = read_identity("hello.node", hello.node, violations);
    let boot_id = read_id("hello.boot_id", hello.boot_id, violations);
    Some((identity?, boot_id?))
}

pub(crate) fn question(question: Question) -> pb::StreamControlResponse {
    use pb::stream_control_response::Message;
    let id = question.id;
    let message = match question.content {
        QuestionContent::Image { image, local_only } => Message::ResolveImage(pb::ResolveImage {
            id,
            image: image.to_string(),
            local_only,
        }),
        QuestionContent::Drain(drained) => Message::SetDrain(pb::SetDrain { id, drained }),
    };
    pb::StreamControlResponse {
        message: Some(message),
    }
}

pub(crate) fn planes(addresses: &[String]) -> pb::StreamControlResponse {
    use pb::stream_control_response::Message;
    pb::StreamControlResponse {
        message: Some(Message::Planes(pb::Planes {
            addresses: addresses.to_vec(),
        })),
    }
}

/// The id of the question and its answer. The reason of a failure is clipped.
pub(crate) fn read_drain_answer(answer: pb::DrainAnswer) -> (u64, Answer) {
    let stored = match answer.failure.as_str() {
        "" => Ok(()),
        _ => Err(clipped(answer.failure)),
    };
    (answer.id, Answer::Drain(stored))
}

/// The id of the question and its answer. A contradictory answer counts as trouble of the node.
pub(crate) fn read_answer(answer: pb::ImageAnswer) -> (u64, Answer) {
    let id = answer.id;
    let read = match (answer.image, answer.failure) {
        (Some(image), None) => read_image(image, answer.image_digest),
        (_, Some(failure)) => {
            use pb::start_failure::Reason;
            let is_missing = failure.reason() == Reason::Image;
            let reason = clipped(failure.message);
            if is_missing {
                ImageAnswer::NoSuchImage(reason)
            } else {
                ImageAnswer::Trouble(reason)
            }
        }
        (None, None) => ImageAnswer::Trouble("the answer has neither image nor failure".to_owned()),
    };
    (id, Answer::Image(read))
}

fn read_image(image: pb::ResolvedImage, digest: String) -> ImageAnswer {
    use pb::resolved_image::Source;
    let source = match image.source() {
        Source::Registry => ImageSource::Registry,
        Source::LocalCopy => ImageSource::LocalCopy,
        Source::LocalImage => ImageSource::LocalImage,
        Source::Unspecified => {
            return ImageAnswer::Trouble("the answer names no source".to_owned());
        }
    };
    let parsed = |text: String| ImageDigest::parse(text).ok();
    let (id, digest) = (parsed(image.id), parsed(digest));
    // A local image is identified by its id, every other image by its digest.
    let is_complete = match source {
        ImageSource::LocalImage => id.is_some() && digest.is_none(),
        ImageSource::Registry | ImageSource::LocalCopy => digest.is_some(),
    };
    if !is_complete {
        return ImageAnswer::Trouble(
            "the answer has no digest, or no id of a local image".to_owned(),
        );
    }
    ImageAnswer::Found(FoundImage {
        source,
        id,
        create_time: read_timestamp(image.create_time),
        digest,
        warning: clipped(image.warning),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pb::resolved_image::Source;

    fn hash(of: &str) -> String {
        format!("sha256:{}", of.repeat(64))
    }

    fn answer(source: Source, id: &str, digest: &str) -> pb::ImageAnswer {
        pb::ImageAnswer {
            id: 7,
            image: Some(pb::ResolvedImage {
                source: source.into(),
                id: id.into(),
                ..Default::default()
            }),
            image_digest: digest.into(),
            failure: None,
        }
    }

    #[test]
    fn an_image_has_a_digest_or_is_local_and_has_an_id() {
        for (source, id, digest, good) in [
            (Source::Registry, "", &*hash("a"), true),
            (Source::Registry, &hash("b"), &hash("a"), true),
            (Source::LocalCopy, &hash("b"), &hash("a"), true),
            (Source::LocalImage, &hash("b"), "", true),
            (Source::Registry, &hash("b"), "", false),
            (Source::Registry, "", "sha256:short", false),
            (Source::LocalCopy, "", "", false),
            (Source::LocalImage, "", "", false),
            (Source::LocalImage, &hash("b"), &hash("a"), false),
            (Source::Unspecified, &hash("b"), &hash("a"), false),
        ] {
            let (id_of, read) = read_answer(answer(source, id, digest));
            assert_eq!(id_of, 7);
            let found = matches!(read, Answer::Image(ImageAnswer::Found(_)));
            assert_eq!(found, good, "{source:?} {id} {digest}: {read:?}");
        }
    }

    #[test]
    fn only_an_image_failure_says_that_there_is_no_image() {
        use pb::start_failure::Reason;
        let failed = |reason: Reason| {
            let failure = pb::StartFailure {
                reason: reason.into(),
                message: "why".into(),
                ..Default::default()
            };
            read_answer(pb::ImageAnswer {
                failure: Some(failure),
                ..Default::default()
            })
            .1
        };
        assert_eq!(
            failed(Reason::Image),
            Answer::Image(ImageAnswer::NoSuchImage("why".into()))
        );
        for reason in [Reason::Unspecified, Reason::Engine] {
            let trouble = Answer::Image(ImageAnswer::Trouble("why".into()));
            assert_eq!(failed(reason), trouble);
        }
        let (_, empty) = read_answer(pb::ImageAnswer::default());
        assert!(matches!(empty, Answer::Image(ImageAnswer::Trouble(_))));
    }
}
