//! A root file system that holds one program of this workspace and the libraries it is linked with,
//! taken from this machine: what needs more than the standard library is not built twice.

use std::path::Path;
use std::process::Command;

use super::{Error, read, run};
use crate::paths;

/// The tar: the program at the root, the libraries where the dynamic linker looks for them.
pub(super) fn tar(name: &str) -> Result<Vec<u8>, Error> {
    let program = paths::program(name)?;
    let listing = run(Command::new("ldd").arg(&program))?;
    let mut builder = tar::Builder::new(Vec::new());
    append(&mut builder, name, &program)?;
    for library in libraries(&String::from_utf8_lossy(&listing)) {
        let inside = library.trim_start_matches('/');
        append(&mut builder, inside, Path::new(library))?;
    }
    builder
        .into_inner()
        .map_err(|error| file_error(&program, error))
}

/// The paths in what `ldd` prints: `NAME => PATH (ADDRESS)`, or `PATH (ADDRESS)` for the linker.
fn libraries(listing: &str) -> impl Iterator<Item = &str> {
    listing.lines().filter_map(|line| {
        let line = line.split_once("=>").map_or(line, |(_, path)| path);
        let path = line.split_whitespace().next()?;
        path.starts_with('/').then_some(path)
    })
}

fn append(builder: &mut tar::Builder<Vec<u8>>, inside: &str, path: &Path) -> Result<(), Error> {
    let content = read(path)?;
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(content.len() as u64);
    builder
        .append_data(&mut header, inside, content.as_slice())
        .map_err(|error| file_error(path, error))
}

fn file_error(path: &Path, error: std::io::Error) -> Error {
    Error::File {
        path: path.to_owned(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_off_ldd() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffd)\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f00)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f01)\n";
        let found: Vec<_> = libraries(listing).collect();
        assert_eq!(
            found,
            [
                "/lib/x86_64-linux-gnu/libc.so.6",
                "/lib64/ld-linux-x86-64.so.2"
            ]
        );
    }
}
