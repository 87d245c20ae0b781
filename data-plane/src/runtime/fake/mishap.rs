//! What goes wrong between the scripted engine and who asks it.

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

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// It is refused.
    Refused,
    /// It is not done, and the engine says that it failed.
    Failed,
    /// It is done, and the engine says that it failed.
    DoneAndFailed,
    /// It is done, and there is no answer.
    DoneAndSilent,
    /// The disk is full.
    NoSpace,
}

impl Fake {
    /// The next such call fails so.
    pub fn fail_next(&self, call: Call, mishap: Mishap) {
        self.inner.mishaps.lock().push((call, mishap));
    }

    /// The engine goes away, or comes back. Its containers go on.
    pub fn set_away(&self, away: bool) {
        self.inner.away.store(away, Ordering::SeqCst);
        let event = match away {
            true => Event::Disconnected,
            false => Event::Connected,
        };
        let _ = self.inner.events.send(event);
    }

    /// The engine goes away, and nobody is told.
    pub fn vanish(&self) {
        self.inner.away.store(true, Ordering::SeqCst);
    }

    /// Ends a container's process, and nobody is told.
    pub fn kill_silently(&self, name: &str, code: i32) {
        self.end(name, code);
    }

    pub(super) fn is_there(&self) -> Result<(), Error> {
        match self.inner.away.load(Ordering::SeqCst) {
            true => Err(Error::NotSent("as scripted".to_owned())),
            false => Ok(()),
        }
    }

    /// What goes wrong with a call: before it is done, or with its answer.
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
