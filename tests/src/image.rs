//! Images built through the engine's API, without a registry or a builder: the engine imports a tar
//! with the Dockerfile instructions that turn a file system into an image.
//!
//! The tag of an image is the hash of its content, so later runs reuse it and concurrent runs build
//! the same one. All images have the label [`LABEL`], by which [`remove_all`] finds them. Images
//! that must disappear with their creator, such as the demo's, have their own repository name for
//! [`remove`].

use std::path::{Path, PathBuf};
use std::process::Command;

use bollard::Docker;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptionsBuilder,
};
use futures_util::TryStreamExt as _;
use sha2::{Digest as _, Sha256};

use crate::paths;

mod busybox;
mod debian;
mod nginx;
mod program;
mod python;
mod sample;

pub use sample::{sample_app, sample_app_release, sample_app_unique, sample_app_with};

/// Label of every image built here.
pub const LABEL: &str = "cless.test-image";

/// A failure to build an image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine failed or does not respond.
    #[error("container engine: {0}")]
    Engine(#[from] bollard::errors::Error),
    /// A file could not be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// The cause.
        error: std::io::Error,
    },
    /// A program of the build failed.
    #[error("`{program}` failed: {stderr}")]
    Program {
        /// Its command line.
        program: String,
        /// Its standard error, or the reason why it did not start.
        stderr: String,
    },
    /// See [`paths::Error`].
    #[error(transparent)]
    Paths(#[from] paths::Error),
}

/// nginx from Debian packages, which exposes 80 and serves the package's page at `/`.
pub async fn nginx(docker: &Docker) -> Result<String, Error> {
    let tar = blocking(|| read(&nginx::root_file_system()?)).await?;
    let entrypoint = r#"ENTRYPOINT ["/usr/sbin/nginx", "-c", "/etc/nginx/cless.conf"]"#;
    import_hashed(docker, "nginx", tar, entrypoint, 80).await
}

/// BusyBox and s6 from Debian packages, with these instructions; it serves a page and
/// `/cgi-bin/run?COMMAND` by `/app`.
pub async fn busybox(docker: &Docker, name: &str, instructions: &[&str]) -> Result<String, Error> {
    // Tests of one process build the same file system in the same folder.
    static BUILD: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let turn = BUILD.lock().await;
    let tar = blocking(|| read(&busybox::root_file_system()?)).await?;
    drop(turn);
    let mut all = vec![format!("LABEL {LABEL}={name}")];
    all.extend(instructions.iter().map(|line| (*line).to_owned()));
    let content = [tar.as_slice(), all.join("\n").as_bytes()].concat();
    let repository = format!("cless-test/busybox-{name}");
    import(docker, &repository, &hash(&content), tar, &all).await
}

/// A Flask app behind gunicorn from Debian packages, which exposes 8080.
pub async fn python_app(docker: &Docker) -> Result<String, Error> {
    let tar = blocking(|| read(&python::root_file_system()?)).await?;
    import_hashed(docker, "python", tar, python::ENTRYPOINT, 8080).await
}

/// The origin of the proxy bench, which exposes 8080.
pub async fn bench_origin(docker: &Docker) -> Result<String, Error> {
    program(docker, "cless-bench-origin").await
}

/// The gRPC service of [`grpc`](crate::grpc), which exposes 8080.
pub async fn grpc_app(docker: &Docker) -> Result<String, Error> {
    program(docker, "cless-grpc-app").await
}

async fn program(docker: &Docker, name: &'static str) -> Result<String, Error> {
    let tar = blocking(|| program::tar(name)).await?;
    let short = name.trim_start_matches("cless-");
    let entrypoint = format!(r#"ENTRYPOINT ["/{name}"]"#);
    import_hashed(docker, short, tar, &entrypoint, 8080).await
}

async fn blocking<T: Send + 'static>(
    step: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let outcome = tokio::task::spawn_blocking(step).await;
    outcome.unwrap_or_else(|error| {
        Err(Error::Program {
            program: "image build".to_owned(),
            stderr: error.to_string(),
        })
    })
}

/// Imports `tar` as `cless-test/NAME`, tagged by its hash.
async fn import_hashed(
    docker: &Docker,
    name: &str,
    tar: Vec<u8>,
    entrypoint: &str,
    port: u16,
) -> Result<String, Error> {
    let instructions = [
        entrypoint.to_owned(),
        format!("EXPOSE {port}"),
        format!("LABEL {LABEL}={name}"),
    ];
    let (repository, hash) = (format!("cless-test/{name}"), hash(&tar));
    import(docker, &repository, &hash, tar, &instructions).await
}

fn is_missing(error: &bollard::errors::Error) -> bool {
    use bollard::errors::Error::DockerResponseServerError as Response;
    matches!(
        error,
        Response {
            status_code: 404,
            ..
        }
    )
}

/// Removes an image by reference; a missing image is not an error.
pub async fn remove(docker: &Docker, reference: &str) -> Result<(), Error> {
    let options = RemoveImageOptionsBuilder::default().force(true).build();
    match docker.remove_image(reference, Some(options), None).await {
        Err(error) if !is_missing(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

/// Removes all images built here, also by earlier runs.
pub async fn remove_all(docker: &Docker) -> Result<usize, Error> {
    let filters = [("label".to_owned(), vec![LABEL.to_owned()])].into();
    let options = ListImagesOptionsBuilder::default()
        .filters(&filters)
        .build();
    let images = docker.list_images(Some(options)).await?;
    for image in &images {
        remove(docker, &image.id).await?;
    }
    Ok(images.len())
}

/// Imports `tar` as `repository:tag` unless that image exists.
async fn import(
    docker: &Docker,
    repository: &str,
    tag: &str,
    tar: Vec<u8>,
    instructions: &[String],
) -> Result<String, Error> {
    let reference = format!("{repository}:{tag}");
    match docker.inspect_image(&reference).await {
        Ok(_) => Ok(reference),
        Err(error) if !is_missing(&error) => Err(error.into()),
        Err(_) => import_tar(docker, repository, tag, tar, instructions).await,
    }
}

async fn import_tar(
    docker: &Docker,
    repository: &str,
    tag: &str,
    tar: Vec<u8>,
    instructions: &[String],
) -> Result<String, Error> {
    // bollard joins the instructions with newlines; the engine reads them as one Dockerfile.
    let options = CreateImageOptionsBuilder::default()
        .from_src("-")
        .repo(repository)
        .tag(tag)
        .changes(instructions.to_vec())
        .build();
    docker
        .create_image(Some(options), Some(bollard::body_full(tar.into())), None)
        .try_collect::<Vec<_>>()
        .await?;
    Ok(format!("{repository}:{tag}"))
}

pub(crate) fn run(command: &mut Command) -> Result<Vec<u8>, Error> {
    let program = format!("{command:?}");
    match command.output() {
        Ok(output) if output.status.success() => Ok(output.stdout),
        Ok(output) => {
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(Error::Program { program, stderr })
        }
        Err(error) => Err(Error::Program {
            program,
            stderr: error.to_string(),
        }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(file_error(path))
}

pub(crate) fn file_error(path: &Path) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::File {
        path: path.to_owned(),
        error,
    }
}

pub(crate) fn create_dir(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(file_error(path))
}

fn hash(data: &[u8]) -> String {
    Sha256::digest(data)
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
