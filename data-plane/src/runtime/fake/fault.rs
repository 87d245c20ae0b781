//! Fault injection for the scripted engine.

use std::sync::atomic::Ordering;

use super::{EngineEvent, Fake};
use crate::runtime::Error;

/// A call that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// [`Runtime::create`](super::Runtime::create).
    Create,
    /// [`Runtime::create_sandbox`](super::Runtime::create_sandbox).
    CreateSandbox,
    /// [`Runtime::start`](super::Runtime::start).
    Start,
    /// [`Runtime::pause`](super::Runtime::pause).
    Pause,
    /// [`Runtime::unpause`](super::Runtime::unpause).
    Unpause,
    /// [`Runtime::stop`](super::Runtime::stop).
    Stop,
    /// [`Runtime::remove`](super::Runtime::remove).
    Remove,
}

/// A fault of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The engine refuses.
    Refused,
    /// The engine fails without performing the call.
    Failed,
    /// The engine performs the call and reports a failure.
    DoneAndFailed,
    /// The engine performs the call and does not respond.
    DoneAndSilent,
    /// The disk is full.
    NoSpace,
}

impl Fake {
    /// Injects a fault into the next such call.
    pub fn fail_next(&self, call: Call, fault: Fault) {
        self.inner.faults.lock().push((call, fault));
    }

    /// Makes the engine unreachable or reachable again. Its containers keep running.
    pub fn set_unreachable(&self, unreachable: bool) {
        self.inner.unreachable.store(unreachable, Ordering::SeqCst);
        let event = match unreachable {
            true => EngineEvent::Disconnected,
            false => EngineEvent::Connected,
        };
        let _ = self.inner.events.send(event);
    }

    /// Makes the engine unreachable without an event.
    pub fn vanish_silently(&self) {
        self.inner.unreachable.store(true, Ordering::SeqCst);
    }

    /// Ends the process of a container without an event.
    pub fn kill_silently(&self, name: &str, code: i32) {
        self.end(name, code);
    }

    pub(super) fn check_reachable(&self) -> Result<(), Error> {
        match self.inner.unreachable.load(Ordering::SeqCst) {
            true => Err(Error::NotSent("as scripted".to_owned())),
            false => Ok(()),
        }
    }

    /// The injected fault: an error before the call is performed, or one to return afterwards.
    pub(super) fn fault(&self, call: Call) -> Result<Option<Error>, Error> {
        self.check_reachable()?;
        let mut faults = self.inner.faults.lock();
        let Some(found) = faults.iter().position(|(of, _)| *of == call) else {
            return Ok(None);
        };
        let said = "as scripted".to_owned();
        match faults.remove(found).1 {
            Fault::Refused => Err(Error::Refused(said)),
            Fault::Failed => Err(Error::Failed(said)),
            Fault::NoSpace => Err(Error::NoSpace(said)),
            Fault::DoneAndFailed => Ok(Some(Error::Failed(said))),
            Fault::DoneAndSilent => Ok(Some(Error::NoResponse(said))),
        }
    }
}
