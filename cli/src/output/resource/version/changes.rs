//! The differences between two specifications in one line. Values of variables may be secret, so
//! only their names appear.

use std::collections::BTreeMap;

use cless_proto::v1 as pb;

use super::{short, spec};
use crate::text;

/// The fields in which `after` differs from `before`, under the names of their flags; empty if none
/// does.
pub(crate) fn spec_changes(before: &pb::VersionSpec, after: &pb::VersionSpec) -> Vec<String> {
    // Without `..`, so that a new field does not compile until it is compared.
    let pb::VersionSpec {
        image,
        port,
        env,
        command,
        args,
        cpu_millis,
        memory_bytes,
        readiness,
        pull_policy,
        pids_limit,
        read_only_root,
        tmpfs,
        user,
        stop_signal,
        stop_grace,
        protocol,
        no_init,
        cap_add,
        tmpfs_exec,
        shm_bytes,
        ulimits,
        extra_hosts,
        dns,
        egress,
    } = after;
    let mut changes = Vec::new();
    let mut field = |name: &str, differs: bool, from: String, to: String| {
        if differs {
            let [from, to] = [from, to].map(|text| text::or_dash(text::clean(&text)));
            changes.push(format!("{name} {from} -> {to}"));
        }
    };
    let number = |n: u32| if n == 0 { String::new() } else { n.to_string() };
    let cores = |millis: u32| format!("{}", f64::from(millis) / 1000.0);
    let grace = |grace: &Option<prost_types::Duration>| text::proto_duration(grace.as_ref());
    field(
        "image",
        before.image != *image,
        before.image.clone(),
        image.clone(),
    );
    field(
        "port",
        before.port != *port,
        number(before.port),
        number(*port),
    );
    field(
        "command",
        before.command != *command,
        before.command.join(" "),
        command.join(" "),
    );
    field(
        "arg",
        before.args != *args,
        before.args.join(" "),
        args.join(" "),
    );
    field(
        "cpu",
        before.cpu_millis != *cpu_millis,
        cores(before.cpu_millis),
        cores(*cpu_millis),
    );
    field(
        "memory",
        before.memory_bytes != *memory_bytes,
        text::size(before.memory_bytes),
        text::size(*memory_bytes),
    );
    field(
        "health",
        before.readiness != *readiness,
        spec::readiness(before),
        spec::readiness(after),
    );
    field(
        "pull",
        before.pull_policy != *pull_policy,
        short(before.pull_policy().as_str_name(), "PULL_POLICY_").to_lowercase(),
        short(after.pull_policy().as_str_name(), "PULL_POLICY_").to_lowercase(),
    );
    field(
        "pids",
        before.pids_limit != *pids_limit,
        number(before.pids_limit),
        number(*pids_limit),
    );
    field(
        "read-only",
        before.read_only_root != *read_only_root,
        before.read_only_root.to_string(),
        read_only_root.to_string(),
    );
    field(
        "tmpfs",
        before.tmpfs != *tmpfs || before.tmpfs_exec != *tmpfs_exec,
        spec::mounts(before),
        spec::mounts(after),
    );
    field(
        "user",
        before.user != *user,
        before.user.clone(),
        user.clone(),
    );
    field(
        "stop-signal",
        before.stop_signal != *stop_signal,
        before.stop_signal.clone(),
        stop_signal.clone(),
    );
    field(
        "stop-grace",
        before.stop_grace != *stop_grace,
        grace(&before.stop_grace),
        grace(stop_grace),
    );
    field(
        "protocol",
        before.protocol != *protocol,
        short(before.protocol().as_str_name(), "PROTOCOL_").to_lowercase(),
        short(after.protocol().as_str_name(), "PROTOCOL_").to_lowercase(),
    );
    field(
        "no-init",
        before.no_init != *no_init,
        before.no_init.to_string(),
        no_init.to_string(),
    );
    for (name, from, to) in [
        ("cap-add", &before.cap_add, cap_add),
        ("dns", &before.dns, dns),
        ("egress", &before.egress, egress),
    ] {
        field(name, from != to, from.join(" "), to.join(" "));
    }
    field(
        "shm-size",
        before.shm_bytes != *shm_bytes,
        text::size(before.shm_bytes),
        text::size(*shm_bytes),
    );
    field(
        "ulimit",
        before.ulimits != *ulimits,
        spec::ulimits(before),
        spec::ulimits(after),
    );
    field(
        "add-host",
        before.extra_hosts != *extra_hosts,
        spec::hosts(before),
        spec::hosts(after),
    );
    changes.extend(variables(&before.env, env));
    changes
}

/// `env +ADDED ~CHANGED -REMOVED`, or `None` without a difference.
fn variables(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Option<String> {
    let set = after
        .iter()
        .filter_map(|(name, value)| match before.get(name) {
            None => Some(format!("+{name}")),
            Some(old) if old != value => Some(format!("~{name}")),
            Some(_) => None,
        });
    let removed = before.keys().filter(|name| !after.contains_key(*name));
    let names: Vec<String> = set.chain(removed.map(|name| format!("-{name}"))).collect();
    (!names.is_empty()).then(|| format!("env {}", text::clean(&names.join(" "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_difference_is_named_and_no_value_of_a_variable_shown() {
        let env = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            pairs
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        let before = pb::VersionSpec {
            image: "hello:1".to_owned(),
            memory_bytes: 512 << 20,
            env: env(&[("KEEP", "1"), ("OLD", "secret"), ("TOKEN", "secret")]),
            ..Default::default()
        };
        let after = pb::VersionSpec {
            image: "hello:2".to_owned(),
            memory_bytes: 1 << 30,
            port: 80,
            env: env(&[("KEEP", "1"), ("NEW", "x"), ("TOKEN", "other")]),
            tmpfs: [("/x".to_owned(), 1 << 20)].into(),
            tmpfs_exec: vec!["/x".to_owned()],
            no_init: true,
            cap_add: vec!["NET_RAW".to_owned()],
            dns: vec!["10.0.0.53".to_owned()],
            egress: vec!["db:5432".to_owned()],
            shm_bytes: 1 << 20,
            ulimits: vec![pb::Ulimit {
                name: "memlock".to_owned(),
                soft: 1,
                hard: -1,
            }],
            extra_hosts: [("db".to_owned(), "10.0.0.5".to_owned())].into(),
            ..before.clone()
        };
        assert_eq!(
            spec_changes(&before, &after),
            [
                "image hello:1 -> hello:2",
                "port - -> 80",
                "memory 512Mi -> 1Gi",
                "tmpfs - -> /x 1Mi exec",
                "no-init false -> true",
                "cap-add - -> NET_RAW",
                "dns - -> 10.0.0.53",
                "egress - -> db:5432",
                "shm-size 0 -> 1Mi",
                "ulimit - -> memlock=1:unlimited",
                "add-host - -> db:10.0.0.5",
                "env +NEW ~TOKEN -OLD"
            ]
        );
        assert_eq!(spec_changes(&before, &before), Vec::<String>::new());
    }
}
