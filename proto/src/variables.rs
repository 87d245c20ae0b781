//! Environment variables of the programs' flags.
//!
//! A flag of the control plane or of a node has the variable `PREFIX_<FLAG>` with the prefix of its
//! program. Earlier releases read `CLESS_<FLAG>` in all programs, so that one name meant several
//! things; a program refuses to start while such a name is set. Pure, except [`refuse`].

use std::collections::BTreeMap;

/// Prefix of the variables of `cless-control-plane`.
pub const CONTROL_PLANE: &str = "CLESS_CONTROL_PLANE";
/// Prefix of the variables of `cless-data-plane`.
pub const NODE: &str = "CLESS_NODE";

/// The variable of a flag, `--idle-timeout` as `PREFIX_IDLE_TIMEOUT`.
#[must_use]
pub fn name(prefix: &str, flag: &str) -> String {
    format!("{prefix}_{}", flag.to_uppercase().replace('-', "_"))
}

/// The names `CLESS_<FLAG>` that the flags of `command` and its subcommands no longer have, each
/// with its replacement: the variable of the flag, else the flag itself.
#[must_use]
pub fn former(command: &clap::Command) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    let mut commands = vec![command];
    while let Some(command) = commands.pop() {
        commands.extend(command.get_subcommands());
        for arg in command.get_arguments() {
            let Some(flag) = arg.get_long() else { continue };
            let old = name("CLESS", flag);
            let variable = arg.get_env().and_then(|name| name.to_str());
            // A container of cless has some of these names.
            let is_of_containers = crate::RESERVED_ENV.contains(&old.as_str());
            if variable == Some(&old) || is_of_containers || flag == "help" {
                continue;
            }
            let now = variable.map_or_else(|| format!("--{flag}"), str::to_owned);
            names.entry(old).or_insert(now);
        }
    }
    names
}

/// The error if one of the `former` names is set; `None` if none is.
#[must_use]
pub fn refusal(former: &BTreeMap<String, String>, is_set: impl Fn(&str) -> bool) -> Option<String> {
    let set = former.iter().filter(|(old, _)| is_set(old));
    let lines: Vec<String> = set
        .map(|(old, now)| {
            format!("the variable {old} is no longer read: use {now}, and unset {old}")
        })
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// Ends the process with exit code 2 if a former variable of `command` is set.
pub fn refuse(mut command: clap::Command) {
    let former = former(&command);
    if let Some(refusal) = refusal(&former, |name| std::env::var_os(name).is_some()) {
        let kind = clap::error::ErrorKind::InvalidValue;
        command.error(kind, refusal).exit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Arg, Command};

    #[test]
    fn a_former_name_is_refused_with_its_replacement() {
        let command = Command::new("node")
            .arg(
                Arg::new("idle")
                    .long("idle-timeout")
                    .env("CLESS_NODE_IDLE_TIMEOUT"),
            )
            .arg(Arg::new("server").long("server").env("CLESS_SERVER"))
            .subcommand(Command::new("set").arg(Arg::new("clear").long("clear")));
        let former = former(&command);
        let names = ["CLESS_CLEAR", "CLESS_IDLE_TIMEOUT"];
        assert!(former.keys().eq(names), "{former:?}");
        let refusal = |set: &[&str]| refusal(&former, |name| set.contains(&name));
        assert_eq!(refusal(&["CLESS_SERVER", "CLESS_NODE_IDLE_TIMEOUT"]), None);
        assert_eq!(
            refusal(&names),
            Some(
                "the variable CLESS_CLEAR is no longer read: use --clear, and unset CLESS_CLEAR\n\
                 the variable CLESS_IDLE_TIMEOUT is no longer read: use CLESS_NODE_IDLE_TIMEOUT, \
                 and unset CLESS_IDLE_TIMEOUT"
                    .to_owned()
            )
        );
    }
}
