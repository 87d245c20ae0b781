//! The public key of a certificate signing request (PKCS #10, RFC 2986), whose signature proves that
//! its sender has the private key. Names, extensions and attributes are ignored: the control plane
//! decides what it certifies.
//!
//! Law: a key is returned only in its one encoding, and only if the request is signed by it.

use crate::domain::Reason;
use sha2::{Digest as _, Sha256};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

/// Bytes of the longest request that is read; a plain one takes about 250.
const CSR_MAX: usize = 4096;

/// The beginning of an uncompressed ECDSA key on P-256 as SubjectPublicKeyInfo (RFC 5480, section
/// 2): a sequence of 89 bytes, id-ecPublicKey, prime256v1, and a bit string of 65 bytes.
const P256_PREFIX: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
/// Bytes of such a key.
const P256_BYTES: usize = P256_PREFIX.len() + 64;

/// A public key of which its sender has proved possession.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProvedKey {
    /// SubjectPublicKeyInfo in DER.
    pub(crate) spki: Vec<u8>,
}

impl ProvedKey {
    /// Reads and verifies a request in DER.
    pub(crate) fn read(csr: &[u8]) -> Result<Self, Reason> {
        if csr.is_empty() {
            return Err(Reason::new("is missing: give a PKCS #10 request in DER"));
        }
        if csr.len() > CSR_MAX {
            return Err(Reason::new(format!(
                "has {} bytes, at most {CSR_MAX} are read: leave out names and extensions",
                csr.len()
            )));
        }
        let (rest, parsed) = X509CertificationRequest::from_der(csr)
            .map_err(|_| Reason::new("is no PKCS #10 request in DER: send DER, not PEM"))?;
        if !rest.is_empty() {
            return Err(Reason::new("has bytes after its end: give one request"));
        }
        let spki = parsed.certification_request_info.subject_pki.raw;
        if spki.len() != P256_BYTES || !spki.starts_with(&P256_PREFIX) {
            return Err(Reason::new(
                "has another kind of key: make an ECDSA key on P-256, not compressed",
            ));
        }
        parsed.verify_signature().map_err(|_| {
            Reason::new("is not signed by its own key: sign it with ECDSA and SHA-256")
        })?;
        Ok(Self {
            spki: spki.to_vec(),
        })
    }

    /// SHA-256 of the key, by which a node is known.
    pub(crate) fn hash(&self) -> [u8; 32] {
        Sha256::digest(&self.spki).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, PublicKeyData as _, SignatureAlgorithm};

    fn csr(algorithm: &'static SignatureAlgorithm, names: &[&str]) -> (Vec<u8>, KeyPair) {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let params = CertificateParams::new(names).expect("names");
        let csr = params.serialize_request(&key).expect("a request");
        (csr.der().to_vec(), key)
    }

    #[test]
    fn only_the_key_counts() {
        for names in [&[][..], &["plane.cless.internal", "*.example.org"]] {
            let (der, key) = csr(&rcgen::PKCS_ECDSA_P256_SHA256, names);
            let read = ProvedKey::read(&der).expect("valid");
            assert_eq!(read.spki, key.subject_public_key_info());
        }
    }

    #[test]
    fn malformed_requests_name_their_fault() {
        let (good, _) = csr(&rcgen::PKCS_ECDSA_P256_SHA256, &[]);
        let (other, _) = csr(&rcgen::PKCS_ECDSA_P384_SHA384, &[]);
        let (edwards, _) = csr(&rcgen::PKCS_ED25519, &[]);
        let mut forged = good.clone();
        *forged.last_mut().expect("bytes") ^= 1;
        // The key of one request under the signature of another.
        let (second, _) = csr(&rcgen::PKCS_ECDSA_P256_SHA256, &[]);
        let mut swapped = second.clone();
        if let (Some(from), Some(to)) = (find(&good), find(&second)) {
            swapped[to..to + P256_BYTES].copy_from_slice(&good[from..from + P256_BYTES]);
        }
        let cases = [
            (Vec::new(), "missing"),
            (vec![0x30; CSR_MAX + 1], "at most"),
            (
                b"-----BEGIN CERTIFICATE REQUEST-----".to_vec(),
                "no PKCS #10",
            ),
            (good[..good.len() - 1].to_vec(), "no PKCS #10"),
            ([&good[..], b"\0"].concat(), "after its end"),
            (other, "kind of key"),
            (edwards, "kind of key"),
            (forged, "signed"),
            (swapped, "signed"),
        ];
        for (der, word) in cases {
            let reason = ProvedKey::read(&der).expect_err(word).to_string();
            assert!(reason.contains(word) && reason.contains(':'), "{reason}");
        }
    }

    fn find(csr: &[u8]) -> Option<usize> {
        csr.windows(P256_PREFIX.len())
            .position(|at| at == P256_PREFIX)
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(der in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(ProvedKey::read(&der).is_err());
        }

        #[test]
        fn a_changed_request_is_refused_or_has_the_same_key(at: prop::sample::Index, value: u8) {
            let (good, key) = csr(&rcgen::PKCS_ECDSA_P256_SHA256, &["a"]);
            let mut changed = good.clone();
            changed[at.index(good.len())] = value;
            if let Ok(read) = ProvedKey::read(&changed) {
                prop_assert_eq!(read.spki, key.subject_public_key_info());
            }
        }
    }
}
