//! Fault injection for the scripted engine.

use std::sync::atomic::Ordering;

use super::{Event, Fake};
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
pub enum Mishap {
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
    pub fn fail_next(&self, call: Call, mishap: Mishap) {
        self.inner.mishaps.lock().push((call, mishap));
    }

    /// Makes the engine unreachable or reachable again. Its containers keep running.
    pub fn set_away(&self, away: bool) {
        self.inner.away.store(away, Ordering::SeqCst);
        let event = match away {
            true => Event::Disconnected,
            false => Event::Connected,
        };
        let _ = self.inner.events.send(event);
    }

    /// Makes the engine unreachable without an event.
    pub fn vanish(&self) {
        self.inner.away.store(true, Ordering::SeqCst);
    }

    /// Ends the process of a container without an event.
    pub fn kill_silently(&self, name: &str, code: i32) {
        self.end(name, code);
    }

    pub(super) fn is_there(&self) -> Result<(), Error> {
        match self.inner.away.load(Ordering::SeqCst) {
            true => Err(Error::NotSent("as scripted".to_owned())),
            false => Ok(()),
        }
    }

    /// The injected fault: an error before the call is performed, or one to return afterwards.
    pub(super) fn mishap(&self, call: Call) -> Result<Option<Error>, Error> {
        self.is_there()?;
        let mut mishaps = self.inner.mishaps.lock();
        let Some(found) = mishaps.iter().position(|(of, _)| *of == call) else {
            return Ok(None);
        };
        let said = "as scripted".to_owned();
        match mishaps.remove(found).1 {
            Mishap::Refused => Err(Error::Refused(said)),
            Mishap::Failed => Err(Error::Failed(said)),
            Mishap::NoSpace => Err(Error::NoSpace(said)),
            Mishap::DoneAndFailed => Ok(Some(Error::Failed(said))),
            Mishap::DoneAndSilent => Ok(Some(Error::NoResponse(said))),
        }
    }
}
