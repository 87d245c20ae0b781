//! Resolves the image of a version to create: asks connected nodes what its reference names.
//!
//! Nodes whose engine responds are asked first, one after the other, until one finds the image. That
//! no such image exists is believed only if no asked node finds it, because an image may be on one
//! node alone.

use crate::domain::{ImageRef, NodeName, ResolvedImage};
use crate::nodes::control::{Answer, ImageAnswer, QuestionContent};
use crate::nodes::registry::NodeEntry;
use crate::nodes::{Nodes, now};
use crate::store::Resolution;
use std::time::Duration;
use tokio::time::Instant;

/// Nodes asked about one image.
const NODES_MAX: usize = 3;
/// Time limit for all nodes together.
pub(crate) const RESOLVE_TIMEOUT: Duration = Duration::from_secs(15);
/// Time limit for one node, above the 8 s that a node gives a registry.
const NODE_TIMEOUT: Duration = Duration::from_secs(9);

/// The result of asking the nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resolved {
    /// The reference names this image.
    Found(Resolution),
    /// It names none, according to this node, which gave this reason.
    NoSuchImage(NodeName, String),
    /// No node could be asked, or none could tell.
    Unknown,
}

/// The nodes to ask, best first: those whose engine responds, in the order of their names, then the
/// others.
fn candidates(nodes: &Nodes) -> Vec<NodeEntry> {
    let (mut good, bad): (Vec<_>, Vec<_>) = nodes
        .all()
        .into_iter()
        .filter(|node| is_candidate(nodes, node))
        .partition(|node| node.engine_responds() == Some(true));
    good.extend(bad);
    good.truncate(NODES_MAX);
    good
}

fn is_candidate(nodes: &Nodes, node: &NodeEntry) -> bool {
    node.is_connected() && nodes.can_ask(node)
}

/// Whether any node can be asked.
pub(crate) fn is_possible(nodes: &Nodes) -> bool {
    nodes.read(|registry| {
        let mut known = registry.nodes().into_iter();
        known.any(|node| is_candidate(nodes, node))
    })
}

/// Asks the nodes, within [`RESOLVE_TIMEOUT`].
pub(crate) async fn resolve(nodes: &Nodes, image: &ImageRef, local_only: bool) -> Resolved {
    let deadline = Instant::now() + RESOLVE_TIMEOUT;
    let mut missing = None;
    for node in candidates(nodes) {
        let name = node.identity.name.clone();
        let question = QuestionContent::Image {
            image: image.clone(),
            local_only,
        };
        let Some(answer) = nodes.ask(&node, question) else {
            continue;
        };
        let limit = deadline.min(Instant::now() + NODE_TIMEOUT);
        match tokio::time::timeout_at(limit, answer).await {
            Ok(Ok(Answer::Image(ImageAnswer::Found(found)))) => {
                return Resolved::Found(Resolution {
                    image: ResolvedImage {
                        source: found.source,
                        id: found.id,
                        create_time: found.create_time,
                        resolve_time: now(),
                        node: name,
                        warning: found.warning,
                    },
                    digest: found.digest,
                });
            }
            Ok(Ok(Answer::Image(ImageAnswer::NoSuchImage(reason)))) => {
                missing.get_or_insert((name, reason));
            }
            Ok(Ok(Answer::Image(ImageAnswer::Trouble(reason)))) => {
                tracing::info!(node = %name, %image, reason, "a node cannot resolve the image");
            }
            Ok(Ok(Answer::Drain(_)) | Err(_)) => {
                tracing::info!(node = %name, %image, "the node left before it resolved the image");
            }
            Err(_elapsed) => {
                tracing::info!(node = %name, %image, "the node did not resolve the image in time");
            }
        }
    }
    match missing {
        Some((node, reason)) => Resolved::NoSuchImage(node, reason),
        None => Resolved::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ImageDigest, ImageSource};
    use crate::nodes::control::FoundImage;
    use crate::nodes::report::{NodeIdentity, NodeReport};

    fn identity(name: &str) -> NodeIdentity {
        NodeIdentity {
            id: format!("id-{name}"),
            name: NodeName::parse(name).expect("a label"),
            version: String::new(),
        }
    }

    /// Connects a node that gives this answer to every question; `None` never answers.
    fn connect(
        nodes: &Nodes,
        name: &str,
        engine: &str,
        answer: Option<ImageAnswer>,
    ) -> crate::nodes::NodeConnection {
        let connection = nodes.connect(identity(name), "b".into()).expect("free");
        let report = NodeReport {
            engine: engine.into(),
            ..Default::default()
        };
        nodes
            .report(&identity(name), "b", report)
            .expect("the same node");
        let mut stream = nodes
            .open_control(&identity(name).id, "b")
            .expect("connected");
        let nodes = nodes.clone();
        tokio::spawn(async move {
            while let Some(question) = stream.questions.recv().await {
                if let Some(answer) = &answer {
                    nodes.answer(&stream, question.id, Answer::Image(answer.clone()));
                }
            }
        });
        connection
    }

    fn found() -> ImageAnswer {
        ImageAnswer::Found(FoundImage {
            source: ImageSource::LocalImage,
            id: ImageDigest::parse(format!("sha256:{}", "a".repeat(64))).ok(),
            create_time: None,
            digest: None,
            warning: String::new(),
        })
    }

    async fn ask(nodes: &Nodes) -> Resolved {
        let image = ImageRef::parse("hello:1").expect("a reference");
        resolve(nodes, &image, false).await
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_with_an_engine_are_asked_first_and_the_first_find_wins() {
        let nodes = Nodes::new();
        assert!(!is_possible(&nodes));
        assert_eq!(ask(&nodes).await, Resolved::Unknown);
        let no = |text: &str| Some(ImageAnswer::NoSuchImage(text.into()));
        let _a = connect(&nodes, "a", "", no("no engine"));
        let _b = connect(&nodes, "b", "Docker", no("no such image"));
        assert!(is_possible(&nodes));
        let name = NodeName::parse("b").expect("a label");
        let none = Resolved::NoSuchImage(name, "no such image".into());
        assert_eq!(ask(&nodes).await, none);
        let _c = connect(&nodes, "c", "Docker", Some(found()));
        let Resolved::Found(resolution) = ask(&nodes).await else {
            panic!("one node has it");
        };
        assert_eq!(resolution.image.node.as_str(), "c");
    }

    #[tokio::test(start_paused = true)]
    async fn silent_and_troubled_nodes_leave_it_unknown_in_time() {
        let nodes = Nodes::new();
        let _held: Vec<_> = ["a", "b", "c", "d"]
            .map(|name| connect(&nodes, name, "Docker", None))
            .into();
        let started = Instant::now();
        assert_eq!(ask(&nodes).await, Resolved::Unknown);
        assert!(
            started.elapsed() <= RESOLVE_TIMEOUT,
            "{:?}",
            started.elapsed()
        );

        let nodes = Nodes::new();
        let trouble = Some(ImageAnswer::Trouble("disk full".into()));
        let connection = connect(&nodes, "a", "Docker", trouble);
        assert_eq!(ask(&nodes).await, Resolved::Unknown);
        drop(connection);
        assert!(!is_possible(&nodes), "its route stream is gone");
    }
}
