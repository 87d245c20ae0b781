//! Operations that the limits of a container may prevent.

use std::thread;
use std::time::Duration;

/// Writes `bytes` to a file; returns a message for the response.
pub(crate) fn write(path: &str, bytes: u64) -> Result<String, String> {
    let content = vec![b'x'; usize::try_from(bytes).unwrap_or(0)];
    match std::fs::write(path, content) {
        Ok(()) => Ok(format!("wrote {bytes} bytes to {path}\n")),
        Err(error) => Err(format!("{path}: {error}\n")),
    }
}

pub(crate) fn read(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}\n"))
}

/// Starts up to `count` threads of two seconds; returns the number of started ones.
pub(crate) fn threads(count: u64) -> String {
    let pause = || thread::sleep(Duration::from_secs(2));
    let started = (0..count).map_while(|_| {
        let small = thread::Builder::new().stack_size(64 * 1024);
        small.spawn(pause).ok()
    });
    format!("{}\n", started.count())
}
