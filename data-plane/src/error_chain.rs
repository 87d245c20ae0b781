//! The text of an error with its causes.

use std::error::Error;

/// The error and its causes, from the outside in; `tonic` displays only "transport error".
pub(crate) fn text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // An error that displays its cause would say it twice.
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
