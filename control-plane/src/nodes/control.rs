//! The control streams of nodes: questions out, answers in.
//!
//! ```text
//!   ask ──▶ queue (16) ──▶ stream ──▶ node
//!            waiting ◀── answer ◀─────┘
//! ```
//!
//! A node has one stream; a newer one replaces it. An answer counts only if it comes on the stream
//! that the question went out on, and once. Whoever asks sets the timeout: a question that nobody
//! waits for any more is forgotten with the next one. Both lists are bounded, so a stalled node
//! costs no memory; it is then asked nothing. A question is answered by an answer of its kind, else
//! by none.

use crate::domain::{ImageDigest, ImageRef, ImageSource, Timestamp};
use parking_lot::Mutex;
use std::collections::HashMap;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Questions per stream that wait for the transport or for an answer. Every one belongs to a call
/// that creates a version or drains a node.
const QUESTIONS_MAX: usize = 16;

/// A question to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) id: u64,
    pub(crate) content: QuestionContent,
}

/// The content of a [`Question`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum QuestionContent {
    /// Asks what an image reference names.
    Image {
        image: ImageRef,
        /// Whether the node must not ask a registry.
        local_only: bool,
    },
    /// Drains the node (`true`), or puts it into service again.
    Drain(bool),
}

impl QuestionContent {
    fn is_answered_by(&self, answer: &Answer) -> bool {
        matches!(
            (self, answer),
            (Self::Image { .. }, Answer::Image(_)) | (Self::Drain(_), Answer::Drain(_))
        )
    }
}

/// A node's answer to a [`Question`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Image(ImageAnswer),
    /// `Err`: the reason why the node could not store it.
    Drain(Result<(), String>),
}

/// A node's answer about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ImageAnswer {
    /// The reference names this image.
    Found(FoundImage),
    /// The reference names no image, neither in its registry nor on the node; the reason.
    NoSuchImage(String),
    /// The node cannot tell; the reason.
    Trouble(String),
}

/// An image under a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundImage {
    pub(crate) source: ImageSource,
    /// Image id on the node. `None`: not pulled.
    pub(crate) id: Option<ImageDigest>,
    /// Build time. `None`: unknown.
    pub(crate) create_time: Option<Timestamp>,
    /// Digest in its registry. `None`: it was never in one.
    pub(crate) digest: Option<ImageDigest>,
    /// A doubt. Empty: none.
    pub(crate) warning: String,
}

/// The control streams of all nodes.
#[derive(Debug, Default)]
pub(crate) struct ControlStreams {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By node id.
    streams: HashMap<String, Entry>,
    last_id: u64,
}

#[derive(Debug)]
struct Entry {
    stream: u64,
    boot_id: String,
    queue: mpsc::Sender<Question>,
    replaced: CancellationToken,
    /// By question id.
    waiting: HashMap<u64, (QuestionContent, oneshot::Sender<Answer>)>,
}

/// One end of a registered control stream.
#[derive(Debug)]
pub(crate) struct ControlStream {
    node: String,
    stream: u64,
    /// The questions to send.
    pub(crate) questions: mpsc::Receiver<Question>,
    /// Cancelled when a newer stream of the node replaces this one.
    pub(crate) replaced: CancellationToken,
}

impl ControlStreams {
    /// Registers a stream of a node; an older one is notified that it is replaced.
    pub(crate) fn open(&self, node: String, boot_id: String) -> ControlStream {
        let (queue, questions) = mpsc::channel(QUESTIONS_MAX);
        let replaced = CancellationToken::new();
        let mut state = self.state.lock();
        state.last_id += 1;
        let stream = state.last_id;
        let entry = Entry {
            stream,
            boot_id,
            queue,
            replaced: replaced.clone(),
            waiting: HashMap::new(),
        };
        if let Some(older) = state.streams.insert(node.clone(), entry) {
            older.replaced.cancel();
        }
        ControlStream {
            node,
            stream,
            questions,
            replaced,
        }
    }

    /// Removes a stream that ended. Its unanswered questions have no answer.
    pub(crate) fn close(&self, stream: &ControlStream) {
        let mut state = self.state.lock();
        if state
            .streams
            .get(&stream.node)
            .is_some_and(|entry| entry.stream == stream.stream)
        {
            state.streams.remove(&stream.node);
        }
    }

    /// Whether this process of the node has a stream.
    pub(crate) fn has(&self, node: &str, boot_id: &str) -> bool {
        let state = self.state.lock();
        let entry = state.streams.get(node);
        entry.is_some_and(|entry| entry.boot_id == boot_id)
    }

    /// Asks a node. `None`: it has no stream, or too many questions wait there. The receiver fails if
    /// the stream ends first.
    pub(crate) fn ask(
        &self,
        node: &str,
        content: QuestionContent,
    ) -> Option<oneshot::Receiver<Answer>> {
        let mut state = self.state.lock();
        state.last_id += 1;
        let id = state.last_id;
        let entry = state.streams.get_mut(node)?;
        entry.waiting.retain(|_, (_, asker)| !asker.is_closed());
        if entry.waiting.len() >= QUESTIONS_MAX {
            return None;
        }
        let question = Question {
            id,
            content: content.clone(),
        };
        entry.queue.try_send(question).ok()?;
        let (asker, answer) = oneshot::channel();
        entry.waiting.insert(id, (content, asker));
        Some(answer)
    }

    /// Passes an answer on. An answer to a question that this stream was not asked is ignored.
    pub(crate) fn answer(&self, stream: &ControlStream, question: u64, answer: Answer) {
        let mut state = self.state.lock();
        let entry = state.streams.get_mut(&stream.node);
        let asker = entry
            .filter(|entry| entry.stream == stream.stream)
            .and_then(|entry| entry.waiting.remove(&question));
        drop(state);
        if let Some((content, asker)) = asker
            && content.is_answered_by(&answer)
        {
            // The asker may have given up.
            let _ = asker.send(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> QuestionContent {
        QuestionContent::Image {
            image: ImageRef::parse("hello:1").expect("a reference"),
            local_only: false,
        }
    }

    fn trouble(text: &str) -> Answer {
        Answer::Image(ImageAnswer::Trouble(text.into()))
    }

    #[tokio::test]
    async fn an_answer_counts_once_and_only_on_its_stream() {
        let streams = ControlStreams::default();
        let mut one = streams.open("1".into(), "b".into());
        let other = streams.open("2".into(), "b".into());
        let answer = streams.ask("1", image()).expect("asked");
        let question = one.questions.recv().await.expect("a question");
        streams.answer(&other, question.id, trouble("forged"));
        streams.answer(&one, question.id + 7, trouble("another"));
        streams.answer(&one, question.id, trouble("true"));
        streams.answer(&one, question.id, trouble("again"));
        assert_eq!(answer.await, Ok(trouble("true")));
    }

    #[tokio::test]
    async fn a_newer_stream_replaces_and_an_older_one_does_not_close_it() {
        let streams = ControlStreams::default();
        let older = streams.open("1".into(), "b".into());
        let unanswered = streams.ask("1", image()).expect("asked");
        let newer = streams.open("1".into(), "c".into());
        assert!(older.replaced.is_cancelled() && !newer.replaced.is_cancelled());
        assert!(unanswered.await.is_err(), "the stream is gone");
        streams.close(&older);
        assert!(streams.has("1", "c") && !streams.has("1", "b"));
        streams.close(&newer);
        assert!(!streams.has("1", "c") && streams.ask("1", image()).is_none());
    }

    #[tokio::test]
    async fn a_stalled_node_is_asked_a_bounded_number_of_questions() {
        let streams = ControlStreams::default();
        let mut stream = streams.open("1".into(), "b".into());
        let asked: Vec<_> = (0..100).filter_map(|_| streams.ask("1", image())).collect();
        assert_eq!(asked.len(), QUESTIONS_MAX);
        // Askers that gave up, and questions that were sent, leave room.
        drop(asked);
        assert!(streams.ask("1", image()).is_none(), "the queue is full");
        while stream.questions.try_recv().is_ok() {}
        assert!(streams.ask("1", image()).is_some());
    }

    #[tokio::test]
    async fn an_answer_of_another_kind_is_none() {
        let streams = ControlStreams::default();
        let mut stream = streams.open("1".into(), "b".into());
        for (content, wrong) in [
            (image(), Answer::Drain(Ok(()))),
            (QuestionContent::Drain(true), trouble("t")),
        ] {
            let answer = streams.ask("1", content).expect("asked");
            let question = stream.questions.recv().await.expect("a question");
            streams.answer(&stream, question.id, wrong);
            assert!(answer.await.is_err());
        }
        let answer = streams
            .ask("1", QuestionContent::Drain(false))
            .expect("asked");
        let question = stream.questions.recv().await.expect("a question");
        streams.answer(&stream, question.id, Answer::Drain(Ok(())));
        assert_eq!(answer.await, Ok(Answer::Drain(Ok(()))));
    }
}
