//! Files and answers of any bytes: no panic, and nothing invalid is taken.

use super::answer::Credential;
use super::key::NodeKey;
use super::schedule::Life;
use super::store;
use proptest::prelude::*;
use std::sync::LazyLock;
use std::time::SystemTime;

static KEY: LazyLock<NodeKey> = LazyLock::new(|| NodeKey::generate().expect("a key"));
static STORED: LazyLock<String> = LazyLock::new(|| store::encode(&store::tests::credential(&KEY)));

proptest! {
    #[test]
    fn a_changed_certificate_file_is_the_same_or_refused(
        at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()
    ) {
        let mut bytes = STORED.clone().into_bytes();
        bytes[at.index(STORED.len())] = byte;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        for text in [&*text, &String::from_utf8_lossy(&bytes[..cut.index(STORED.len())])] {
            if let Ok(read) = store::decode(text, &KEY) {
                prop_assert_eq!(store::decode(&store::encode(&read), &KEY), Ok(read));
            }
        }
    }

    #[test]
    fn any_text_is_refused(text in "\\PC{0,200}") {
        prop_assert!(store::decode(&text, &KEY).is_err());
        prop_assert!(NodeKey::from_pem(&text).is_err());
    }

    #[test]
    fn an_answer_of_any_bytes_is_refused(
        cluster in "\\PC{0,80}",
        certificate in prop::collection::vec(any::<u8>(), 0..200),
        authorities in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..10),
    ) {
        let now = SystemTime::UNIX_EPOCH;
        let life = Life { received: now, expires: now };
        let answer = Credential::new(&KEY, cluster, certificate, authorities, life);
        prop_assert!(answer.is_err());
    }
}
