//! The certificate that a client showed, beyond the handshake that verified it.
//!
//! A session that is resumed by a ticket brings along the certificate of the first handshake, and rustls does
//! not verify it again: it is verified here, by the same CAs and revocation lists, as the clock stands now. A
//! connection ends when its certificate does.

use super::TransportError;
use super::tls::words;
use rustls::pki_types::UnixTime;
use rustls::server::danger::ClientCertVerifier;
use rustls::{HandshakeKind, ServerConfig, ServerConnection};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// TLS of a listener, and who judges its clients.
#[derive(Debug)]
pub struct TlsSetup {
    /// For connections.
    pub config: Arc<ServerConfig>,
    /// The same that the settings have; `None` where clients are not asked for a certificate.
    pub verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl TlsSetup {
    /// Judges a client whose handshake is over; when its certificate ends, in seconds since 1970, if it has
    /// shown one.
    ///
    /// # Errors
    /// Its session was resumed, and its certificate counts no more.
    pub(super) fn judge(
        &self,
        tls: &ServerConnection,
        now: UnixTime,
    ) -> Result<Option<u64>, TransportError> {
        let Some([own, between @ ..]) = tls.peer_certificates() else {
            return Ok(None);
        };
        if tls.handshake_kind() == Some(HandshakeKind::Resumed)
            && let Some(verifier) = &self.verifier
        {
            let verified = verifier.verify_client_cert(own, between, now);
            verified.map_err(|error| TransportError::Tls(words(&error)))?;
        }
        Ok(ends_unix_s(own, between, now))
    }
}

/// When a certificate ends, or one that the client has shown and that may be of a CA above it: each whose
/// subject is the issuer of one below, since a client may show others of that name before that by which it
/// was let in. One that has ended before was not needed: the client would not have been let in by it.
fn ends_unix_s(own: &[u8], between: &[impl AsRef<[u8]>], now: UnixTime) -> Option<u64> {
    let read = |der| X509Certificate::from_der(der).ok().map(|(_, read)| read);
    let end = |certificate: &X509Certificate<'_>| {
        u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0)
    };
    let own = read(own)?;
    let mut ends = end(&own);
    let mut rest: Vec<_> = between
        .iter()
        .filter_map(|der| read(der.as_ref()))
        .collect();
    let mut below = vec![own];
    while let Some(one) = below.pop() {
        let (above, others): (Vec<_>, Vec<_>) =
            (rest.into_iter()).partition(|ca| ca.subject() == one.issuer());
        let lasting = above.iter().map(end).filter(|end| *end > now.as_secs());
        ends = lasting.fold(ends, u64::min);
        below.extend(above);
        rest = others;
    }
    // The last second of it counts.
    Some(ends.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
    use rustls::server::WebPkiClientVerifier;
    use rustls::version::{TLS12, TLS13};
    use rustls::{
        ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion, crypto::aws_lc_rs,
    };
    use std::time::Duration;

    /// All that two ends have for each other.
    fn pump(client: &mut ClientConnection, server: &mut ServerConnection) {
        let mut wire = Vec::new();
        while client.wants_write() || server.wants_write() {
            wire.clear();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut &wire[..]).unwrap();
            server.process_new_packets().unwrap();
            wire.clear();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut &wire[..]).unwrap();
            client.process_new_packets().unwrap();
        }
    }

    /// A listener, and a client whose certificate ends with 2089.
    fn ends(version: &'static SupportedProtocolVersion) -> (TlsSetup, Arc<ClientConfig>) {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let signed = |year| {
            let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &issuer).unwrap();
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
            (vec![certificate.der().clone()], key)
        };
        let mut roots = RootCertStore::empty();
        roots.add(issuer.der().clone()).unwrap();
        let roots = Arc::new(roots);
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let verifier = verifier.build().unwrap();
        let (chain, key) = signed(2095);
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_client_cert_verifier(Arc::clone(&verifier))
            .with_single_cert(chain, key)
            .unwrap();
        config.ticketer = aws_lc_rs::Ticketer::new().unwrap();
        let setup = TlsSetup {
            config: Arc::new(config),
            verifier: Some(verifier),
        };
        let (chain, key) = signed(2090);
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        (setup, Arc::new(client))
    }

    #[test]
    fn a_certificate_that_has_ended_is_not_resumed() {
        const END: u64 = 3_786_912_000;
        let at = |second| UnixTime::since_unix_epoch(Duration::from_secs(second));
        for version in [&TLS12, &TLS13] {
            let (setup, client) = ends(version);
            let shake_hands = || {
                let name = ServerName::try_from("localhost").unwrap();
                let mut client = ClientConnection::new(Arc::clone(&client), name).unwrap();
                let mut server = ServerConnection::new(Arc::clone(&setup.config)).unwrap();
                pump(&mut client, &mut server);
                server
            };
            let first = shake_hands();
            assert_eq!(first.handshake_kind(), Some(HandshakeKind::Full));
            assert_eq!(setup.judge(&first, UnixTime::now()), Ok(Some(END + 1)));
            let resumed = shake_hands();
            assert_eq!(resumed.handshake_kind(), Some(HandshakeKind::Resumed));
            assert_eq!(setup.judge(&resumed, at(END)), Ok(Some(END + 1)));
            let error = setup.judge(&resumed, at(END + 1)).unwrap_err();
            assert_eq!(error.to_string(), "TLS: its certificate has ended");
        }
    }

    #[test]
    fn the_first_end_above_a_certificate_counts() {
        let named = |name: &str, year| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params
                .distinguished_name
                .push(rcgen::DnType::CommonName, name);
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            params
        };
        let key = || KeyPair::generate().unwrap();
        let end = |issuer: &CertifiedIssuer<'_, KeyPair>, others: &[&[u8]]| {
            let own = named("client", 2090).signed_by(&key(), issuer).unwrap();
            ends_unix_s(own.der(), others, UnixTime::now())
        };
        let year = |year| {
            Some(u64::try_from(rcgen::date_time_ymd(year, 1, 1).unix_timestamp()).unwrap() + 1)
        };
        let ca = |year| CertifiedIssuer::self_signed(named("between", year), key()).unwrap();
        let (short, long, over) = (ca(2080), ca(2095), ca(2020));
        let other = CertifiedIssuer::self_signed(named("another", 2070), key()).unwrap();
        assert_eq!(end(&short, &[other.der(), short.der()]), year(2080));
        assert_eq!(end(&short, &[other.der()]), year(2090));
        assert_eq!(end(&long, &[long.der()]), year(2090));
        assert_eq!(end(&over, &[over.der()]), year(2090));
        // Whichever of one name has signed it, and wherever it stands.
        for shown in [[long.der(), short.der()], [short.der(), long.der()]] {
            assert_eq!(end(&short, &shown.map(|ca| &**ca)), year(2080));
        }
        let between = named("between", 2085).signed_by(&key(), &other).unwrap();
        let shown: [&[u8]; 3] = [long.der(), other.der(), between.der()];
        assert_eq!(end(&long, &shown), year(2070));
    }
}
