//! Time-bounded fuzzing on the stable toolchain, as tests.
//!
//! A target is a property of byte strings, with a corpus of valid or nearly valid inputs and a
//! dictionary of tokens for the parser. Inputs are corpus entries with random mutations: bits,
//! bytes, ranges, tokens, and splices of two entries. Unlike instrumented fuzzers, which need a
//! nightly toolchain, it has no coverage guidance. The corpora and dictionaries make up for that in
//! part.
//!
//! | variable | |
//! |---|---|
//! | `CLESS_FUZZ_SECONDS` | duration of each target: 2 by default |
//! | `CLESS_FUZZ_SEED` | seed, random by default; a failure prints it |
//! | `CLESS_FUZZ_INPUT` | a single hexadecimal input to run, as printed by a failure |

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

/// Longer inputs cost time and find nothing more.
const MAX_LENGTH: usize = 8 * 1024;
const MAX_MUTATIONS: u32 = 6;
/// Bytes at which parsers branch.
const EDGES: [u8; 16] = [
    0, 1, b'\t', b'\n', b'\r', b' ', b'%', b',', b'.', b'/', b':', b';', b'@', 0x7f, 0x80, 0xff,
];

pub(crate) struct Target {
    pub(crate) corpus: Vec<Vec<u8>>,
    pub(crate) words: &'static [&'static [u8]],
}

impl Target {
    /// Checks the property on generated inputs until the time is up.
    ///
    /// # Panics
    /// If the property panics for an input; prints the input and the seed.
    pub(crate) fn hold(&self, property: impl Fn(&[u8])) {
        let variable = |name: &str| std::env::var(name).ok();
        if let Some(input) = variable("CLESS_FUZZ_INPUT") {
            property(&unhex(&input));
            return;
        }
        let seconds = variable("CLESS_FUZZ_SECONDS").and_then(|text| text.parse().ok());
        let seed = variable("CLESS_FUZZ_SEED").and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or_else(rand::random::<u64>);
        let until = Instant::now() + Duration::from_secs(seconds.unwrap_or(2));
        for entry in &self.corpus {
            self.try_one(entry, seed, &property);
        }
        let mut rng = SmallRng::seed_from_u64(seed);
        while Instant::now() < until {
            for _ in 0..64 {
                let input = self.input(&mut rng);
                self.try_one(&input, seed, &property);
            }
        }
    }

    fn try_one(&self, input: &[u8], seed: u64, property: &impl Fn(&[u8])) {
        if catch_unwind(AssertUnwindSafe(|| property(input))).is_err() {
            let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
            panic!(
                "broken by {:?} (seed {seed}); reproduce with CLESS_FUZZ_INPUT={hex}",
                input.escape_ascii().to_string()
            );
        }
    }

    fn input(&self, rng: &mut SmallRng) -> Vec<u8> {
        let mut input = self.entry(rng).to_vec();
        for _ in 0..rng.random_range(1..=MAX_MUTATIONS) {
            self.mutate(&mut input, rng);
        }
        input.truncate(MAX_LENGTH);
        input
    }

    fn entry(&self, rng: &mut SmallRng) -> &[u8] {
        match self.corpus.len() {
            0 => &[],
            length => &self.corpus[rng.random_range(0..length)],
        }
    }

    fn mutate(&self, input: &mut Vec<u8>, rng: &mut SmallRng) {
        let at = rng.random_range(0..=input.len());
        let range = at..rng.random_range(at..=input.len().min(at + 64));
        match rng.random_range(0..9) {
            0 => drop(input.splice(range, [])),
            1 => {
                let copied = input[range].to_vec();
                input.splice(at..at, copied);
            }
            2 => drop(input.splice(at..at, [rng.random::<u8>()])),
            3 => drop(input.splice(at..at, [EDGES[rng.random_range(0..EDGES.len())]])),
            4 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8),
            5 if at < input.len() => input[at] = EDGES[rng.random_range(0..EDGES.len())],
            6 if !self.words.is_empty() => {
                let word = self.words[rng.random_range(0..self.words.len())];
                input.splice(range.start..range.start, word.iter().copied());
            }
            7 => {
                let other = self.entry(rng);
                let from = rng.random_range(0..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => {
                // Repeated often enough to reach limits.
                let copied = input[range].repeat(rng.random_range(2..40));
                input.splice(at..at, copied);
            }
        }
        input.truncate(MAX_LENGTH);
    }
}

/// The lines of a corpus file, with the escapes `\r`, `\n`, `\t`, `\\` and `\xHH`; a line that
/// starts with `#` is a comment.
pub(crate) fn lines(file: &str) -> Vec<Vec<u8>> {
    let entries = file.lines().filter(|line| !line.starts_with('#'));
    entries.map(unescaped).collect()
}

fn unescaped(line: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), line.as_bytes());
    while let [first, tail @ ..] = rest {
        let (byte, used) = match (first, tail) {
            (b'\\', [b'r', ..]) => (b'\r', 2),
            (b'\\', [b'n', ..]) => (b'\n', 2),
            (b'\\', [b't', ..]) => (b'\t', 2),
            (b'\\', [b'\\', ..]) => (b'\\', 2),
            (b'\\', [b'x', high, low, ..]) => (nibble(*high) << 4 | nibble(*low), 4),
            (byte, _) => (*byte, 1),
        };
        out.push(byte);
        rest = &rest[used..];
    }
    out
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks_exact(2);
    pairs
        .map(|pair| nibble(pair[0]) << 4 | nibble(pair[1]))
        .collect()
}

fn nibble(digit: u8) -> u8 {
    let value = (digit as char).to_digit(16);
    u8::try_from(value.unwrap_or(0)).unwrap_or(0)
}

#[test]
fn a_broken_property_prints_an_input_that_breaks_it() {
    let target = Target {
        corpus: lines("ab\\r\\x00\n# no entry\n"),
        words: &[b"word"],
    };
    assert_eq!(target.corpus, [b"ab\r\0".to_vec()]);
    let broken = catch_unwind(|| target.hold(|input| assert!(!input.contains(&b'w'))));
    let told = broken.unwrap_err().downcast::<String>().unwrap();
    let (_, input) = told.split_once("CLESS_FUZZ_INPUT=").unwrap();
    assert!(unhex(input).contains(&b'w'), "{told}");
}
