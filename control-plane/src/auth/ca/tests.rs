//! Certificates of an authority, by time, authority and purpose.

use super::*;
use proptest::prelude::*;

const CLUSTER: &str = "0192f0c1-cluster";

fn at(days: u32) -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000).plus(DAY * days)
}

fn authority(cluster: &str) -> Ca {
    let new = NewAuthority::generate(cluster, None, at(0)).unwrap();
    Ca::new(cluster, &[new.pem], &new.key).unwrap()
}

fn node_key() -> (KeyPair, Vec<u8>) {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let spki = key.subject_public_key_info();
    (key, spki)
}

fn issue(ca: &Ca, id: &str, name: &str) -> CertificateDer<'static> {
    CertificateDer::from(ca.issue_node(&node_key().1, id, name, at(1)).unwrap())
}

#[test]
fn the_certificate_of_a_node_is_its_own_until_it_expires() {
    let ca = authority(CLUSTER);
    let der = issue(&ca, "id-1", "node-1");
    let identity = ca.verify_node(&der, at(1)).unwrap();
    assert_eq!((&*identity.id, &*identity.name), ("id-1", "node-1"));
    assert_eq!(identity.cluster, CLUSTER);
    assert!(ca.verify_node(&der, at(1).minus(HOUR)).is_ok());
    assert!(ca.verify_node(&der, Ca::node_expiry(at(1))).is_ok());
    let early = ca.verify_node(&der, at(0)).unwrap_err().to_string();
    assert!(early.contains("valid from 2027-01-16T07:00:00Z"), "{early}");
    let late = ca.verify_node(&der, at(3)).unwrap_err().to_string();
    assert!(late.contains("expired at 2027-01-17T08:00:00Z"), "{late}");
    assert!(late.contains("says 2027-01-18T08:00:00Z"), "{late}");
}

#[test]
fn certificates_of_other_authorities_and_other_purposes_are_refused() {
    let ca = authority(CLUSTER);
    let other = authority("another");
    let namesake = authority(CLUSTER);
    for foreign in [&other, &namesake] {
        let der = issue(foreign, "id-1", "node-1");
        let refused = ca.verify_node(&der, at(1));
        assert_eq!(refused, Err(NodeCertificateError::OtherAuthority));
    }
    let server = ca.issue_server(&[], at(1)).unwrap();
    let refused = ca.verify_node(&server.cert[0], at(1));
    assert!(matches!(refused, Err(NodeCertificateError::Unusable(_))));
    let refused = ca.verify_node(&ca.current().trusted[0], at(1));
    assert_eq!(refused, Err(NodeCertificateError::OtherAuthority));
    let refused = ca.verify_node(&CertificateDer::from(vec![48, 0]), at(1));
    assert!(matches!(refused, Err(NodeCertificateError::Unusable(_))));
}

#[test]
fn keys_of_other_kinds_get_no_certificate() {
    let ca = authority(CLUSTER);
    let other = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let spki = other.subject_public_key_info();
    assert!(ca.issue_node(&spki, "id", "node", at(1)).is_err());
    assert!(ca.issue_node(b"nonsense", "id", "node", at(1)).is_err());
}

#[test]
fn a_server_has_the_names_of_the_cluster_and_of_its_flags() {
    let ca = authority(CLUSTER);
    let others = ["plane.example.org".to_owned(), "192.0.2.7".to_owned()];
    let server = ca.issue_server(&others, at(1)).unwrap();
    let leaf = webpki::EndEntityCert::try_from(&server.cert[0]).unwrap();
    for name in [
        "plane.0192f0c1-cluster.cless.internal",
        "plane.cless.internal",
        "localhost",
        "127.0.0.1",
        "::1",
        "plane.example.org",
        "192.0.2.7",
    ] {
        let name = rustls::pki_types::ServerName::try_from(name).unwrap();
        leaf.verify_is_valid_for_subject_name(&name).unwrap();
    }
    let other = rustls::pki_types::ServerName::try_from("example.org").unwrap();
    assert!(leaf.verify_is_valid_for_subject_name(&other).is_err());
    assert_eq!(
        Fingerprint::of(server.cert.last().unwrap()),
        ca.fingerprint()
    );
}

#[test]
fn the_pem_file_holds_the_authorities() {
    let ca = authority(CLUSTER);
    let read: Vec<_> = CertificateDer::pem_slice_iter(ca.to_pem().as_bytes())
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(read, ca.current().trusted);
}

#[test]
fn a_successor_is_trusted_by_who_knows_either_authority() {
    let ca = authority(CLUSTER);
    let (old_pin, old_node) = (ca.fingerprint(), issue(&ca, "id-1", "node-1"));
    let old_pem = ca.to_pem();
    let new = NewAuthority::generate(CLUSTER, Some(&ca), at(1)).unwrap();
    let all = [new.pem.clone(), old_pem, new.cross.unwrap()];
    ca.replace(&all, &new.key).unwrap();
    let (new_pin, new_node) = (ca.fingerprint(), issue(&ca, "id-2", "node-2"));
    assert_ne!(old_pin, new_pin);
    assert_eq!(ca.since(), at(1));
    assert_eq!(ca.authorities().len(), 2);
    assert_eq!(ca.verify_node(&old_node, at(1)).unwrap().id, "id-1");
    assert_eq!(ca.verify_node(&new_node, at(1)).unwrap().id, "id-2");
    let server = ca.issue_server(&[], at(1)).unwrap();
    let (leaf, above) = server.cert.split_first().unwrap();
    let name = rustls::pki_types::ServerName::try_from(server_name(Some(CLUSTER))).unwrap();
    for pin in [old_pin, new_pin] {
        let verifier = cless_proto::tls::verifier(vec![pin]);
        let verified = verifier.verify_server_cert(leaf, above, &name, &[], unix(at(1)));
        verified.unwrap();
    }
    let stranger = authority(CLUSTER).fingerprint();
    let verifier = cless_proto::tls::verifier(vec![stranger]);
    assert!(
        verifier
            .verify_server_cert(leaf, above, &name, &[], unix(at(1)))
            .is_err()
    );
    // The end of the change.
    ca.replace(&[new.pem], &new.key).unwrap();
    let refused = ca.verify_node(&old_node, at(1));
    assert_eq!(refused, Err(NodeCertificateError::OtherAuthority));
    assert!(ca.verify_node(&new_node, at(1)).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_id_and_name_come_back(id in "[!-~]{1,128}", name in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?") {
        let ca = authority(CLUSTER);
        let identity = ca.verify_node(&issue(&ca, &id, &name), at(1)).unwrap();
        prop_assert_eq!(identity.id, id);
        prop_assert_eq!(identity.name, name);
    }

    #[test]
    fn damaged_certificates_are_refused(flip in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let ca = authority(CLUSTER);
        let mut der = issue(&ca, "id", "node").to_vec();
        let at_byte = flip.index(der.len());
        der[at_byte] ^= 1_u8 << bit;
        prop_assert!(ca.verify_node(&CertificateDer::from(der), at(1)).is_err());
    }
}
