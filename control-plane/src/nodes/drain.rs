//! Takes a node out of service and puts it into service again, through its control stream.
//!
//! The node stores the order before it answers, so an answer holds across its restart. The order is
//! idempotent: a call without an answer is repeated.

use crate::nodes::Nodes;
use crate::nodes::control::{Answer, QuestionContent};
use crate::nodes::registry::NodeEntry;
use std::time::Duration;

/// Time in which a node stores the order; below the deadline of the call.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The reason why a node is not known to have stored the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DrainError {
    /// The node has no control stream to this control plane, or too many questions wait there.
    NotConnected,
    /// The stream ended, or no answer came in time. The node may have stored it.
    NoAnswer,
    /// The node could not store it; its reason.
    Failed(String),
}

/// Drains a node (`drained`), or puts it into service again. Returns once the node has stored that.
pub(crate) async fn set_drained(
    nodes: &Nodes,
    node: &NodeEntry,
    drained: bool,
) -> Result<(), DrainError> {
    if !nodes.can_ask(node) {
        return Err(DrainError::NotConnected);
    }
    let answer = nodes
        .ask(node, QuestionContent::Drain(drained))
        .ok_or(DrainError::NotConnected)?;
    match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
        Ok(Ok(Answer::Drain(Ok(())))) => {
            nodes.record_drained(&node.identity.id, drained);
            Ok(())
        }
        Ok(Ok(Answer::Drain(Err(reason)))) => Err(DrainError::Failed(reason)),
        Ok(Ok(Answer::Image(_)) | Err(_)) | Err(_) => Err(DrainError::NoAnswer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::NodeName;
    use crate::nodes::report::{NodeIdentity, NodeReport};

    fn connect(nodes: &Nodes) -> crate::nodes::NodeConnection {
        let identity = NodeIdentity {
            id: "1".into(),
            name: NodeName::parse("a").expect("a label"),
            version: String::new(),
        };
        let connection = nodes.connect(identity.clone(), "b".into()).expect("free");
        nodes
            .report(&identity, "b", NodeReport::default())
            .expect("connected");
        connection
    }

    fn node(nodes: &Nodes) -> NodeEntry {
        nodes.all().remove(0)
    }

    #[tokio::test(start_paused = true)]
    async fn a_drained_node_is_out_of_service_once_it_has_answered() {
        let nodes = Nodes::new();
        let _connection = connect(&nodes);
        let drain = |drained| {
            let (nodes, node) = (nodes.clone(), node(&nodes));
            async move { set_drained(&nodes, &node, drained).await }
        };
        assert_eq!(drain(true).await, Err(DrainError::NotConnected));
        let mut stream = nodes.open_control("1", "b").expect("connected");
        assert_eq!(drain(true).await, Err(DrainError::NoAnswer));
        assert_eq!(nodes.in_service().len(), 1);
        let answers = nodes.clone();
        tokio::spawn(async move {
            while let Some(question) = stream.questions.recv().await {
                let answer = match question.content {
                    QuestionContent::Drain(false) => Err("disk full".to_owned()),
                    _ => Ok(()),
                };
                answers.answer(&stream, question.id, Answer::Drain(answer));
            }
        });
        assert_eq!(drain(true).await, Ok(()));
        assert!(node(&nodes).is_drained() && nodes.in_service().is_empty());
        let failed = DrainError::Failed("disk full".into());
        assert_eq!(drain(false).await, Err(failed));
        assert!(node(&nodes).is_drained());
    }
}
