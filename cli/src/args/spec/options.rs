//! The flags of a container that few versions use: init, capabilities, limits and names.

use clap::Args;
use cless_proto::v1 as pb;

use crate::parse::{self, UlimitArg};

/// Options of a container that few versions use.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Container options")]
pub(crate) struct OptionArgs {
    /// Run the process as PID 1, for images with an init of their own
    #[arg(long, env = "CLESS_NO_INIT", value_parser = clap::builder::FalseyValueParser::new())]
    #[arg(action = clap::ArgAction::SetTrue)]
    no_init: bool,
    /// Linux capability to add, such as NET_RAW, which the nodes have to allow; may be repeated
    #[arg(long, env = "CLESS_CAP_ADD", value_name = "CAP", value_delimiter = ',')]
    cap_add: Vec<String>,
    /// Size of /dev/shm, which counts towards --memory [default: 64Mi]
    #[arg(long, env = "CLESS_SHM_SIZE", value_name = "SIZE", value_parser = parse::positive_size)]
    shm_size: Option<u64>,
    /// Resource limit, such as nofile=1024:65536 or memlock=-1; may be repeated
    #[arg(long, env = "CLESS_ULIMIT", value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<UlimitArg>,
    /// Line of /etc/hosts, such as db:10.0.0.5 or node:host-gateway; may be repeated
    #[arg(long, env = "CLESS_ADD_HOST", value_name = "HOST:IP", value_parser = parse::host_line)]
    add_host: Vec<(String, String)>,
    /// Name server; may be repeated [default: those of the node]
    #[arg(long, env = "CLESS_DNS", value_name = "IP", value_delimiter = ',')]
    dns: Vec<String>,
    /// Destination on the node, such as a database, which the nodes have to allow; may be repeated
    #[arg(
        long,
        env = "CLESS_EGRESS",
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    egress: Vec<String>,
}

impl OptionArgs {
    /// Writes the flags that are given into a specification.
    pub(super) fn apply(&self, spec: &mut pb::VersionSpec) {
        spec.no_init |= self.no_init;
        if let Some(bytes) = self.shm_size {
            spec.shm_bytes = bytes;
        }
        for (given, field) in [
            (&self.cap_add, &mut spec.cap_add),
            (&self.dns, &mut spec.dns),
            (&self.egress, &mut spec.egress),
        ] {
            if !given.is_empty() {
                field.clone_from(given);
            }
        }
        if !self.ulimit.is_empty() {
            let limits = self.ulimit.iter();
            spec.ulimits = limits.map(UlimitArg::to_proto).collect();
        }
        if !self.add_host.is_empty() {
            spec.extra_hosts = self.add_host.iter().cloned().collect();
        }
    }
}
