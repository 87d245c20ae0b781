//! Encoding of the disk cache; the parent module documents the layout.

use super::Error;
use crate::feed::decode::{self, SharedSettings};
use crate::feed::staging::candidate;
use crate::route::{Change, Cursor, Digest, LastGood, Scope, Table};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"clessrt\n";
pub(super) const SCHEMA: u32 = 1;

/// A reader or writer that hashes all bytes that pass.
struct Hashing<T> {
    inner: T,
    hash: Sha256,
}

impl<T> Hashing<T> {
    fn new(inner: T) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
        }
    }
}

impl<W: Write> Hashing<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.inner.write_all(bytes)
    }

    fn put_sized(&mut self, bytes: &[u8]) -> io::Result<()> {
        let size = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.put(&size.to_le_bytes())?;
        self.put(bytes)
    }
}

impl<R: Read> Hashing<R> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes).map_err(cut_short)?;
        self.hash.update(bytes);
        Ok(bytes)
    }

    fn take_sized(&mut self) -> Result<Vec<u8>, Error> {
        let size = u64::from(u32::from_le_bytes(self.take()?));
        // Memory grows with the bytes present, not with the size that a damaged file claims.
        let mut bytes = Vec::new();
        let read = self.inner.by_ref().take(size).read_to_end(&mut bytes)?;
        if read as u64 != size {
            return Err(Error::Damaged("it is cut short"));
        }
        self.hash.update(&bytes);
        Ok(bytes)
    }

    fn take_text(&mut self) -> Result<String, Error> {
        String::from_utf8(self.take_sized()?).map_err(|_| Error::Damaged("a text is not UTF-8"))
    }
}

fn cut_short(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::Damaged("it is cut short"),
        _ => Error::Io(error),
    }
}

pub(super) fn write(table: &Table, out: impl Write) -> io::Result<()> {
    let mut out = Hashing::new(out);
    let cursor = table.cursor();
    out.put(MAGIC)?;
    out.put(&SCHEMA.to_le_bytes())?;
    out.put_sized(table.cluster().as_bytes())?;
    out.put_sized(cursor.epoch.as_bytes())?;
    out.put(&cursor.revision.to_le_bytes())?;
    out.put(cursor.digest.as_bytes())?;
    out.put(&(table.len() as u64).to_le_bytes())?;
    for (uid, entry) in table.entries() {
        out.put_sized(uid.as_bytes())?;
        out.put_sized(entry.received())?;
        match entry.last_good().filter(|_| !entry.is_good()) {
            None => out.put(&[0])?,
            Some(good) => {
                out.put(&[1])?;
                out.put_sized(&good.received)?;
            }
        }
    }
    let Hashing { mut inner, hash } = out;
    inner.write_all(&hash.finalize())
}

pub(super) fn read(input: impl Read) -> Result<Table, Error> {
    let mut input = Hashing::new(input);
    if &input.take()? != MAGIC {
        return Err(Error::Damaged("it does not start with the magic bytes"));
    }
    let schema = u32::from_le_bytes(input.take()?);
    if schema != SCHEMA {
        return Err(Error::Schema(schema));
    }
    let cluster = input.take_text()?;
    let epoch = input.take_text()?;
    let revision = i64::from_le_bytes(input.take()?);
    let digest = Digest::from_bytes(input.take()?);
    let count = u64::from_le_bytes(input.take()?);

    let mut settings = SharedSettings::default();
    let (mut upserts, mut seen, mut sum) = (Vec::new(), HashSet::new(), Digest::ZERO);
    for _ in 0..count {
        let uid = input.take_text()?;
        let received = input.take_sized()?;
        let mut upsert = candidate(&uid, &received, Digest::of(&received), &mut settings);
        if input.take::<1>()? != [0] {
            let good = Bytes::from(input.take_sized()?);
            // A value that the writing program version accepted may be invalid in this one.
            upsert.last_good =
                decode::route(&uid, &good, &mut settings)
                    .ok()
                    .map(|route| LastGood {
                        received: good,
                        route: Arc::new(route),
                    });
        }
        sum = sum.plus(upsert.digest);
        if !seen.insert(upsert.service_uid.clone()) {
            return Err(Error::Damaged("a service occurs twice"));
        }
        upserts.push(upsert);
    }
    let Hashing { mut inner, hash } = input;
    let mut checksum = [0; 32];
    inner.read_exact(&mut checksum).map_err(cut_short)?;
    if checksum[..] != hash.finalize()[..] {
        return Err(Error::Damaged("its checksum differs"));
    }
    if inner.read(&mut [0])? != 0 {
        return Err(Error::Damaged("data follows the checksum"));
    }
    if sum != digest || cluster.is_empty() || epoch.is_empty() {
        return Err(Error::Damaged("its routes do not match its cursor"));
    }
    Ok(Table::default().apply(Change {
        cluster: cluster.into(),
        cursor: Cursor {
            epoch,
            revision,
            digest,
        },
        scope: Scope::Snapshot,
        upserts,
        removed: Vec::new(),
    }))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::feed::testing;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn put(table: &Table, uid: &str, received: &[u8]) -> Table {
        let digest = Digest::of(received);
        let before = table
            .entry(uid)
            .map_or(Digest::ZERO, |entry| entry.digest());
        let cursor = table.cursor();
        table.apply(Change {
            cluster: "c".into(),
            cursor: Cursor {
                epoch: "e".into(),
                revision: cursor.revision + 1,
                digest: cursor.digest.minus(before).plus(digest),
            },
            scope: Scope::Delta,
            upserts: vec![candidate(
                uid,
                received,
                digest,
                &mut SharedSettings::default(),
            )],
            removed: Vec::new(),
        })
    }

    /// Two good routes, one later replaced by a bad value, and one that was never good.
    pub(in crate::feed::cache) fn sample() -> Table {
        let mut table = Table::default();
        for uid in ["a", "b"] {
            let host = format!("{uid}.test");
            table = put(&table, uid, &testing::bytes(&testing::route(uid, &[&host])));
        }
        let table = put(&table, "b", b"\xff");
        put(&table, "z", b"\xfe")
    }

    fn written(table: &Table) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(table, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let (table, bytes) = (sample(), written(&sample()));
        let again = read(&bytes[..]).unwrap();
        assert_eq!(again.cursor(), table.cursor());
        assert_eq!(again.cluster(), table.cluster());
        let received = |table: &Table| -> BTreeMap<_, _> {
            table
                .entries()
                .map(|(uid, entry)| (uid.clone(), entry.received().clone()))
                .collect()
        };
        assert_eq!(received(&again), received(&table));
        // The last good value still serves, and both bad routes are still quarantined.
        assert!(again.lookup("a.test").is_some() && again.lookup("b.test").is_some());
        assert_eq!(again.quarantined().len(), 2);
    }

    #[test]
    fn another_schema_is_reported() {
        let mut bytes = written(&sample());
        bytes[8] = 9;
        assert!(matches!(read(&bytes[..]), Err(Error::Schema(9))));
    }

    proptest! {
        #[test]
        fn any_changed_byte_is_found(
            at in any::<proptest::sample::Index>(),
            flip in 1u8..,
        ) {
            let mut bytes = written(&sample());
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(read(&bytes[..]).is_err());
        }

        #[test]
        fn any_truncation_is_found(at in any::<proptest::sample::Index>()) {
            let bytes = written(&sample());
            prop_assert!(read(&bytes[..at.index(bytes.len())]).is_err());
        }

        #[test]
        fn random_bytes_never_panic(tail: Vec<u8>, headed: bool) {
            let mut bytes = if headed { written(&sample())[..12].to_vec() } else { Vec::new() };
            bytes.extend(tail);
            prop_assert!(read(&bytes[..]).is_err());
        }
    }
}
