//! Stop signals.

use cless_proto::signal::{self, LAST, NAMES};
use serde::{Deserialize, Serialize};

use crate::domain::error::Reason;

/// A stop signal in its only spelling: a name such as `SIGTERM`, or the number of a real-time
/// signal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StopSignal(String);

impl StopSignal {
    /// Parses a name in any case, with or without `SIG`, or a number. Empty gives `None`: as in the
    /// image.
    ///
    /// # Errors
    /// If the signal does not exist, or stops a process without ending it.
    pub(super) fn parse(value: &str) -> Result<Option<Self>, Reason> {
        if value.is_empty() {
            return Ok(None);
        }
        let known = match value.parse::<u8>() {
            Ok(number @ 1..=LAST) => {
                Some(signal::name(number).map_or_else(|| number.to_string(), str::to_owned))
            }
            Ok(_) => None,
            Err(_) => {
                let name = value.to_ascii_uppercase();
                let name = name.strip_prefix("SIG").unwrap_or(&name);
                let found = NAMES
                    .into_iter()
                    .find(|known| known.strip_prefix("SIG") == Some(name));
                found.map(str::to_owned)
            }
        };
        match known.as_deref() {
            Some("SIGSTOP") => Err(Reason::new(
                "SIGSTOP suspends a process and does not end it: give SIGTERM, SIGINT, SIGQUIT or another signal that ends the program",
            )),
            Some(_) => Ok(known.map(Self)),
            None => {
                let shown: String = value.chars().take(40).collect();
                Err(Reason::new(format!(
                    "`{}` is not a signal: give a name such as `SIGTERM` or `INT`, or a number from 1 to {LAST}",
                    shown.escape_debug()
                )))
            }
        }
    }

    /// The only spelling.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_signal_has_one_spelling() {
        for (given, read) in [
            ("SIGTERM", "SIGTERM"),
            ("term", "SIGTERM"),
            ("15", "SIGTERM"),
            ("SigQuit", "SIGQUIT"),
            ("9", "SIGKILL"),
            ("37", "37"),
            ("31", "SIGSYS"),
        ] {
            let signal = StopSignal::parse(given).unwrap().expect("a signal");
            assert_eq!(signal.as_str(), read, "{given}");
        }
        assert_eq!(StopSignal::parse(""), Ok(None));
    }

    #[test]
    fn invalid_signals_are_refused() {
        for bad in [
            "0",
            "65",
            "-9",
            "SIG",
            "SIGSIGTERM",
            "SIGNONE",
            "TERM ",
            "15; reboot",
            "STOP",
            "19",
            "\n",
            "ß",
        ] {
            assert!(StopSignal::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_signal_parses_to_itself(given in "([sS][iI][gG])?[a-zA-Z]{2,6}|[0-9]{1,3}") {
            if let Ok(Some(signal)) = StopSignal::parse(&given) {
                prop_assert_eq!(StopSignal::parse(signal.as_str()), Ok(Some(signal.clone())));
            }
        }
    }
}
