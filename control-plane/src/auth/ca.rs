//! The certificate authority of a cluster.
//!
//! | certificate | valid | for |
//! |---|---|---|
//! | authority | 10 years | signs the others; pinned by nodes and clients |
//! | server | 30 days, made at each start and anew in time | control planes, by name |
//! | node | 24 h | client authentication alone; carries id and name |
//!
//! All keys are ECDSA on P-256. Certificates begin an hour early, because clocks differ.
//!
//! While authorities change ([`rotate`](super::rotate)), the new one issues and both are trusted. A
//! server then also presents the new one as certified by the old one, so that a client which knows
//! one of them trusts the server.
//!
//! Law: a certificate that was issued for a node verifies as that node's until it expires, and as
//! nothing else.

use super::Error;
use super::node_certificate::NodeIdentity;
use crate::domain::Timestamp;
use crate::domain::enrollment::CERTIFICATE_LIFETIME;
use cless_proto::tls::{Fingerprint, server_name};
use parking_lot::RwLock;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType,
    SerialNumber, SubjectPublicKeyInfo,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor, UnixTime};
use rustls::sign::CertifiedKey;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Ten years, with their leap days.
const AUTHORITY_LIFE: Duration = DAY.saturating_mul(3653);
pub(crate) const SERVER_LIFE: Duration = DAY.saturating_mul(30);
/// Certificates are valid from this long before they are made.
const BACKDATED: Duration = HOUR;

/// The authority of one cluster. What it consists of may be replaced.
pub(crate) struct Ca {
    cluster: String,
    current: RwLock<Arc<Authorities>>,
}

struct Authorities {
    issuer: Issuer<'static, KeyPair>,
    /// Self-signed; the first issues certificates, all are trusted.
    trusted: Vec<CertificateDer<'static>>,
    /// The first as certified by the others.
    cross: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
    /// Begin of the first.
    since: Timestamp,
}

/// A new authority.
pub(crate) struct NewAuthority {
    pub(crate) pem: String,
    /// It, as certified by its predecessor.
    pub(crate) cross: Option<String>,
    /// PKCS #8.
    pub(crate) key: Vec<u8>,
}

/// A certificate of a node that is not accepted, in words for its administrator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NodeCertificateError {
    #[error(
        "the node's certificate expired at {until}, and the clock of the control plane says \
         {now}: the node renews it by itself within 90 days; else join it again with a new join \
         token"
    )]
    Expired { until: String, now: String },
    #[error(
        "the node's certificate is valid from {from}, and the clock of the control plane says \
         {now}: set the clocks of both machines"
    )]
    NotYet { from: String, now: String },
    #[error(
        "the certificate is not from the authority of this cluster: check --control-plane, or \
         join the node with a join token of this cluster"
    )]
    OtherAuthority,
    #[error("the certificate is not one of a node ({0}): join the node with a join token")]
    Unusable(String),
}

impl NewAuthority {
    /// Makes an authority for a cluster, and has its predecessor certify it.
    pub(crate) fn generate(
        cluster: &str,
        predecessor: Option<&Ca>,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = template(now, AUTHORITY_LIFE);
        // Different names keep the paths of old and new apart.
        let number = uuid::Uuid::new_v4().simple().to_string();
        params.distinguished_name.push(
            DnType::CommonName,
            format!("cless cluster {cluster} {}", &number[..8]),
        );
        // One below it: its successor.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key)?.pem();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let cross = predecessor
            .map(|predecessor| params.signed_by(&key, &predecessor.current().issuer))
            .transpose()?;
        Ok(Self {
            pem,
            cross: cross.map(|cross| cross.pem()),
            key: key.serialize_der(),
        })
    }
}

impl Authorities {
    /// From certificates in PEM, the issuing one first, and its private key in PKCS #8.
    fn read(certificates: &[String], key: &[u8]) -> Result<Self, Error> {
        let damaged = |problem: &dyn std::fmt::Display| Error::Damaged(problem.to_string());
        let certificates: Vec<_> = certificates
            .iter()
            .map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()))
            .collect::<Result<_, _>>()
            .map_err(|error| damaged(&error))?;
        let (mut trusted, mut cross, mut since) = (Vec::new(), Vec::new(), None);
        for der in certificates {
            let (_, parsed) = X509Certificate::from_der(&der).map_err(|error| damaged(&error))?;
            let from = parsed.validity().not_before.timestamp();
            since.get_or_insert(Timestamp::from_micros(from.saturating_mul(1_000_000)));
            let self_signed = parsed.subject() == parsed.issuer();
            if self_signed {
                &mut trusted
            } else {
                &mut cross
            }
            .push(der);
        }
        let missing = || damaged(&"it has no certificate");
        let first = trusted.first().ok_or_else(missing)?;
        let key = PrivateKeyDer::try_from(key).map_err(|error| damaged(&error))?;
        let key = KeyPair::try_from(&key).map_err(|error| damaged(&error))?;
        let anchors = trusted
            .iter()
            .map(|der| Ok(webpki::anchor_from_trusted_cert(der)?.to_owned()))
            .collect::<Result<_, webpki::Error>>()
            .map_err(|error| damaged(&error))?;
        Ok(Self {
            issuer: Issuer::from_ca_cert_der(first, key).map_err(|error| damaged(&error))?,
            trusted,
            cross,
            anchors,
            since: since.ok_or_else(missing)?.plus(BACKDATED),
        })
    }
}

impl Ca {
    /// An authority from its certificates in PEM, the issuing one first, and the private key of that
    /// one in PKCS #8.
    pub(crate) fn new(cluster: &str, certificates: &[String], key: &[u8]) -> Result<Self, Error> {
        Ok(Self {
            cluster: cluster.to_owned(),
            current: RwLock::new(Arc::new(Authorities::read(certificates, key)?)),
        })
    }

    /// Replaces what [`Ca::new`] was given.
    pub(crate) fn replace(&self, certificates: &[String], key: &[u8]) -> Result<(), Error> {
        let next = Arc::new(Authorities::read(certificates, key)?);
        *self.current.write() = next;
        Ok(())
    }

    fn current(&self) -> Arc<Authorities> {
        Arc::clone(&self.current.read())
    }

    /// Id of the cluster.
    pub(crate) fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Certificates in DER that nodes and clients trust; the first issues certificates.
    pub(crate) fn authorities(&self) -> Vec<Vec<u8>> {
        let current = self.current();
        current.trusted.iter().map(|der| der.to_vec()).collect()
    }

    /// The certificates in PEM, for other clients.
    pub(crate) fn to_pem(&self) -> String {
        let current = self.current();
        let trusted = current.trusted.iter();
        trusted
            .map(|der| pem("CERTIFICATE", der.as_ref()))
            .collect()
    }

    /// The fingerprint of the authority that issues certificates.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.current().trusted[0])
    }

    /// When the authority that issues certificates was made.
    pub(crate) fn since(&self) -> Timestamp {
        self.current().since
    }

    /// Issues the certificate of a node, for its public key in DER (SubjectPublicKeyInfo).
    ///
    /// # Errors
    /// If the key is not an ECDSA key on P-256, or a text cannot be in a certificate.
    pub(crate) fn issue_node(
        &self,
        public_key: &[u8],
        id: &str,
        name: &str,
        now: Timestamp,
    ) -> Result<Vec<u8>, Error> {
        let key = SubjectPublicKeyInfo::from_der(public_key)?;
        if key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(Error::Issue(rcgen::Error::UnsupportedSignatureAlgorithm));
        }
        let mut params = template(now, CERTIFICATE_LIFETIME);
        params
            .distinguished_name
            .push(DnType::CommonName, name.to_owned());
        let identity = NodeIdentity {
            cluster: self.cluster.clone(),
            id: id.to_owned(),
            name: name.to_owned(),
        };
        params.subject_alt_names = vec![SanType::URI(identity.uri().try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Ok(params
            .signed_by(&key, &self.current().issuer)?
            .der()
            .to_vec())
    }

    /// The time at which a certificate that is issued at `now` expires.
    pub(crate) fn node_expiry(now: Timestamp) -> Timestamp {
        now.plus(CERTIFICATE_LIFETIME)
    }

    /// Makes the certificate of this server, with the authorities in its chain.
    ///
    /// `others` are names and addresses besides those of the cluster and of this machine.
    pub(crate) fn issue_server(
        &self,
        others: &[String],
        now: Timestamp,
    ) -> Result<CertifiedKey, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = template(now, SERVER_LIFE);
        params
            .distinguished_name
            .push(DnType::CommonName, "cless control plane");
        params.subject_alt_names = self.server_names(others)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let current = self.current();
        let leaf = params.signed_by(&key, &current.issuer)?;
        let mut chain = vec![leaf.der().clone()];
        chain.extend(current.cross.iter().cloned());
        // The issuer last, where clients look for the authority to show.
        chain.extend(current.trusted.iter().rev().cloned());
        let key = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|error| Error::Damaged(error.to_owned()))?;
        let key =
            ring::sign::any_ecdsa_type(&key).map_err(|error| Error::Damaged(error.to_string()))?;
        Ok(CertifiedKey::new(chain, key))
    }

    fn server_names(&self, others: &[String]) -> Result<Vec<SanType>, Error> {
        let mut names: Vec<SanType> = Vec::new();
        let fixed = [
            server_name(Some(&self.cluster)),
            server_name(None),
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
            "::1".to_owned(),
        ];
        for name in fixed.iter().chain(others) {
            let name = match name.parse::<IpAddr>() {
                Ok(ip) => SanType::IpAddress(ip),
                Err(_) => SanType::DnsName(name.as_str().try_into()?),
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Verifies the certificate that a client presented, by time and authority. Its possession of
    /// the key is verified by the handshake.
    pub(crate) fn verify_node(
        &self,
        certificate: &CertificateDer<'_>,
        now: Timestamp,
    ) -> Result<NodeIdentity, NodeCertificateError> {
        use NodeCertificateError as Refused;
        let unusable = |error: &dyn std::fmt::Display| Refused::Unusable(error.to_string());
        let current = self.current();
        let parsed =
            webpki::EndEntityCert::try_from(certificate).map_err(|error| unusable(&error))?;
        let verified = parsed.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &current.anchors,
            &[],
            unix(now),
            webpki::KeyUsage::client_auth(),
            None,
            None,
        );
        match verified {
            Ok(_path) => {}
            Err(webpki::Error::CertExpired { time, not_after }) => {
                return Err(Refused::Expired {
                    until: text(not_after),
                    now: text(time),
                });
            }
            Err(webpki::Error::CertNotValidYet { time, not_before }) => {
                return Err(Refused::NotYet {
                    from: text(not_before),
                    now: text(time),
                });
            }
            Err(
                webpki::Error::UnknownIssuer
                | webpki::Error::InvalidSignatureForPublicKey
                | webpki::Error::CaUsedAsEndEntity,
            ) => return Err(Refused::OtherAuthority),
            Err(error) => return Err(unusable(&error)),
        }
        let identity = NodeIdentity::read(certificate).map_err(|error| unusable(&error))?;
        if identity.cluster != self.cluster {
            return Err(Refused::OtherAuthority);
        }
        Ok(identity)
    }
}

/// The parts that all certificates share.
fn template(now: Timestamp, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = date(now.minus(BACKDATED));
    params.not_after = date(now.plus(life));
    params.use_authority_key_identifier_extension = true;
    // Positive and unique (RFC 5280, section 4.1.2.2).
    let mut serial = uuid::Uuid::new_v4().into_bytes();
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

fn date(time: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(time.micros().div_euclid(1_000_000))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn unix(time: Timestamp) -> UnixTime {
    let seconds = u64::try_from(time.micros() / 1_000_000).unwrap_or(0);
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

/// RFC 3339, UTC.
fn text(time: UnixTime) -> String {
    cless_proto::tls::rfc3339(time)
}

/// PEM (RFC 7468).
fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in body.as_bytes().chunks(64) {
        text.extend(line.iter().copied().map(char::from));
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

#[cfg(test)]
mod tests;
