//! The wall clock of credentials. The decisions about them take `now` as an argument.

use crate::domain::Timestamp;
use std::time::SystemTime;

pub(super) fn now() -> Timestamp {
    SystemTime::now().into()
}
