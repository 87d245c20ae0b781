//! Images made through the engine's API, without a registry or a builder: a tar is imported with the
//! Dockerfile instructions that turn a file system into an image.
//!
//! Images are tagged by the hash of their content, so a second run finds them and two runs at once
//! make the same ones. All carry the label [`LABEL`], by which [`remove_all`] finds them. What must
//! vanish with its maker, as the demo's do, has a repository name of its own and is removed by
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

mod debian;
mod nginx;
mod program;
mod python;
mod sample;

pub use sample::{sample_app, sample_app_release, sample_app_unique, sample_app_with};

/// On every image made here.
pub const LABEL: &str = "cless.test-image";

/// Why an image could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine refused, or does not answer.
    #[error("container engine: {0}")]
    Engine(#[from] bollard::errors::Error),
    /// A file could not be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A program that makes part of the image failed.
    #[error("`{program}` failed: {stderr}")]
    Program {
        /// Its command line.
        program: String,
        /// What it said, or why it did not start.
        stderr: String,
    },
    /// See [`paths::Error`].
    #[error(transparent)]
    Paths(#[from] paths::Error),
}

/// nginx of Debian's packages, exposing 80; answers `/` with the page the package brings.
pub async fn nginx(docker: &Docker) -> Result<String, Error> {
    let changes = [
        r#"ENTRYPOINT ["/usr/sbin/nginx", "-c", "/etc/nginx/cless.conf"]"#.to_owned(),
        "EXPOSE 80".to_owned(),
        format!("LABEL {LABEL}=nginx"),
    ];
    import_built(
        docker,
        "cless-test/nginx",
        nginx::root_file_system,
        &changes,
    )
    .await
}

/// A Flask app behind gunicorn, all of Debian's packages, exposing 8080.
pub async fn python_app(docker: &Docker) -> Result<String, Error> {
    let changes = [
        python::ENTRYPOINT.to_owned(),
        "EXPOSE 8080".to_owned(),
        format!("LABEL {LABEL}=python"),
    ];
    import_built(
        docker,
        "cless-test/python",
        python::root_file_system,
        &changes,
    )
    .await
}

/// Imports what `build` makes, tagged by the hash of it.
async fn import_built(
    docker: &Docker,
    repository: &str,
    build: fn() -> Result<PathBuf, Error>,
    changes: &[String],
) -> Result<String, Error> {
    let path = tokio::task::spawn_blocking(build)
        .await
        .unwrap_or_else(|e| {
            Err(Error::Program {
                program: repository.to_owned(),
                stderr: e.to_string(),
            })
        })?;
    let tar = read(&path)?;
    let hash = hash(&tar);
    import(docker, repository, &hash, tar, changes).await
}

/// The origin of the proxy bench, exposing 8080.
pub async fn bench_origin(docker: &Docker) -> Result<String, Error> {
    program(docker, "cless-bench-origin").await
}

/// The gRPC service of [`grpc`](crate::grpc), exposing 8080.
pub async fn grpc_app(docker: &Docker) -> Result<String, Error> {
    program(docker, "cless-grpc-app").await
}

/// A program of this workspace, exposing 8080.
async fn program(docker: &Docker, name: &'static str) -> Result<String, Error> {
    let tar = tokio::task::spawn_blocking(|| program::tar(name))
        .await
        .unwrap_or_else(|e| {
            Err(Error::Program {
                program: name.to_owned(),
                stderr: e.to_string(),
            })
        })?;
    let hash = hash(&tar);
    let short = name.trim_start_matches("cless-");
    let changes = [
        format!(r#"ENTRYPOINT ["/{name}"]"#),
        "EXPOSE 8080".to_owned(),
        format!("LABEL {LABEL}={short}"),
    ];
    import(docker, &format!("cless-test/{short}"), &hash, tar, &changes).await
}

/// Removes one image by its reference; a missing one is no error.
pub async fn remove(docker: &Docker, reference: &str) -> Result<(), Error> {
    let options = RemoveImageOptionsBuilder::default().force(true).build();
    match docker.remove_image(reference, Some(options), None).await {
        Ok(_) => Ok(()),
        Err(bollard::errors::Error::DockerResponseServerError {
            status_code: 404, ..
        }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes every image ever made here, also by earlier runs.
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

/// Imports `tar` as `repository:tag` unless it is there.
async fn import(
    docker: &Docker,
    repository: &str,
    tag: &str,
    tar: Vec<u8>,
    changes: &[String],
) -> Result<String, Error> {
    let reference = format!("{repository}:{tag}");
    match docker.inspect_image(&reference).await {
        Ok(_) => return Ok(reference),
        Err(bollard::errors::Error::DockerResponseServerError {
            status_code: 404, ..
        }) => {}
        Err(error) => return Err(error.into()),
    }
    import_tar(docker, repository, tag, tar, changes).await
}

async fn import_tar(
    docker: &Docker,
    repository: &str,
    tag: &str,
    tar: Vec<u8>,
    changes: &[String],
) -> Result<String, Error> {
    // bollard joins the instructions by newlines; the engine reads them as one Dockerfile.
    let options = CreateImageOptionsBuilder::default()
        .from_src("-")
        .repo(repository)
        .tag(tag)
        .changes(changes.to_vec())
        .build();
    docker
        .create_image(Some(options), Some(bollard::body_full(tar.into())), None)
        .try_collect::<Vec<_>>()
        .await?;
    Ok(format!("{repository}:{tag}"))
}

/// Runs a program to its end and returns its stdout.
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
    std::fs::read(path).map_err(|error| Error::File {
        path: path.to_owned(),
        error,
    })
}

pub(crate) fn create_dir(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(|error| Error::File {
        path: path.to_owned(),
        error,
    })
}

fn hash(data: &[u8]) -> String {
    Sha256::digest(data)
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
