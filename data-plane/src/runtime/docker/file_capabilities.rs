//! Capabilities of files in a container, as its file system stores them.
//!
//! The engine sends a file as a tar, with the extended attribute `security.capability` in a header.
//! Only the beginning of the tar is read.

use bollard::query_parameters::DownloadFromContainerOptionsBuilder;
use futures_util::StreamExt as _;

use super::error::{READ_TIMEOUT, classify};
use crate::runtime::Error;

/// More than the headers of one entry.
const HEAD_MAX: usize = 16 * 1024;
/// Links from the path to the file.
const LINKS_MAX: usize = 4;
/// The name of the attribute in a header.
const ATTRIBUTE: &str = "SCHILY.xattr.security.capability";

/// The permitted capabilities of the file at `path`; 0 without any.
pub(super) async fn read(client: &bollard::Docker, name: &str, path: &str) -> Result<u64, Error> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let head = tokio::time::timeout(READ_TIMEOUT, head(client, name, &path)).await;
        let head = head.map_err(|_| Error::NoResponse("no response in time".to_owned()))??;
        match entry(&head) {
            Entry::File(permitted) => return Ok(permitted),
            Entry::Link(to) if to.starts_with('/') => path = to,
            Entry::Link(to) => {
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                path = format!("{folder}/{to}");
            }
        }
    }
    Ok(0)
}

/// The beginning of the tar of a file.
async fn head(client: &bollard::Docker, name: &str, path: &str) -> Result<Vec<u8>, Error> {
    let options = DownloadFromContainerOptionsBuilder::default()
        .path(path)
        .build();
    let mut tar = client.download_from_container(name, Some(options));
    let mut head = Vec::new();
    while head.len() < HEAD_MAX
        && let Some(chunk) = tar.next().await
    {
        let chunk = chunk.map_err(classify)?;
        let room = HEAD_MAX - head.len();
        head.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }
    Ok(head)
}

#[derive(Debug, PartialEq, Eq)]
enum Entry {
    /// Its permitted capabilities.
    File(u64),
    /// The target of a symbolic link.
    Link(String),
}

/// The first entry of a tar, of which only the beginning is given.
fn entry(head: &[u8]) -> Entry {
    let mut archive = tar::Archive::new(head);
    let first = archive.entries().ok().and_then(|mut all| all.next()?.ok());
    let Some(mut entry) = first else {
        return Entry::File(0);
    };
    if entry.header().entry_type().is_symlink()
        && let Some(to) = entry.link_name_bytes()
    {
        return Entry::Link(String::from_utf8_lossy(&to).into_owned());
    }
    let extensions = entry.pax_extensions().ok().flatten();
    let mut found = extensions.into_iter().flatten().filter_map(Result::ok);
    let found = found.find(|one| one.key() == Ok(ATTRIBUTE));
    Entry::File(found.map_or(0, |one| permitted(one.value_bytes())))
}

/// The permitted set of `struct vfs_cap_data` (linux/capability.h), revisions 2 and 3: after the
/// magic number, two pairs of permitted and inheritable halves, in little endian.
fn permitted(data: &[u8]) -> u64 {
    let word = |at: usize| {
        let bytes = data.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_le_bytes)
    };
    u64::from(word(4)) | u64::from(word(12)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `setcap cap_net_raw,cap_checkpoint_restore=ep`, revision 2.
    const ATTRIBUTE_OF_PING: [u8; 20] = [
        1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0,
    ];

    #[test]
    fn the_attribute_of_a_file_is_read_from_the_beginning_of_a_tar() {
        let mut builder = tar::Builder::new(Vec::new());
        builder
            .append_pax_extensions([(ATTRIBUTE, &ATTRIBUTE_OF_PING[..])])
            .unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(1 << 30);
        header.set_path("ping").unwrap();
        header.set_cksum();
        let mut tar = builder.into_inner().unwrap();
        tar.truncate(1024);
        tar.extend_from_slice(header.as_bytes());
        assert_eq!(entry(&tar), Entry::File(1 << 13 | 1 << 40));
    }

    #[test]
    fn a_link_is_followed_and_garbage_has_no_capabilities() {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_path("ping").unwrap();
        header.set_link_name("../bin/ping").unwrap();
        header.set_size(0);
        header.set_cksum();
        assert_eq!(
            entry(header.as_bytes()),
            Entry::Link("../bin/ping".to_owned())
        );
        for garbage in [&b""[..], &[0xff; 700], &[0; 1024]] {
            assert_eq!(entry(garbage), Entry::File(0));
        }
        assert_eq!(permitted(&[1, 0, 0, 2, 9]), 0);
    }
}
