//! Fuzzing of the disk cache, behind its checksum.

use super::codec::{read, tests::sample, write};
use crate::fuzz::Target;
use crate::route::Table;
use sha2::{Digest as _, Sha256};

/// Size of the checksum at the end of the file.
const CHECKSUM: usize = 32;

#[test]
fn fuzz_cache() {
    let bytes = |table: &Table| {
        let mut bytes = Vec::new();
        write(table, &mut bytes).unwrap();
        bytes.truncate(bytes.len() - CHECKSUM);
        bytes
    };
    let target = Target {
        corpus: vec![bytes(&sample()), bytes(&Table::default())],
        words: &[
            b"clessrt\n",
            b"\xff\xff\xff\xff",
            b"\x00\x00\x00\x80",
            b"\x00",
            b"\x01",
        ],
    };
    target.hold(|input| {
        // Once unchanged, which the checksum rejects, and once with a corrected checksum: damage
        // that the checksum does not detect must be harmless too.
        let _ = read(input);
        let whole = [input, &Sha256::digest(input)].concat();
        let Ok(table) = read(&whole[..]) else { return };
        let again = read(&[&bytes(&table)[..], &Sha256::digest(bytes(&table))].concat()[..]);
        let again = again.unwrap();
        assert_eq!((again.cursor(), again.len()), (table.cursor(), table.len()));
        assert_eq!(again.cluster(), table.cluster());
        for (uid, entry) in table.entries() {
            let same = again.entry(uid).unwrap();
            assert_eq!(same.received(), entry.received());
            assert_eq!(same.is_good(), entry.is_good());
        }
    });
}
