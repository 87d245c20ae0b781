//! A real Python web app: Flask behind gunicorn from Debian packages, byte-compiled as by an
//! installation.

use std::path::PathBuf;
use std::process::Command;

use super::{Error, create_dir, debian, run};

/// Python, Flask and gunicorn with their imports and shared libraries.
const PACKAGES: [&str; 28] = [
    "python3.11",
    "python3.11-minimal",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "python3-flask",
    "python3-werkzeug",
    "python3-jinja2",
    "python3-markupsafe",
    "python3-itsdangerous",
    "python3-click",
    "python3-colorama",
    "python3-importlib-metadata",
    "python3-zipp",
    "python3-more-itertools",
    "gunicorn",
    "python3-gunicorn",
    "python3-packaging",
    "python3-pkg-resources",
    "libc6",
    "zlib1g",
    "libexpat1",
    "libssl3",
    "libffi8",
    "libbz2-1.0",
    "liblzma5",
    "libuuid1",
    "libcrypt1",
    "media-types",
];

const APP: &str = "\
from flask import Flask

app = Flask(__name__)


@app.get('/')
def hello():
    return 'hello from flask\\n'
";

/// One worker, as usual for a container with one core.
pub(super) const ENTRYPOINT: &str = r#"ENTRYPOINT ["/usr/bin/python3.11", "-m", "gunicorn.app.wsgiapp", "--chdir", "/app", "--bind", "0.0.0.0:8080", "--workers", "1", "--worker-tmp-dir", "/dev/shm", "app:app"]"#;

pub(super) fn root_file_system() -> Result<PathBuf, Error> {
    debian::root_file_system("python", &PACKAGES, |root| {
        for folder in ["run", "tmp"] {
            create_dir(&root.join(folder))?;
        }
        debian::write(root, "app/app.py", APP)?;
        debian::write(root, "etc/passwd", "root:x:0:0::/:/\n")?;
        debian::write(root, "etc/group", "root:x:0:\n")?;
        // An installation would compile the modules too; otherwise each start compiles them.
        run(Command::new("chroot")
            .arg(root)
            .args(["/usr/bin/python3.11", "-m", "compileall", "-q"])
            .args(["/usr/lib/python3", "/usr/lib/python3.11", "/app"]))
        .map(|_| ())
    })
}
