//! Start, kill and stop of a cluster's processes.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use super::{Cluster, Node, NodeSetup, STOP_TIMEOUT};
use crate::access::Access;
use crate::control_plane::{address, any_port, sqlite};
use crate::paths;
use crate::process::{Program, flags};

impl Cluster {
    /// Starts the control plane: on a free port the first time, on the same port later.
    pub async fn start_control_plane(&mut self) -> Result<()> {
        self.start_control_plane_with(&[]).await
    }

    /// Like [`Cluster::start_control_plane`], with additional environment variables.
    pub async fn start_control_plane_with(&mut self, env: &[(String, String)]) -> Result<()> {
        let database = self.dir.path().join("cless.db");
        let mut args = flags(&[
            ("--listen", &self.listen_address(self.grpc).to_string()),
            ("--database-url", &sqlite(&database)),
            ("--domain", "localhost"),
            ("--data-dir", &self.data_dir().display().to_string()),
        ]);
        args.extend((!self.trusted).then(|| "--insecure".to_owned()));
        let path = paths::program("cless-control-plane")?;
        let dir = self.dir.path();
        let (program, ready) = Program::serve(&path, args, env, dir, "control-plane").await?;
        self.grpc = address(&ready, "listen")?;
        self.control_plane = Some(program);
        if self.trusted {
            self.access = Access::administrator(&self.data_dir())?;
        }
        Ok(())
    }

    /// Sends SIGKILL to the control plane and waits for the exit.
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

    /// Like [`Cluster::add_node`], with a separate set-up.
    pub async fn add_node_with(&mut self, setup: NodeSetup) -> Result<usize> {
        let index = self.nodes.len();
        let name = format!("node-{index}");
        self.nodes.push(Node {
            name,
            listen: any_port(),
            admin: any_port(),
            tls: None,
            setup,
            program: None,
        });
        self.start_node(index).await?;
        Ok(index)
    }

    /// Starts a stopped data plane again, with the same ports and folder.
    pub async fn start_node(&mut self, index: usize) -> Result<()> {
        let node = &self.nodes[index];
        ensure!(node.program.is_none(), "{} is running", node.name);
        let dir = self.dir.path();
        let cache = dir.join(&node.name);
        let join_token = dir.join(format!("{}.join-token", node.name));
        if self.trusted && !cache.exists() {
            let token = self.api()?.create_join_token(&node.name).await?;
            std::fs::write(&join_token, token)?;
        }
        let mut args = flags(&[
            ("--listen", &self.listen_address(node.listen).to_string()),
            ("--admin", &self.listen_address(node.admin).to_string()),
            ("--control-plane", &self.url()),
            ("--node", &node.name),
            ("--cache-dir", &cache.display().to_string()),
        ]);
        if self.trusted {
            args.extend(flags(&[(
                "--join-token-file",
                &join_token.display().to_string(),
            )]));
        }
        if self.exposed {
            args.extend(protect_admin(&dir.join(format!("{}-admin", node.name)))?);
        }
        args.extend(node.setup.args.iter().cloned());
        let path = match &node.setup.program {
            Some(path) => path.clone(),
            None => paths::program("cless-data-plane")?,
        };
        let env = &node.setup.env;
        let (program, ready) = Program::serve(&path, args, env, dir, &node.name).await?;
        let node = &mut self.nodes[index];
        node.listen = address(&ready, "listen")?;
        node.admin = address(&ready, "admin")?;
        node.tls = match ready["tls_listen"].is_null() {
            true => None,
            false => Some(address(&ready, "tls_listen")?),
        };
        node.program = Some(program);
        Ok(())
    }

    /// Sends SIGKILL to a data plane; its containers stay.
    pub async fn kill_node(&mut self, index: usize) -> Result<()> {
        self.nodes[index]
            .program
            .take()
            .context("the node is down")?
            .kill()
            .await
    }

    /// Sends SIGTERM to a data plane and waits for its clean exit.
    pub async fn stop_node(&mut self, index: usize) -> Result<()> {
        self.nodes[index].signal(Signal::SIGTERM)?;
        self.node_ends(index).await
    }

    /// Waits for the clean exit of a data plane.
    pub async fn node_ends(&mut self, index: usize) -> Result<()> {
        let node = &mut self.nodes[index];
        let program = node.program.as_mut().context("the node is down")?;
        let exited = program.wait_cleanly(STOP_TIMEOUT).await;
        exited.with_context(|| node.name.clone())?;
        node.program = None;
        Ok(())
    }
}

/// The flags without which a node does not serve its admin port on every address, and their files.
fn protect_admin(folder: &Path) -> Result<Vec<String>> {
    std::fs::create_dir_all(folder)?;
    let made = rcgen::generate_simple_self_signed(["admin".to_owned()])?;
    let file = |name: &str, content: String| {
        let path = folder.join(name);
        std::fs::write(&path, content)?;
        anyhow::Ok(path.display().to_string())
    };
    Ok(flags(&[
        ("--admin-tls-cert", &file("admin.crt", made.cert.pem())?),
        (
            "--admin-tls-key",
            &file("admin.key", made.signing_key.serialize_pem())?,
        ),
        (
            "--metrics-token-file",
            &file("token", "0123456789abcdef".to_owned())?,
        ),
    ]))
}
