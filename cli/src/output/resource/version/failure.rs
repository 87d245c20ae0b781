//! The description of a failed start.

use cless_proto::v1 as pb;

use crate::text;

/// `nodes/local: the container exited (exit code 3, out of memory)` and indented log lines.
pub(super) fn failure_text(node: &str, failure: &pb::StartFailure) -> String {
    let message = match failure.message.as_str() {
        "" => match failure.reason() {
            pb::start_failure::Reason::Image => "the image is unavailable",
            pb::start_failure::Reason::Engine => "the engine failed to start the container",
            pb::start_failure::Reason::Exited => "the container exited before it was ready",
            pb::start_failure::Reason::NotReady => "the container did not become ready in time",
            pb::start_failure::Reason::MalformedResponse => "an instance sent a malformed response",
            pb::start_failure::Reason::NotAllowed => "the node does not allow the version",
            pb::start_failure::Reason::Unspecified => "the container did not start",
        },
        message => message,
    };
    // Details that the message contains are not repeated.
    let code = failure
        .exit_code
        .filter(|code| !message.contains(&format!("code {code}")));
    let code = code.map(|code| format!("exit code {code}"));
    let oom = failure
        .oom_killed
        .then(|| "out of memory: raise --memory".to_owned());
    let signal =
        Some(&failure.signal).filter(|signal| !signal.is_empty() && !message.contains(*signal));
    let signal = signal.map(|signal| text::clean(signal));
    let details = [code, signal, oom].into_iter().flatten();
    let details: Vec<String> = details.collect();
    let mut line = String::new();
    if !node.is_empty() {
        line = format!("{}: ", text::clean(node));
    }
    line.push_str(&text::clean(message));
    if !details.is_empty() {
        line.push_str(&format!(" ({})", details.join(", ")));
    }
    for (name, value) in [
        ("last probe", &failure.last_probe),
        ("engine error", &failure.engine_error),
    ] {
        if !value.is_empty() && !message.contains(value.as_str()) {
            line.push_str(&format!("\n  {name}: {}", text::clean(value)));
        }
    }
    for log in &failure.log_tail {
        line.push_str(&format!("\n  | {}", text::clean(log)));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_snapshot;

    #[test]
    fn each_detail_is_shown_once() {
        let killed = pb::StartFailure {
            reason: pb::start_failure::Reason::Exited.into(),
            message: "the container was ended by SIGSEGV before it was ready".to_owned(),
            exit_code: Some(139),
            signal: "SIGSEGV".to_owned(),
            last_probe: "connecting to port 8080: refused".to_owned(),
            log_tail: vec!["bye".to_owned()],
            ..Default::default()
        };
        assert_snapshot!(failure_text("nodes/a", &killed), @r"
        nodes/a: the container was ended by SIGSEGV before it was ready (exit code 139)
          last probe: connecting to port 8080: refused
          | bye
        ");
        let refused = pb::StartFailure {
            reason: pb::start_failure::Reason::Engine.into(),
            engine_error: "no space left\non device".to_owned(),
            ..Default::default()
        };
        assert_snapshot!(failure_text("", &refused), @r"
        the engine failed to start the container
          engine error: no space left on device
        ");
        let quoted = pb::StartFailure {
            message: "the engine refused: no such group".to_owned(),
            engine_error: "no such group".to_owned(),
            ..Default::default()
        };
        assert_snapshot!(failure_text("", &quoted), @"the engine refused: no such group");
    }
}
