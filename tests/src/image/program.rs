//! A root file system with one program of this workspace and its shared libraries from this
//! machine, so that programs with dependencies are not built twice.

use std::path::Path;
use std::process::Command;

use super::{Error, file_error, read, run};
use crate::paths;

/// Builds the tar: the program at the root, the libraries at the paths of the dynamic linker.
pub(super) fn tar(name: &str) -> Result<Vec<u8>, Error> {
    let program = paths::program(name)?;
    let listing = run(Command::new("ldd").arg(&program))?;
    let mut builder = tar::Builder::new(Vec::new());
    append(&mut builder, name, &program)?;
    for library in libraries(&String::from_utf8_lossy(&listing)) {
        let inside = library.trim_start_matches('/');
        append(&mut builder, inside, Path::new(library))?;
    }
    builder.into_inner().map_err(file_error(&program))
}

/// The paths in the output of `ldd`: `NAME => PATH (ADDRESS)`, or `PATH (ADDRESS)` for the linker.
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
        .map_err(file_error(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_parsed_from_ldd() {
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
