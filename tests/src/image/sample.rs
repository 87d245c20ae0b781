//! The image of the sample app: one program, compiled with a single call of `rustc`, on an empty
//! file system.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use bollard::Docker;

use super::{Error, LABEL, blocking, create_dir, file_error, hash, import, import_tar, read, run};
use crate::paths;

/// The sample app, which listens on `PORT` or 8080 and exposes 8080.
pub async fn sample_app(docker: &Docker) -> Result<String, Error> {
    let tar = blocking(|| tar(0)).await?;
    let (hash, instructions) = (hash(&tar), instructions("test"));
    import(docker, "cless-test/sample", &hash, tar, &instructions).await
}

/// The sample app as `REPOSITORY:VERSION` and labelled with the version: an image of its own, like
/// a real release.
pub async fn sample_app_release(
    docker: &Docker,
    repository: &str,
    version: &str,
) -> Result<String, Error> {
    let tar = blocking(|| tar(0)).await?;
    import(docker, repository, version, tar, &instructions(version)).await
}

/// The sample app with a default greeting, in a new layer with `padding` random bytes: a pull from
/// a registry must transfer it.
pub async fn sample_app_unique(
    docker: &Docker,
    repository: &str,
    tag: &str,
    greeting: &str,
    padding: usize,
) -> Result<String, Error> {
    // The minimum of random bytes makes each image unique.
    let tar = blocking(move || tar(padding + 16)).await?;
    let mut instructions = instructions("unique");
    instructions.push(format!("ENV GREETING={greeting}"));
    // An existing tag moves to the new image, as with a repeated push.
    import_tar(docker, repository, tag, tar, &instructions).await
}

/// The sample app as `REPOSITORY:TAG` with additional instructions; [`remove`](super::remove)
/// removes it.
pub async fn sample_app_with(
    docker: &Docker,
    repository: &str,
    tag: &str,
    additional: &[&str],
) -> Result<String, Error> {
    let tar = blocking(|| tar(0)).await?;
    let mut instructions = instructions("test");
    instructions.extend(additional.iter().map(|line| (*line).to_owned()));
    import(docker, repository, tag, tar, &instructions).await
}

fn instructions(version: &str) -> Vec<String> {
    vec![
        r#"ENTRYPOINT ["/sample-app"]"#.to_owned(),
        "EXPOSE 8080".to_owned(),
        format!("LABEL {LABEL}={version}"),
    ]
}

/// Builds the tar of the sample app, with a file of `padding` random bytes unless that is 0.
fn tar(padding: usize) -> Result<Vec<u8>, Error> {
    let program = program()?;
    let failed = file_error(Path::new("sample-app.tar"));
    let mut builder = tar::Builder::new(Vec::new());
    let mut append = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content)
    };
    append("sample-app", &program).map_err(&failed)?;
    if padding > 0 {
        let mut random = vec![0; padding];
        std::fs::File::open("/dev/urandom")
            .and_then(|mut source| source.read_exact(&mut random))
            .and_then(|()| append("padding", &random))
            .map_err(&failed)?;
    }
    builder.into_inner().map_err(failed)
}

/// Compiles the sample app statically, so that it runs on an empty file system. The program is
/// cached under `target/` by the hash of its source.
fn program() -> Result<Vec<u8>, Error> {
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
        // Other processes and threads may compile it too, so a complete file is renamed into place.
        static PARTIAL: AtomicUsize = AtomicUsize::new(0);
        let count = PARTIAL.fetch_add(1, Ordering::Relaxed);
        let partial = dir.join(format!("partial-{}-{count}", std::process::id()));
        let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
        run(Command::new(rustc)
            .args(["--edition", "2024"])
            .args(["-C", "opt-level=2", "-C", "panic=abort"])
            .args(["-C", "strip=symbols", "-C", "target-feature=+crt-static"])
            .arg("-o")
            .arg(&partial)
            .arg(&source))?;
        std::fs::rename(&partial, &program).map_err(file_error(&program))?;
    }
    read(&program)
}

fn modules(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let files = std::fs::read_dir(folder).and_then(|found| {
        found
            .map(|one| Ok(one?.path()))
            .collect::<Result<Vec<_>, _>>()
    });
    let mut files = files.map_err(file_error(folder))?;
    files.sort_unstable();
    Ok(files)
}
