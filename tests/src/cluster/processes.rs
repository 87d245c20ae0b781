//! The processes of a cluster, started, killed and stopped.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{Cluster, Node, NodeSetup, STOP_WITHIN};
use crate::process::Program;

impl Cluster {
    /// Starts the control plane: on a port the system picks the first time, on the same one later.
    pub async fn start_control_plane(&mut self) -> Result<()> {
        let ready_file = self.dir.path().join("control-plane.ready");
        // Left by the process before; the file of this one must not be mistaken for it.
        let _ = std::fs::remove_file(&ready_file);
        let database = self.dir.path().join("cless.db");
        let mut args = arguments(&[
            ("--listen", &self.bound(self.grpc).to_string()),
            (
                "--database-url",
                &format!("sqlite://{}?mode=rwc", database.display()),
            ),
            ("--domain", "localhost"),
            ("--ready-file", &ready_file.display().to_string()),
        ]);
        args.extend(self.exposed.then(|| "--allow-insecure".to_owned()));
        let dir = self.dir.path();
        let mut program = Program::start("cless-control-plane", &args, dir, "control-plane")?;
        let ready = program.ready(&ready_file).await?;
        self.grpc = address(&ready, "listen")?;
        self.control_plane = Some(program);
        Ok(())
    }

    /// SIGKILL to the control plane.
    pub async fn kill_control_plane(&mut self) -> Result<()> {
        self.control_plane
            .take()
            .context("the control plane is down")?
            .kill()
            .await
    }

    /// Starts one more data plane and returns its index.
    pub async fn add_node(&mut self) -> Result<usize> {
        self.add_node_with(self.setup.clone()).await
    }

    /// The same, with a set-up of its own.
    pub async fn add_node_with(&mut self, setup: NodeSetup) -> Result<usize> {
        let index = self.nodes.len();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let name = format!("node-{index}");
        self.nodes.push(Node {
            name,
            listen: any,
            admin: any,
            tls: None,
            setup,
            program: None,
        });
        self.start_node(index).await?;
        Ok(index)
    }

    /// Starts a data plane that is down, with the ports and the folder it had.
    pub async fn start_node(&mut self, index: usize) -> Result<()> {
        let node = &self.nodes[index];
        ensure!(node.program.is_none(), "{} is running", node.name);
        let (listen, admin) = (self.bound(node.listen), self.bound(node.admin));
        let node = &mut self.nodes[index];
        let ready_file = self.dir.path().join(format!("{}.ready", node.name));
        let _ = std::fs::remove_file(&ready_file);
        let cache = self.dir.path().join(&node.name);
        let mut args = arguments(&[
            ("--listen", &listen.to_string()),
            ("--admin", &admin.to_string()),
            ("--control-plane", &format!("http://{}", self.grpc)),
            ("--node", &node.name),
            ("--cache-dir", &cache.display().to_string()),
            ("--ready-file", &ready_file.display().to_string()),
        ]);
        args.extend(node.setup.args.iter().cloned());
        let (dir, env) = (self.dir.path(), &node.setup.env);
        let mut program = Program::start_in("cless-data-plane", &args, env, dir, &node.name)?;
        let ready = program.ready(&ready_file).await?;
        node.listen = address(&ready, "listen")?;
        node.admin = address(&ready, "admin")?;
        node.tls = match ready["tls_listen"].is_null() {
            true => None,
            false => Some(address(&ready, "tls_listen")?),
        };
        node.program = Some(program);
        Ok(())
    }

    /// SIGKILL to a data plane; its containers stay.
    pub async fn kill_node(&mut self, index: usize) -> Result<()> {
        self.nodes[index]
            .program
            .take()
            .context("the node is down")?
            .kill()
            .await
    }

    /// SIGTERM to a data plane, and waits for its clean end.
    pub async fn stop_node(&mut self, index: usize) -> Result<()> {
        self.nodes[index].signal(Signal::SIGTERM)?;
        self.node_ends(index).await
    }

    /// Waits for the clean end of a data plane that was told to end.
    pub async fn node_ends(&mut self, index: usize) -> Result<()> {
        let node = &mut self.nodes[index];
        let program = node.program.as_mut().context("the node is down")?;
        let status = program.end(STOP_WITHIN).await?;
        ensure!(
            status.success(),
            "{} ended with {status}\n{}",
            node.name,
            program.log_tail(30)
        );
        node.program = None;
        Ok(())
    }
}

fn arguments(flags: &[(&str, &str)]) -> Vec<String> {
    flags
        .iter()
        .flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()])
        .collect()
}

/// Where to dial what listens there.
fn address(ready: &Value, key: &str) -> Result<SocketAddr> {
    let Some(text) = ready[key].as_str() else {
        bail!("the ready file has no `{key}`: {ready}");
    };
    let mut address: SocketAddr = text.parse()?;
    if address.ip().is_unspecified() {
        address.set_ip([127, 0, 0, 1].into());
    }
    Ok(address)
}
