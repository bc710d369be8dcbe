//! Clients known by their certificate: its names, and the method that takes one of them as user name.
//!
//! The TLS handshake has verified the certificate before; nothing here checks a signature or a date.

use super::{CertificateNames, Credentials, Method, Verdict};
use crate::engine::access::{Identity, Refusal};
use x509_parser::asn1_rs::{Any, Tag};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Reads the names of a certificate; `None` if it is not one certificate in DER.
///
/// A name that is empty or has a control character is left out, and so is the common name if there are
/// several: whom such a certificate means cannot be known.
#[must_use]
pub fn names(der: &[u8]) -> Option<CertificateNames> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let mut common_names = certificate.subject().iter_common_name();
    let common_name = match (common_names.next(), common_names.next()) {
        (Some(only), None) => text(only.attr_value()).as_deref().and_then(usable),
        _ => None,
    };
    let alternative = certificate.subject_alternative_name().ok()?;
    let general = alternative.map_or(&[][..], |extension| &extension.value.general_names);
    let dns = general.iter().filter_map(|name| match name {
        GeneralName::DNSName(text) => usable(text),
        _ => None,
    });
    let mail = general.iter().filter_map(|name| match name {
        GeneralName::RFC822Name(text) => usable(text),
        _ => None,
    });
    let uri = general.iter().filter_map(|name| match name {
        GeneralName::URI(text) => usable(text),
        _ => None,
    });
    Some(CertificateNames {
        common_name,
        alternative_names: dns.chain(mail).chain(uri).collect(),
    })
}

/// The text of a name in any of the string types of X.520. TeletexString is read as Latin-1, as OpenSSL and
/// browsers do.
fn text(value: &Any<'_>) -> Option<String> {
    let bytes = value.data;
    match value.tag() {
        Tag::TeletexString => Some(bytes.iter().copied().map(char::from).collect()),
        Tag::BmpString => {
            let (units, []) = bytes.as_chunks::<2>() else {
                return None;
            };
            let units = units.iter().map(|unit| u16::from_be_bytes(*unit));
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        Tag::UniversalString => {
            let (characters, []) = bytes.as_chunks::<4>() else {
                return None;
            };
            let characters = characters.iter().map(|four| u32::from_be_bytes(*four));
            characters.map(char::from_u32).collect()
        }
        Tag::Utf8String
        | Tag::PrintableString
        | Tag::Ia5String
        | Tag::NumericString
        | Tag::VisibleString => std::str::from_utf8(bytes).ok().map(str::to_owned),
        _ => None,
    }
}

fn usable(text: &str) -> Option<Box<str>> {
    let is_usable = !text.is_empty() && !text.chars().any(char::is_control);
    is_usable.then(|| text.into())
}

/// Which name of a certificate becomes the user name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentityFrom {
    /// The common name of its subject.
    CommonName,
    /// The first of its subject alternative names.
    AlternativeName,
}

/// Takes a name in the client's certificate as its user name, whatever user name CONNECT gives.
#[derive(Clone, Copy, Debug)]
pub struct CertificateMethod {
    /// Which name.
    pub from: IdentityFrom,
}

impl Method for CertificateMethod {
    fn name(&self) -> &'static str {
        "certificate"
    }

    fn takes(&self) -> Option<&'static str> {
        None
    }

    fn authenticate(&self, credentials: &Credentials) -> Verdict {
        let Some(certificate) = &credentials.certificate else {
            return Verdict::NotMine;
        };
        let name = match self.from {
            IdentityFrom::CommonName => certificate.common_name.as_ref(),
            IdentityFrom::AlternativeName => certificate.alternative_names.first(),
        };
        match name.filter(|name| !name.is_empty()) {
            None => {
                let what = match self.from {
                    IdentityFrom::CommonName => "common name",
                    IdentityFrom::AlternativeName => "alternative name",
                };
                let text = format!("its certificate has no {what} (authentication.certificate)");
                Verdict::Refuse(Refusal::BadProof(text.into()))
            }
            Some(name) => Verdict::Allow(Box::new(Identity {
                user_name: Some(name.clone()),
                method: self.name(),
                ..Identity::default()
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::codec::Version;
    use crate::shard::peer::Peer;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
    use std::sync::Arc;

    fn certificate(common_name: Option<&str>, alternative: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.subject_alt_names = alternative;
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn credentials(certificate: Option<CertificateNames>) -> Credentials {
        Credentials {
            client_id: "c".into(),
            user_name: Some("somebody-else".into()),
            password: None,
            version: Version::V5,
            peer: Peer::Unix,
            certificate: certificate.map(Arc::new),
        }
    }

    fn user(from: IdentityFrom, der: &[u8]) -> Option<Box<str>> {
        let method = CertificateMethod { from };
        match method.authenticate(&credentials(names(der))) {
            Verdict::Allow(identity) => {
                assert_eq!(identity.method, "certificate");
                identity.user_name
            }
            Verdict::Refuse(Refusal::BadProof(_)) => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn all_names_are_read_in_their_order() {
        let alternative = vec![
            SanType::URI("urn:dev:7".try_into().unwrap()),
            SanType::Rfc822Name("pump@site.example".try_into().unwrap()),
            SanType::IpAddress([127, 0, 0, 1].into()),
            SanType::DnsName("pump7.site.example".try_into().unwrap()),
            SanType::DnsName("pump8.site.example".try_into().unwrap()),
        ];
        let names = names(&certificate(Some("pump7"), alternative)).unwrap();
        assert_eq!(names.common_name.as_deref(), Some("pump7"));
        let alternative: Vec<_> = names.alternative_names.iter().map(|name| &**name).collect();
        let expected = [
            "pump7.site.example",
            "pump8.site.example",
            "pump@site.example",
            "urn:dev:7",
        ];
        assert_eq!(alternative, expected);
    }

    #[test]
    fn names_of_every_string_type_are_read() {
        let read = |tag, bytes: &[u8]| {
            let length = u8::try_from(bytes.len()).unwrap();
            let der = [&[tag, length], bytes].concat();
            text(&Any::from_der(&der).unwrap().1)
        };
        assert_eq!(read(0x0C, "J\u{fc}".as_bytes()).as_deref(), Some("J\u{fc}"));
        assert_eq!(read(0x14, b"J\xfc").as_deref(), Some("J\u{fc}"));
        assert_eq!(read(0x1E, b"\0J\0\xfc").as_deref(), Some("J\u{fc}"));
        assert_eq!(read(0x1C, b"\0\0\0J").as_deref(), Some("J"));
        for tag in [0x13, 0x16, 0x12, 0x1A] {
            assert_eq!(read(tag, b"7").as_deref(), Some("7"));
        }
        assert_eq!(read(0x1E, b"\0J\0"), None);
        assert_eq!(read(0x1E, b"\xd8\0"), None);
        assert_eq!(read(0x04, b"J"), None);
    }

    #[test]
    fn what_is_not_one_certificate_has_no_names() {
        let der = certificate(Some("pump7"), vec![]);
        assert_eq!(names(b""), None);
        assert_eq!(names(b"-----BEGIN CERTIFICATE-----"), None);
        assert_eq!(names(&der[..der.len() - 1]), None);
        assert_eq!(names(&[&der[..], b"more"].concat()), None);
    }

    #[test]
    fn several_common_names_count_as_none() {
        // rcgen keeps one common name only: turn the organisation's type (2.5.4.10) into one (2.5.4.3).
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let subject = &mut params.distinguished_name;
        subject.push(DnType::CommonName, "pump7");
        subject.push(DnType::OrganizationName, "admin");
        let key = KeyPair::generate().unwrap();
        let mut der = params.self_signed(&key).unwrap().der().to_vec();
        let organisation = [0x06, 0x03, 0x55, 0x04, 0x0a];
        let mut found = 0;
        for at in 0..der.len() - organisation.len() {
            if der[at..].starts_with(&organisation) {
                der[at + 4] = 0x03;
                found += 1;
            }
        }
        assert!(found > 0);
        assert_eq!(names(&der).unwrap().common_name, None);
        assert_eq!(user(IdentityFrom::CommonName, &der), None);
    }

    #[test]
    fn a_name_with_a_control_character_is_left_out() {
        let der = certificate(Some("admin\0.evil"), vec![]);
        assert_eq!(names(&der).unwrap().common_name, None);
    }

    #[test]
    fn the_certificates_name_wins_over_the_user_name() {
        let alternative = vec![SanType::DnsName("pump7.example".try_into().unwrap())];
        let der = certificate(Some("pump7"), alternative);
        assert_eq!(
            user(IdentityFrom::CommonName, &der).as_deref(),
            Some("pump7")
        );
        assert_eq!(
            user(IdentityFrom::AlternativeName, &der).as_deref(),
            Some("pump7.example")
        );
    }

    #[test]
    fn without_the_chosen_name_a_certificate_is_refused() {
        let alternative = vec![SanType::DnsName("pump7.example".try_into().unwrap())];
        let without_common = certificate(None, alternative);
        assert_eq!(user(IdentityFrom::CommonName, &without_common), None);
        let without_alternative = certificate(Some("pump7"), vec![]);
        assert_eq!(
            user(IdentityFrom::AlternativeName, &without_alternative),
            None
        );
        let empty = certificate(Some(""), vec![]);
        assert_eq!(user(IdentityFrom::CommonName, &empty), None);
    }

    #[test]
    fn an_empty_name_that_another_reader_found_is_refused_too() {
        let names = CertificateNames {
            common_name: Some("".into()),
            alternative_names: vec!["".into()],
        };
        for from in [IdentityFrom::CommonName, IdentityFrom::AlternativeName] {
            let verdict =
                CertificateMethod { from }.authenticate(&credentials(Some(names.clone())));
            assert!(matches!(verdict, Verdict::Refuse(Refusal::BadProof(_))));
        }
    }

    #[test]
    fn without_a_certificate_other_methods_are_asked() {
        let method = CertificateMethod {
            from: IdentityFrom::CommonName,
        };
        assert!(matches!(
            method.authenticate(&credentials(None)),
            Verdict::NotMine
        ));
    }
}
