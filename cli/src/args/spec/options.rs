//! The flags of a container that few versions use: init, capabilities, limits and names.

use clap::Args;
use cless_proto::v1 as pb;

use crate::parse::{self, UlimitArg};

/// Options of a container that few versions use.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Container options")]
pub(crate) struct OptionArgs {
    /// Run the process as PID 1, for images with an init of their own [default: false]
    #[arg(long, value_name = "BOOL")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    no_init: Option<bool>,
    /// Linux capability to add, such as NET_RAW, which the nodes have to allow; may be repeated. Empty: none
    #[arg(long, value_name = "CAP", value_delimiter = ',')]
    cap_add: Vec<String>,
    /// Size of /dev/shm, which counts towards --memory [default: 64Mi]
    #[arg(long, value_name = "SIZE", value_parser = parse::positive_size)]
    shm_size: Option<u64>,
    /// Resource limit, such as nofile=1024:65536 or memlock=-1; may be repeated
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<UlimitArg>,
    /// Line of /etc/hosts, such as db:10.0.0.5 or node:host-gateway; may be repeated
    #[arg(long, value_name = "HOST:IP", value_parser = parse::host_line)]
    add_host: Vec<(String, String)>,
    /// Name server; may be repeated. Empty: those of the node
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    dns: Vec<String>,
    /// Destination on the node, such as a database, which the nodes have to allow; may be repeated. Empty: none
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    egress: Vec<String>,
}

impl OptionArgs {
    /// Writes the flags given into a specification. A limit or a line of hosts replaces the one of
    /// the same name; a list replaces the whole list.
    pub(super) fn apply(&self, spec: &mut pb::VersionSpec) {
        if let Some(no_init) = self.no_init {
            spec.no_init = no_init;
        }
        if let Some(bytes) = self.shm_size {
            spec.shm_bytes = bytes;
        }
        for (given, field) in [
            (&self.cap_add, &mut spec.cap_add),
            (&self.dns, &mut spec.dns),
            (&self.egress, &mut spec.egress),
        ] {
            match given.as_slice() {
                [] => {}
                [word] if word.is_empty() => field.clear(),
                words => *field = words.to_vec(),
            }
        }
        for limit in &self.ulimit {
            spec.ulimits.retain(|known| known.name != limit.name);
            spec.ulimits.push(limit.to_proto());
        }
        // In the order of the control plane.
        spec.ulimits.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        spec.extra_hosts.extend(self.add_host.iter().cloned());
    }
}
