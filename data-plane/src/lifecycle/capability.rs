//! The capability that an exec lacked.
//!
//! The kernel refuses to execute a file whose capabilities the container may not have (EPERM,
//! execve(2)); the container's init and shells then exit with 126. Neither says which capability,
//! so the file is looked at.

use cless_proto::capability;

use crate::report::StartFailure;
use crate::runtime::Runtime;

/// The exit code of an init or a shell whose exec was refused.
const NOT_EXECUTABLE: i32 = 126;
/// The text of EPERM.
const EPERM: &str = "peration not permitted";
/// Files that are looked at.
const CANDIDATES_MAX: usize = 6;
/// Where a program without a path is looked up.
const SEARCH_PATH: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// Adds the lacking capabilities and the remedy to the message of a failure, if an exec was refused
/// for them.
pub(crate) async fn explain(
    runtime: &dyn Runtime,
    name: &str,
    added: &[String],
    failure: &mut StartFailure,
) {
    let refused = failure.exit_code == Some(NOT_EXECUTABLE)
        || failure.message.contains(EPERM)
        || failure.log_tail.iter().any(|line| line.contains(EPERM));
    if !refused {
        return;
    }
    let program = runtime.inspect(name).await.map(|found| found.program);
    let texts = failure.log_tail.iter().chain([&failure.message]);
    let named = texts.filter(|line| line.contains(EPERM));
    for path in candidates(&program.unwrap_or_default(), named) {
        let Ok(permitted) = runtime.file_capabilities(name, &path).await else {
            continue;
        };
        let lacking = lacking(permitted, added);
        if !lacking.is_empty() {
            let list = lacking.join(",");
            failure.message.push_str(&format!(
                "; its file {path} has the capabilities {list}, which the container lacks: deploy with \
                 --cap-add {list}, on nodes with --allow-capabilities {list}"
            ));
            return;
        }
    }
}

fn lacking(permitted: u64, added: &[String]) -> Vec<&'static str> {
    let held =
        |name: &str| capability::DEFAULT.contains(&name) || added.iter().any(|one| one == name);
    capability::of_bits(permitted)
        .filter(|name| !held(name))
        .collect()
}

/// Paths of the refused program: those in its messages, and the entry point.
fn candidates<'a>(program: &str, messages: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in messages {
        let words = line.split(|c: char| c.is_whitespace() || matches!(c, ':' | '"' | '\'' | '\\'));
        found.extend(
            words
                .filter(|word| word.len() > 1 && word.starts_with('/'))
                .map(str::to_owned),
        );
    }
    found.truncate(CANDIDATES_MAX);
    if program.starts_with('/') {
        found.insert(0, program.to_owned());
    } else if !program.is_empty() && !program.contains('/') {
        found.extend(SEARCH_PATH.map(|folder| format!("{folder}/{program}")));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refused_file_is_named_by_the_entry_point_or_a_message() {
        let tini = "[FATAL tini (7)] exec /usr/bin/ping failed: Operation not permitted".to_owned();
        assert_eq!(
            candidates("/run.sh", [&tini].into_iter()),
            ["/run.sh", "/usr/bin/ping"]
        );
        let shell = "/run.sh: line 3: /bin/vault: Operation not permitted".to_owned();
        assert_eq!(
            candidates("", [&shell].into_iter()),
            ["/run.sh", "/bin/vault"]
        );
        let found = candidates("ping", std::iter::empty());
        assert!(found.contains(&"/usr/bin/ping".to_owned()));
        assert!(candidates("./ping", std::iter::empty()).is_empty());
    }

    #[test]
    fn a_capability_that_the_container_has_is_not_lacking() {
        assert_eq!(lacking(1 << 13 | 1 << 10, &[]), ["NET_RAW"]);
        assert!(lacking(1 << 13, &["NET_RAW".to_owned()]).is_empty());
        assert!(lacking(0, &[]).is_empty());
    }
}
