//! The sample app's image: compiled with one call of `rustc`, alone on its file system.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use bollard::Docker;

use super::{Error, LABEL, create_dir, hash, import, import_tar, read, run};
use crate::paths;

/// The sample app, listening on `PORT` or 8080, which it also exposes.
pub async fn sample_app(docker: &Docker) -> Result<String, Error> {
    let (tar, hash) = sample_app_tar().await?;
    import(
        docker,
        "cless-test/sample",
        &hash,
        tar,
        &sample_app_changes("test"),
    )
    .await
}

/// The sample app once more under the name of the caller's choice, labelled with `version`: an image
/// of its own, as a real release would be.
pub async fn sample_app_release(
    docker: &Docker,
    repository: &str,
    version: &str,
) -> Result<String, Error> {
    let (tar, _) = sample_app_tar().await?;
    import(
        docker,
        repository,
        version,
        tar,
        &sample_app_changes(version),
    )
    .await
}

/// The sample app in a layer that no engine has yet, with `padding` bytes that cannot be compressed;
/// it greets with `greeting` of itself. For registries: what is pulled must come over the wire.
pub async fn sample_app_unique(
    docker: &Docker,
    repository: &str,
    tag: &str,
    greeting: &str,
    padding: usize,
) -> Result<String, Error> {
    // A few bytes in any case, for each image is to be one of its own.
    let (tar, _) = tokio::task::spawn_blocking(move || sample_app_and(padding + 16))
        .await
        .unwrap_or_else(|e| {
            Err(Error::Program {
                program: "rustc".to_owned(),
                stderr: e.to_string(),
            })
        })?;
    let mut changes = sample_app_changes("unique");
    changes.push(format!("ENV GREETING={greeting}"));
    // Also if the name is taken: then it moves, as a tag that is pushed again does.
    import_tar(docker, repository, tag, tar, &changes).await
}

/// The sample app under a name of the caller's choice, with instructions that the usual image does not
/// have. It is removed by [`remove`](super::remove).
pub async fn sample_app_with(
    docker: &Docker,
    repository: &str,
    tag: &str,
    instructions: &[&str],
) -> Result<String, Error> {
    let (tar, _) = sample_app_tar().await?;
    let mut changes = sample_app_changes("test");
    changes.extend(instructions.iter().map(|line| (*line).to_owned()));
    import(docker, repository, tag, tar, &changes).await
}

fn sample_app_changes(version: &str) -> Vec<String> {
    vec![
        r#"ENTRYPOINT ["/sample-app"]"#.to_owned(),
        "EXPOSE 8080".to_owned(),
        format!("LABEL {LABEL}={version}"),
    ]
}

/// The tar of the sample app's image, and its hash.
async fn sample_app_tar() -> Result<(Vec<u8>, String), Error> {
    tokio::task::spawn_blocking(|| sample_app_and(0))
        .await
        .unwrap_or_else(|e| {
            Err(Error::Program {
                program: "rustc".to_owned(),
                stderr: e.to_string(),
            })
        })
}

/// The same with a file of so many random bytes, if any.
fn sample_app_and(padding: usize) -> Result<(Vec<u8>, String), Error> {
    use std::io::Read as _;
    let program = sample_app_program()?;
    let failed = |error| Error::File {
        path: "sample-app.tar".into(),
        error,
    };
    let mut builder = tar::Builder::new(Vec::new());
    let mut append = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content)
    };
    append("sample-app", &program).map_err(failed)?;
    if padding > 0 {
        let mut random = vec![0; padding];
        std::fs::File::open("/dev/urandom")
            .and_then(|mut source| source.read_exact(&mut random))
            .and_then(|()| append("padding", &random))
            .map_err(failed)?;
    }
    let tar = builder.into_inner().map_err(failed)?;
    let hash = hash(&tar);
    Ok((tar, hash))
}

/// Compiles the sample app statically, so that it runs on an empty file system; kept under `target/`
/// by the hash of its source.
fn sample_app_program() -> Result<Vec<u8>, Error> {
    let source = paths::source_dir().join("src/bin/sample_app.rs");
    let mut sources = read(&source)?;
    for module in modules(&source.with_extension(""))? {
        sources.extend(read(&module)?);
    }
    let hash = hash(&sources);
    let dir = paths::target_dir()?.join("sample");
    let program = dir.join(format!("sample-app-{hash}"));
    if !program.is_file() {
        create_dir(&dir)?;
        // Renamed when whole, for other processes and threads may be at the same.
        static PARTIAL: AtomicUsize = AtomicUsize::new(0);
        let count = PARTIAL.fetch_add(1, Ordering::Relaxed);
        let partial = dir.join(format!("partial-{}-{count}", std::process::id()));
        let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
        run(Command::new(rustc)
            .args([
                "--edition",
                "2024",
                "-C",
                "opt-level=2",
                "-C",
                "panic=abort",
            ])
            .args([
                "-C",
                "strip=symbols",
                "-C",
                "target-feature=+crt-static",
                "-o",
            ])
            .arg(&partial)
            .arg(&source))?;
        std::fs::rename(&partial, &program).map_err(|error| Error::File {
            path: program.clone(),
            error,
        })?;
    }
    read(&program)
}

/// The files of a folder, in the order of their names.
fn modules(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let files = std::fs::read_dir(folder).and_then(|found| {
        found
            .map(|one| Ok(one?.path()))
            .collect::<Result<Vec<_>, _>>()
    });
    let mut files = files.map_err(|error| Error::File {
        path: folder.to_owned(),
        error,
    })?;
    files.sort_unstable();
    Ok(files)
}
