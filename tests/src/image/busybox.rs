//! Debian's BusyBox and s6, for images as people have them: inits, HEALTHCHECKs, several ports, and
//! a program with a file capability. `/cgi-bin/run?COMMAND` runs a shell command in the container.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Error, create_dir, debian, file_error, run};

const PACKAGES: [&str; 6] = [
    "busybox-static",
    "s6",
    "libs6-2.11",
    "libskarnet2.13",
    "libexecline2.9",
    "libc6",
];

/// Serves `/www` at `PORT`.
const APP: &str = "#!/bin/sh\nexec /bin/httpd -f -p \"${PORT:-8080}\" -h /www\n";
const RUN: &str = "#!/bin/sh
printf 'Content-type: text/plain\\r\\n\\r\\n'
eval \"$(/bin/httpd -d \"$QUERY_STRING\")\" 2>&1
echo \"exit $?\"
";
/// Refuses other hosts than `ALLOWED_HOST`, as Django and Rails do.
const HOST: &str = "#!/bin/sh
[ \"$HTTP_HOST\" = \"$ALLOWED_HOST\" ] || printf 'Status: 400 Bad Request\\r\\n'
printf 'Content-type: text/plain\\r\\n\\r\\n'
echo \"$HTTP_HOST\"
";
/// The check of s6-overlay, then the supervisor.
const S6: &str = "#!/bin/sh
[ $$ = 1 ] || { echo 'init: fatal: can only run as pid 1'; exit 100; }
exec /usr/bin/s6-svscan /etc/services
";

pub(super) fn root_file_system() -> Result<PathBuf, Error> {
    debian::root_file_system("busybox", &PACKAGES, |root| {
        for folder in ["proc", "tmp", "root"] {
            create_dir(&root.join(folder))?;
        }
        run(Command::new("chroot")
            .arg(root)
            .args(["/bin/busybox", "--install", "-s", "/bin"]))?;
        debian::write(
            root,
            "etc/passwd",
            "root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n",
        )?;
        debian::write(root, "etc/group", "root:x:0:\napp:x:1000:\n")?;
        debian::write(root, "etc/inittab", "::respawn:/app\n")?;
        debian::write(root, "www/index.html", "busybox\n")?;
        for (name, script) in [
            ("app", APP),
            ("init", S6),
            ("etc/services/web/run", APP),
            ("www/cgi-bin/run", RUN),
            ("www/cgi-bin/host", HOST),
        ] {
            debian::write(root, name, script)?;
            executable(&root.join(name))?;
        }
        // The same server with a capability that containers lack by default.
        let capable = root.join("usr/local/bin/httpd");
        create_dir(&root.join("usr/local/bin"))?;
        std::fs::copy(root.join("bin/busybox"), &capable).map_err(file_error(&capable))?;
        run(Command::new("setcap").arg("cap_net_raw=ep").arg(&capable)).map(|_| ())
    })
}

fn executable(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(path, mode).map_err(file_error(path))
}
