//! Pausing and resuming an instance.
//!
//! The instance has no request and admits none during these tasks. Its connections are closed first:
//! the kernel keeps accepting for a paused process, so the other end would not notice the pause. A
//! process whose time limits expired would close them on resuming, under a new request.
//!
//! Other programs pause containers too. A container that is to serve is resumed again.
//!
//! An unavailable engine costs no instance. A call that was not sent had no effect; after a call
//! without a response the container is inspected once the engine is back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::event::{EventSender, TaskEvent};
use super::failure;
use crate::engine::context::EngineContext;
use crate::engine::{confirmed_calls, error_class};
use crate::instance::Instance;
use crate::report::{FailureReason, StartFailure};
use crate::runtime::{ContainerState, Error};

/// The longest wait for connections to close. A connection that cannot close, because the instance
/// reads nothing, stays open.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(250);

pub(crate) struct PauseTask {
    pub(crate) engine: Arc<EngineContext>,
    pub(crate) events: EventSender,
    pub(crate) instance: Arc<Instance>,
    /// The task before this one, which may still call the engine.
    pub(crate) previous: Option<JoinHandle<()>>,
}

impl PauseTask {
    pub(crate) async fn pause(mut self) {
        let _task = self.engine.begin_task();
        self.await_previous().await;
        let _ = tokio::time::timeout(DISCONNECT_TIMEOUT, self.instance.disconnected()).await;
        let began = Instant::now();
        let event = match confirmed_calls::pause(&self.engine, self.instance.name()).await {
            Ok(()) => TaskEvent::Paused(began.elapsed()),
            Err(Error::NotSent(_)) => TaskEvent::PauseSkipped,
            Err(error) if self.is_outage(&error) => self.await_outcome().await,
            Err(error) => pause_failed("paused", error),
        };
        self.events.send(event);
    }

    /// Inspects the container once the engine answers.
    async fn await_outcome(&self) -> TaskEvent {
        let began = Instant::now();
        loop {
            tokio::time::sleep(RETRY).await;
            self.engine.available().await;
            match self.engine.runtime.inspect(self.instance.name()).await {
                Ok(found) if found.state == ContainerState::Paused => {
                    return TaskEvent::Paused(began.elapsed());
                }
                Ok(found) if found.state == ContainerState::Running => {
                    return TaskEvent::PauseSkipped;
                }
                Ok(_) => {
                    let gone = Error::NotFound(self.instance.name().to_owned());
                    return pause_failed("paused", gone);
                }
                Err(error) if error_class::is_unreachable(&error) => self.engine.record_failure(),
                Err(error) => return pause_failed("paused", error),
            }
        }
    }

    /// Resumes the container and reports the outcome. There is no probe: it listened before the
    /// pause.
    pub(crate) async fn resume(mut self) {
        let _task = self.engine.begin_task();
        self.await_previous().await;
        let began = Instant::now();
        let event = loop {
            match confirmed_calls::unpause(&self.engine, self.instance.name()).await {
                Ok(()) => break TaskEvent::Resumed(began.elapsed()),
                Err(error) if self.is_outage(&error) => {
                    tokio::time::sleep(RETRY).await;
                    self.engine.available().await;
                }
                Err(error) => break pause_failed("resumed", error),
            }
        };
        self.events.send(event);
    }

    fn is_outage(&self, error: &Error) -> bool {
        error_class::is_unreachable(error) && !self.engine.is_available()
    }

    async fn await_previous(&mut self) {
        if let Some(previous) = self.previous.take() {
            let _ = previous.await;
        }
    }
}

/// Reports the state of a container that may have been paused or resumed by another program. With
/// `thaw`, resumes it first if it is paused.
pub(crate) async fn check_paused(
    engine: Arc<EngineContext>,
    events: EventSender,
    name: String,
    thaw: bool,
) {
    let Ok(found) = engine.runtime.inspect(&name).await else {
        // An unreachable engine is noticed elsewhere, and the next reconciliation looks again.
        return;
    };
    let event = match found.state {
        ContainerState::Paused if thaw => match confirmed_calls::unpause(&engine, &name).await {
            Ok(()) => TaskEvent::Thawed(Box::new(failure::new(
                FailureReason::Engine,
                "another program paused the container while it served; cless resumed it".to_owned(),
            ))),
            Err(error) => TaskEvent::Unresponsive(Box::new(not_done("resumed", error))),
        },
        ContainerState::Running if !thaw => TaskEvent::RunsAgain,
        _ => return,
    };
    events.send(event);
}

fn pause_failed(how: &str, error: Error) -> TaskEvent {
    TaskEvent::PauseFailed(Box::new(not_done(how, error)))
}

fn not_done(how: &str, error: Error) -> StartFailure {
    let failure = failure::of_engine(error);
    let message = format!("the container could not be {how}: {}", failure.message);
    StartFailure { message, ..failure }
}
