//! Debian's nginx, with a configuration that logs to stderr and stays in the foreground.

use std::path::PathBuf;

use super::{Error, create_dir, debian};

/// nginx and its shared libraries.
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

pub(super) fn root_file_system() -> Result<PathBuf, Error> {
    debian::root_file_system("nginx", &PACKAGES, |root| {
        for folder in ["run", "tmp", "var/log/nginx", "var/lib/nginx"] {
            create_dir(&root.join(folder))?;
        }
        debian::write(root, "etc/nginx/cless.conf", CONFIG)?;
        let users = "root:x:0:0::/:/\nnobody:x:65534:65534::/:/\n";
        debian::write(root, "etc/passwd", users)?;
        debian::write(root, "etc/group", "root:x:0:\nnogroup:x:65534:\n")
    })
}
