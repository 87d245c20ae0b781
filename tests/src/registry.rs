//! A real registry on loopback from Debian's `docker-registry` package, with or without passwords.
//!
//! Engines accept registries on 127.0.0.0/8 without TLS. The registry logs its requests, so that a
//! test can check by which name an image was pulled.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListImagesOptionsBuilder, PushImageOptionsBuilder,
};
use futures_util::TryStreamExt as _;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

use crate::{debian, image, paths, wait};

const READY_TIMEOUT: Duration = Duration::from_secs(20);

const PUSHER: (&str, &str) = ("pusher", "pushing");

/// A running registry; dropping it ends the process.
#[derive(Debug)]
pub struct Registry {
    dir: TempDir,
    address: SocketAddr,
    private: bool,
    _child: Child,
}

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// `HOST:PORT/NAME:TAG`
    pub reference: String,
    /// `sha256:…`
    pub digest: String,
}

/// A request that a registry received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryRequest {
    /// Method such as GET or HEAD.
    pub method: String,
    /// Path such as `/v2/NAME/manifests/1`.
    pub path: String,
    /// Status of the response.
    pub status: u16,
}

impl Registry {
    /// Starts an empty registry without passwords.
    pub async fn start() -> Result<Self> {
        Self::start_with(None).await
    }

    /// Starts an empty registry for one user.
    pub async fn private(user: &str, password: &str) -> Result<Self> {
        Self::start_with(Some((user.to_owned(), password.to_owned()))).await
    }

    async fn start_with(login: Option<(String, String)>) -> Result<Self> {
        static PROGRAM: OnceCell<PathBuf> = OnceCell::const_new();
        let unpacked = async || tokio::task::spawn_blocking(program).await?;
        let program = PROGRAM.get_or_try_init(unpacked).await?;
        let dir = tempfile::Builder::new()
            .prefix("cless-registry-")
            .tempdir()?;
        let folder = dir.path().display();
        let mut config = format!(
            "version: 0.1\nlog: {{level: info}}\n\
             storage: {{filesystem: {{rootdirectory: {folder}/data}}}}\nhttp: {{addr: 127.0.0.1:0}}\n"
        );
        if let Some((user, password)) = &login {
            let mut lines = String::new();
            for (user, password) in [(user.as_str(), password.as_str()), PUSHER] {
                lines.push_str(&format!("{user}:{}\n", bcrypt(password).await?));
            }
            std::fs::write(dir.path().join("htpasswd"), lines)?;
            config.push_str(&format!(
                "auth: {{htpasswd: {{realm: cless-test, path: {folder}/htpasswd}}}}\n"
            ));
        }
        let config_file = dir.path().join("config.yml");
        std::fs::write(&config_file, config)?;
        let log = std::fs::File::create(dir.path().join("log"))?;
        let mut child = Command::new(program)
            .arg("serve")
            .arg(&config_file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let path = dir.path().join("log");
        let address = wait::until("the registry listens", READY_TIMEOUT, async || {
            let text = std::fs::read_to_string(&path)?;
            if let Some(status) = child.try_wait()? {
                bail!("the registry exited: {status}\n{text}");
            }
            let at = text.split_once("listening on ").map(|(_, rest)| rest);
            let at = at.and_then(|rest| rest.split(['"', ' ', '\n', ',']).next());
            Ok(at.and_then(|at| at.parse().ok()))
        })
        .await?;
        Ok(Self {
            dir,
            address,
            private: login.is_some(),
            _child: child,
        })
    }

    /// Its address, which is also the first part of its images' names.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Builds an image of the sample app with a `greeting` and a new layer of `padding` random
    /// bytes, pushes it as `NAME:TAG` to the address `through`, and removes it from the engine.
    pub async fn push(
        &self,
        docker: &Docker,
        through: SocketAddr,
        name_and_tag: (&str, &str),
        greeting: &str,
        padding: usize,
    ) -> Result<Pushed> {
        let (name, tag) = name_and_tag;
        let repository = format!("{through}/{name}");
        let reference =
            image::sample_app_unique(docker, &repository, tag, greeting, padding).await?;
        // The engine requires credentials even if the registry does not.
        let mut credentials = DockerCredentials::default();
        if self.private {
            credentials.username = Some(PUSHER.0.to_owned());
            credentials.password = Some(PUSHER.1.to_owned());
        }
        let options = PushImageOptionsBuilder::default().tag(tag).build();
        // Only the last status of an image contains the digest.
        let steps: Vec<_> = docker
            .push_image(&repository, Some(options), Some(credentials))
            .try_collect()
            .await
            .with_context(|| format!("pushing {reference}"))?;
        let digest = steps.iter().rev().find_map(|step| {
            let (_, rest) = step.status.as_deref()?.split_once("digest: ")?;
            rest.split(' ').next().map(str::to_owned)
        });
        image::remove(docker, &reference).await?;
        Ok(Pushed {
            reference,
            digest: digest.with_context(|| format!("no digest: {steps:?}"))?,
        })
    }

    /// All requests so far, in order.
    pub fn requests(&self) -> Result<Vec<RegistryRequest>> {
        let text = std::fs::read_to_string(self.dir.path().join("log"))?;
        Ok(text.lines().filter_map(parse_request).collect())
    }

    /// The requested tags and digests of manifests of `name`, without the first `skip` requests of
    /// [`Registry::requests`].
    pub fn manifests(&self, name: &str, skip: usize) -> Result<Vec<String>> {
        let prefix = format!("/v2/{name}/manifests/");
        let requests = self.requests()?.into_iter().skip(skip);
        Ok(requests
            .filter_map(|one| one.path.strip_prefix(&prefix).map(str::to_owned))
            .collect())
    }
}

/// Pulls an image with the engine, without cless.
pub async fn pull_by_hand(docker: &Docker, reference: &str) -> Result<()> {
    let options = CreateImageOptionsBuilder::default()
        .from_image(reference)
        .build();
    let steps: Vec<_> = docker
        .create_image(Some(options), None, None)
        .try_collect()
        .await?;
    ensure!(!steps.is_empty(), "the engine reported no progress");
    Ok(())
}

/// The names of all images on the engine from the registry at `address`.
pub async fn local_names(docker: &Docker, address: SocketAddr) -> Result<Vec<String>> {
    let options = ListImagesOptionsBuilder::default().digests(true).build();
    let images = docker.list_images(Some(options)).await?;
    let prefix = format!("{address}/");
    Ok(images
        .into_iter()
        .flat_map(|one| one.repo_tags.into_iter().chain(one.repo_digests))
        .filter(|name| name.starts_with(&prefix) && !name.contains("<none>"))
        .collect())
}

/// Removes all images on the engine from the registry at `address` and checks that none is left.
pub async fn remove_local(docker: &Docker, address: SocketAddr) -> Result<()> {
    for name in local_names(docker, address).await? {
        image::remove(docker, &name).await?;
    }
    let left = local_names(docker, address).await?;
    ensure!(left.is_empty(), "images are left: {left:?}");
    Ok(())
}

/// Parses `… "GET /v2/app/manifests/1 HTTP/1.1" 200 528 …` of the access log.
fn parse_request(line: &str) -> Option<RegistryRequest> {
    let mut parts = line.split('"');
    let (before, request, after) = (parts.next()?, parts.next()?, parts.next()?);
    if before.contains('=') {
        return None;
    }
    let mut words = request.split(' ');
    let (method, path) = (words.next()?, words.next()?);
    path.starts_with("/v2/").then_some(RegistryRequest {
        method: method.to_owned(),
        path: path.to_owned(),
        status: after.split_whitespace().next()?.parse().ok()?,
    })
}

/// The path of the registry's program under `target/`, which is unpacked once.
fn program() -> Result<PathBuf> {
    let dir = paths::target_dir()?.join("sample");
    let program = dir.join("docker-registry");
    if !program.is_file() {
        let root = dir.join(format!("registry-{}", std::process::id()));
        debian::unpack(&["docker-registry"], &root)?;
        // Other processes may unpack it too, so the complete file is renamed into place.
        std::fs::rename(root.join("usr/bin/docker-registry"), &program)?;
        let removed = std::fs::remove_dir_all(&root);
        removed.with_context(|| format!("cannot remove {}", root.display()))?;
    }
    Ok(program)
}

/// The hash that `htpasswd -B` would write. Perl is essential in Debian, and its `crypt` is that of
/// libcrypt.
async fn bcrypt(password: &str) -> Result<String> {
    let salt = "$2y$05$clesscorrecthorsebatt.";
    let output = Command::new("perl")
        .args(["-e", "print crypt($ARGV[0], $ARGV[1])", password, salt])
        .output()
        .await?;
    let hash = String::from_utf8(output.stdout)?;
    ensure!(
        hash.starts_with("$2y$05$") && hash.len() == 60,
        "no bcrypt hash: {hash:?}"
    );
    Ok(hash)
}
