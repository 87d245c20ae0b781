//! Why a start failed, in a few lines.

use cless_proto::v1 as pb;

use crate::text;

/// `nodes/local: the container ended (exit code 3, out of memory)` and its log, indented.
pub(super) fn failure_text(node: &str, failure: &pb::StartFailure) -> String {
    let what = match failure.message.as_str() {
        "" => match failure.reason() {
            pb::start_failure::Reason::Image => "the image cannot be had",
            pb::start_failure::Reason::Engine => "the engine refused to start it",
            pb::start_failure::Reason::Exited => "the container ended before it was ready",
            pb::start_failure::Reason::NotReady => "it did not become ready in time",
            pb::start_failure::Reason::Unspecified => "it did not start",
        },
        message => message,
    };
    // The message may have said it already, in these or other words.
    let code = failure
        .exit_code
        .filter(|code| !what.contains(&format!("code {code}")));
    let code = code.map(|code| format!("exit code {code}"));
    let oom = failure
        .oom_killed
        .then(|| "out of memory: give it more with --memory".to_owned());
    let signal =
        Some(&failure.signal).filter(|signal| !signal.is_empty() && !what.contains(*signal));
    let signal = signal.map(|signal| text::clean(signal));
    let facts = [code, signal, oom].into_iter().flatten();
    let facts: Vec<String> = facts.collect();
    let mut line = String::new();
    if !node.is_empty() {
        line = format!("{}: ", text::clean(node));
    }
    line.push_str(&text::clean(what));
    if !facts.is_empty() {
        line.push_str(&format!(" ({})", facts.join(", ")));
    }
    for (name, words) in [
        ("last probe", &failure.last_probe),
        ("the engine said", &failure.engine_error),
    ] {
        // The message may quote it.
        if !words.is_empty() && !what.contains(words.as_str()) {
            line.push_str(&format!("\n  {name}: {}", text::clean(words)));
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
    fn what_is_known_is_told_once() {
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
        the engine refused to start it
          the engine said: no space left on device
        ");
        let quoted = pb::StartFailure {
            message: "the engine refused: no such group".to_owned(),
            engine_error: "no such group".to_owned(),
            ..Default::default()
        };
        assert_snapshot!(failure_text("", &quoted), @"the engine refused: no such group");
    }
}
