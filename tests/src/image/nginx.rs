//! A root file system with Debian's nginx: the packages' own files, unpacked without being installed,
//! and a configuration that logs to stderr and stays in the foreground.

use std::path::PathBuf;
use std::process::Command;

use super::{Error, create_dir, run};
use crate::{debian, paths};

/// nginx and what its program is linked with.
const PACKAGES: [&str; 7] = [
    "nginx",
    "nginx-common",
    "libc6",
    "libcrypt1",
    "libpcre2-8-0",
    "libssl3",
    "zlib1g",
];

const CONFIG: &str = "\
daemon off;
worker_processes 1;
error_log stderr;
pid /run/nginx.pid;
events { worker_connections 256; }
http {
    include /etc/nginx/mime.types;
    access_log off;
    server {
        listen 80;
        root /usr/share/nginx/html;
    }
}
";

/// The tar, kept under `target/` once made.
pub(super) fn root_file_system() -> Result<PathBuf, Error> {
    let dir = paths::target_dir()?.join("sample");
    let tar = dir.join("nginx.tar");
    if tar.is_file() {
        return Ok(tar);
    }
    let work = dir.join(format!("nginx-{}", std::process::id()));
    let root = work.join("root");
    debian::unpack(&PACKAGES, &root)?;
    for folder in ["etc/nginx", "run", "tmp", "var/log/nginx", "var/lib/nginx"] {
        create_dir(&root.join(folder))?;
    }
    for (name, content) in [
        ("etc/nginx/cless.conf", CONFIG),
        ("etc/passwd", "root:x:0:0::/:/\nnobody:x:65534:65534::/:/\n"),
        ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ] {
        let path = root.join(name);
        std::fs::write(&path, content).map_err(|error| Error::File { path, error })?;
    }
    let partial = work.join("nginx.tar");
    run(Command::new("tar")
        .arg("-C")
        .arg(&root)
        .arg("-cf")
        .arg(&partial)
        .args(["--numeric-owner", "--owner=0", "--group=0", "."]))?;
    std::fs::rename(&partial, &tar).map_err(|error| Error::File {
        path: tar.clone(),
        error,
    })?;
    // What is left is scratch; a failure to remove it changes nothing.
    let _ = std::fs::remove_dir_all(&work);
    Ok(tar)
}
