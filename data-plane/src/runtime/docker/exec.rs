//! Commands in a running container.

use std::time::Duration;

use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use futures_util::StreamExt as _;

use super::container::last_lines;
use super::error::{READ_TIMEOUT, classify, with_timeout};
use crate::runtime::{Error, Executed};

/// The longest run; the engine cannot end a command, so callers lose interest earlier.
const EXEC_TIMEOUT: Duration = Duration::from_secs(600);
/// Output kept of a run; the rest is read and dropped, so that the command is not blocked.
const OUTPUT_MAX: usize = 16 * 1024;
/// Lines of output in the result.
const OUTPUT_LINES: usize = 3;

/// Runs a command as the container's user and waits for its end.
pub(super) async fn run(
    client: &bollard::Docker,
    name: &str,
    command: &[String],
) -> Result<Executed, Error> {
    let options = CreateExecOptions {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(command.to_vec()),
        ..Default::default()
    };
    let created = with_timeout(READ_TIMEOUT, client.create_exec(name, options)).await?;
    let output = tokio::time::timeout(EXEC_TIMEOUT, output(client, &created.id)).await;
    let output = output.map_err(|_| {
        let limit = EXEC_TIMEOUT.as_secs();
        Error::NoResponse(format!("the command did not end within {limit} s"))
    })??;
    let ended = with_timeout(READ_TIMEOUT, client.inspect_exec(&created.id)).await?;
    Ok(Executed {
        code: ended.exit_code.unwrap_or(-1),
        output: last_lines(&output, OUTPUT_LINES),
    })
}

/// Starts the command and reads its output to the end.
async fn output(client: &bollard::Docker, id: &str) -> Result<Vec<u8>, Error> {
    let started = client.start_exec(id, None::<StartExecOptions>).await;
    let StartExecResults::Attached { mut output, .. } = started.map_err(classify)? else {
        return Ok(Vec::new());
    };
    let mut kept = Vec::new();
    while let Some(chunk) = output.next().await {
        let chunk = chunk.map_err(classify)?.into_bytes();
        let room = OUTPUT_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }
    Ok(kept)
}
