//! The actual packet filter rules of a node in the kernel, by the names of its chains.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// The working iptables variant of each address family. The usual variant is tried first, because a
/// listing by the other one would create tables in the kernel.
fn kinds() -> Vec<&'static str> {
    let families = [
        ["iptables", "iptables-legacy"],
        ["ip6tables", "ip6tables-legacy"],
    ];
    let works = |kind: &&str| !list(kind).is_empty();
    let kinds = families.map(|kinds| kinds.into_iter().find(works));
    kinds.into_iter().flatten().collect()
}

/// The first 12 characters of a node's id, which are part of the names of its network and chains.
pub fn short_id(node_id: &str) -> String {
    let short = node_id.chars().filter(char::is_ascii_alphanumeric);
    short.take(12).collect()
}

/// The interface of a node's bridge.
pub fn bridge(node_id: &str) -> String {
    format!("cless{:.10}", short_id(node_id))
}

/// The name prefix of a node's chains.
pub fn chains(node_id: &str) -> String {
    format!("CLESS-{}-", short_id(node_id))
}

/// The lines of the filter tables with a chain of the node, each after its iptables variant. Without
/// those that name bridges of other nodes, which come and go with other tests.
pub fn rules(node_id: &str) -> Vec<String> {
    let chains = chains(node_id);
    let bridge = format!(" -o {} ", bridge(node_id));
    let all = kinds().into_iter().flat_map(|kind| {
        let lines = list(kind).into_iter();
        lines.map(move |line| format!("{kind}: {line}"))
    });
    let is_stable = |line: &String| !line.contains(" -o ") || line.contains(&bridge);
    all.filter(|line| line.contains(&chains) && is_stable(line))
        .collect()
}

/// Removes the rules of a node after a failed test.
pub fn sweep(node_id: &str) {
    let chains = chains(node_id);
    for kind in kinds() {
        let mut script = vec!["*filter".to_owned()];
        let lines = list(kind);
        let of_node = lines.iter().filter(|line| line.contains(&chains));
        for line in of_node.clone() {
            // A rule of another chain jumps to a chain of the node.
            if let Some(rule) = line.strip_prefix("-A ")
                && !rule.starts_with(&chains)
            {
                script.push(format!("-D {rule}"));
            }
        }
        let names = of_node.filter_map(|line| line.strip_prefix(':')?.split(' ').next());
        let names: Vec<_> = names.collect();
        script.extend(names.iter().map(|name| format!("-F {name}")));
        script.extend(names.iter().map(|name| format!("-X {name}")));
        script.push("COMMIT\n".to_owned());
        if !names.is_empty() {
            restore(kind, &script.join("\n"));
        }
    }
}

/// Runs a script with `iptables-restore --noflush`, as another program on the machine would.
pub fn restore(kind: &str, script: &str) -> bool {
    let child = Command::new(format!("{kind}-restore"))
        .args(["--noflush", "-w", "5"])
        .stdin(Stdio::piped())
        .spawn();
    child.is_ok_and(|mut child| {
        let mut stdin = child.stdin.take();
        let written = stdin
            .as_mut()
            .is_some_and(|stdin| stdin.write_all(script.as_bytes()).is_ok());
        drop(stdin);
        written && child.wait().is_ok_and(|status| status.success())
    })
}

/// The lines of the filter table; empty if this variant does not work.
fn list(kind: &str) -> Vec<String> {
    let listed = Command::new(format!("{kind}-save"))
        .args(["-t", "filter"])
        .output();
    let text = listed.map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().map(str::to_owned).collect()
}
