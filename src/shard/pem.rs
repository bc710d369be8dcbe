//! PEM files as people have them: with remarks between the sections, Windows line ends, a byte order mark.
//! What cannot be meant is refused by its line, so that no certificate is left out in silence.
//!
//! Not here: what the sections hold.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";
const MARK: &[u8] = b"\xEF\xBB\xBF";
/// How a key of OpenSSH is called.
const OPENSSH: &str = "OPENSSH PRIVATE KEY";
/// How a certificate of OpenSSL's own kind is called, which has more in it than others read.
const TRUSTED: &str = "TRUSTED CERTIFICATE";

/// A file whose sections are whole.
#[derive(Debug)]
pub struct Pem<'a> {
    bytes: &'a [u8],
    sections: Vec<Section>,
}

#[derive(Debug)]
struct Section {
    label: String,
    is_encrypted: bool,
}

impl<'a> Pem<'a> {
    /// Looks through the lines of a file.
    ///
    /// # Errors
    /// What is wrong, by its line. Nothing of what the sections hold is shown.
    pub fn new(bytes: &'a [u8]) -> Result<Self, String> {
        let bytes = bytes.strip_prefix(MARK).unwrap_or(bytes);
        if bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF") {
            return Err(
                "is in UTF-16, not plain text; `iconv -f UTF-16 -t UTF-8 OLD > NEW` makes that of it"
                    .to_owned(),
            );
        }
        let mut sections = Vec::new();
        // Label and line of the section that has begun.
        let mut open: Option<(String, usize)> = None;
        let mut is_encrypted = false;
        for (number, line) in (1..).zip(lines(bytes)) {
            let wrong = |text: &str| Err(format!("line {number}: {text}"));
            let is_indented = line.starts_with(b" ") || line.starts_with(b"\t");
            let line = line.trim_ascii();
            let has_frame = holds(line, BEGIN) || holds(line, END);
            let frame = frame(line);
            match (frame, open.take()) {
                (None, _) if has_frame => {
                    return wrong(
                        "BEGIN or END does not stand on a line of its own; where files were put \
                         together, add a line end between them",
                    );
                }
                (Some(_), _) if is_indented => {
                    return wrong(
                        "blanks stand before this BEGIN or END; take them out of all lines",
                    );
                }
                (Some((true, label)), None) => {
                    is_encrypted = label.starts_with("ENCRYPTED");
                    open = Some((label, number));
                }
                (Some((true, _)), Some((label, begin))) => {
                    return wrong(&format!(
                        "the {label} of line {begin} has no END before this"
                    ));
                }
                (Some((false, label)), Some((begun, _))) if label == begun => {
                    sections.push(Section {
                        label,
                        is_encrypted,
                    });
                }
                (Some((false, label)), _) => {
                    return wrong(&format!("this END of a {label} has no BEGIN"));
                }
                (None, Some(section)) => {
                    let header = line.contains(&b':');
                    is_encrypted |= header && line.ends_with(b"ENCRYPTED");
                    if !header && !line.iter().all(is_base64) {
                        return wrong(&format!("this is no base64 in a {}", section.0));
                    }
                    open = Some(section);
                }
                (None, None) => {}
            }
        }
        match open {
            Some((label, begin)) => Err(format!("line {begin}: the {label} has no END")),
            None => Ok(Pem { bytes, sections }),
        }
    }

    /// All certificates.
    ///
    /// # Errors
    /// There is none, or one is no base64.
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        if self.sections.iter().any(|section| section.label == TRUSTED) {
            return Err(
                "has a TRUSTED CERTIFICATE, which only OpenSSL reads; `openssl x509 -in OLD -out NEW` \
                 makes a CERTIFICATE of it"
                    .to_owned(),
            );
        }
        let found = CertificateDer::pem_slice_iter(self.bytes).collect();
        let of_store = "openssl pkcs12 -nokeys";
        self.all(found, "CERTIFICATE", ["openssl x509 -inform DER", of_store])
    }

    /// All revocation lists.
    ///
    /// # Errors
    /// There is none, or one is no base64.
    pub fn revocation_lists(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
        let found = CertificateRevocationListDer::pem_slice_iter(self.bytes).collect();
        let of_store = "openssl pkcs12 -info";
        self.all(found, "X509 CRL", ["openssl crl -inform DER", of_store])
    }

    /// The private key, of several the first.
    ///
    /// # Errors
    /// There is none, or it is encrypted.
    pub fn private_key(&self) -> Result<PrivateKeyDer<'static>, String> {
        let mut keys = self.sections.iter();
        let key = keys.find(|section| section.label.ends_with("PRIVATE KEY"));
        match key {
            None => {
                let conversions = ["openssl pkey -inform DER", "openssl pkcs12 -nocerts -nodes"];
                Err(self.without("PRIVATE KEY", conversions))
            }
            Some(key) if key.label == OPENSSH => Err(
                "has an OPENSSH PRIVATE KEY, which only OpenSSH reads; `ssh-keygen -p -m PKCS8 -f COPY` \
                 makes a PRIVATE KEY of a copy, if it is one of RSA or ECDSA"
                    .to_owned(),
            ),
            Some(key) if key.is_encrypted => Err(
                "is encrypted, and nobody is there to type its password; `openssl pkey -in OLD -out \
                 NEW` decrypts it: let only the broker read that"
                    .to_owned(),
            ),
            Some(_) => PrivateKeyDer::from_pem_slice(self.bytes)
                .map_err(|_| "has a PRIVATE KEY that is not whole".to_owned()),
        }
    }

    fn all<T, E>(
        &self,
        found: Result<Vec<T>, E>,
        label: &str,
        conversions: [&str; 2],
    ) -> Result<Vec<T>, String> {
        let labels = self.sections.iter().map(|section| section.label.as_str());
        match (labels.filter(|found| *found == label).count(), found) {
            (0, _) => Err(self.without(label, conversions)),
            (count, Ok(found)) if found.len() == count => Ok(found),
            _ => Err(format!("has a {label} that is not whole")),
        }
    }

    /// What to say of a file without a section; by what that is made of DER, and of PKCS#12.
    fn without(&self, label: &str, [of_der, of_store]: [&str; 2]) -> String {
        if self.sections.is_empty() && is_pkcs12(self.bytes) {
            return format!("is PKCS#12, not PEM; `{of_store} -in OLD -out NEW` makes PEM of it");
        }
        if self.sections.is_empty() && self.bytes.starts_with(&[0x30]) {
            return format!("is DER, not PEM; `{of_der} -in OLD -out NEW` makes PEM of it");
        }
        match self.sections.first() {
            Some(other) => format!("has no {label} in PEM, but a {}", other.label),
            None => format!("has no {label} in PEM"),
        }
    }
}

/// Whether it is a store of keys and certificates, as browsers and Windows export them: a sequence that
/// begins with its version, 3.
fn is_pkcs12(bytes: &[u8]) -> bool {
    let content = match bytes {
        [0x30, length, rest @ ..] if *length <= 0x80 => rest,
        [0x30, length, rest @ ..] => rest.get(usize::from(length & 0x7F)..).unwrap_or_default(),
        _ => return false,
    };
    content.starts_with(&[0x02, 0x01, 0x03, 0x30])
}

/// With ends of any kind, each counted as one.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let has_line_feeds = bytes.contains(&b'\n');
    let end = if has_line_feeds { b'\n' } else { b'\r' };
    bytes.split(move |byte| *byte == end)
}

fn holds(line: &[u8], part: &[u8]) -> bool {
    line.windows(part.len()).any(|window| window == part)
}

/// Whether a line is a BEGIN, and its label; `None` if it is neither that nor an END.
fn frame(line: &[u8]) -> Option<(bool, String)> {
    let (is_begin, rest) = match (line.strip_prefix(BEGIN), line.strip_prefix(END)) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return None,
    };
    let label = rest.strip_suffix(DASHES)?;
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b' ';
    let label = label.iter().all(is_plain).then_some(label)?;
    Some((is_begin, String::from_utf8_lossy(label).into_owned()))
}

fn is_base64(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/= \t".contains(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(label: &str) -> String {
        format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n")
    }

    fn error(text: &str) -> String {
        Pem::new(text.as_bytes()).unwrap_err()
    }

    fn certificates(text: &str) -> Result<usize, String> {
        Ok(Pem::new(text.as_bytes())?.certificates()?.len())
    }

    #[test]
    fn what_stands_around_sections_is_no_matter() {
        let one = section("CERTIFICATE");
        let bags = format!("\u{feff}Bag Attributes\n  friendlyName: x\n{one}\n# end\n{one}");
        assert_eq!(certificates(&bags), Ok(2));
        assert_eq!(certificates(&bags.replace('\n', "\r\n")), Ok(2));
        assert_eq!(certificates(&format!("\u{feff}{one}")), Ok(1));
        assert_eq!(
            certificates(&format!("{one}{}", section("PRIVATE KEY"))),
            Ok(1)
        );
    }

    #[test]
    fn what_would_be_left_out_in_silence_is_refused_by_line() {
        let one = section("CERTIFICATE");
        let joined = format!("{}{one}", one.trim_end());
        assert!(error(&joined).starts_with("line 3: BEGIN or END does not stand"));
        let cut = one.replace("-----END CERTIFICATE-----\n", "");
        assert!(error(&format!("{cut}{one}")).starts_with("line 3: the CERTIFICATE of line 1"));
        assert_eq!(error(&cut), "line 1: the CERTIFICATE has no END");
        assert!(error(&one.replace("AAAA", "A!A")).starts_with("line 2: this is no base64"));
        assert!(error("-----END CERTIFICATE-----\n").contains("has no BEGIN"));
        let other = one.replace("END CERTIFICATE", "END X509 CRL");
        assert!(error(&other).starts_with("line 3: "));
        let halved = one.replace("AAAA", "AAAAA");
        assert!(certificates(&halved).unwrap_err().contains("not whole"));
    }

    #[test]
    fn other_kinds_of_files_are_called_what_they_are() {
        let key = |text: &[u8]| Pem::new(text).unwrap().private_key().unwrap_err();
        assert!(key(section("ENCRYPTED PRIVATE KEY").as_bytes()).contains("is encrypted"));
        let old = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA";
        let old = section("RSA PRIVATE KEY").replace("AAAA", old);
        assert!(key(old.as_bytes()).contains("is encrypted"));
        assert!(key(b"0\x82\x01\x00\xff").starts_with("is DER, not PEM; `openssl pkey"));
        assert!(key(section("CERTIFICATE").as_bytes()).contains("but a CERTIFICATE"));
        assert_eq!(key(b""), "has no PRIVATE KEY in PEM");
        assert!(certificates("0\u{1}").unwrap_err().contains("openssl x509"));
        let of_ssh = key(section(OPENSSH).as_bytes());
        assert!(of_ssh.contains("only OpenSSH reads"), "{of_ssh}");
        let store = b"0\x82\x09\x10\x02\x01\x03\x30\x82";
        assert!(key(store).starts_with("is PKCS#12, not PEM; `openssl pkcs12 -nocerts"));
        let of_store = Pem::new(store).unwrap().certificates().unwrap_err();
        assert!(
            of_store.contains("`openssl pkcs12 -nokeys -in"),
            "{of_store}"
        );
        let utf16 = Pem::new(b"\xFF\xFE-\0-\0").unwrap_err();
        assert!(utf16.contains("UTF-16"), "{utf16}");
        let indented = section("CERTIFICATE").replace("-----E", "  -----E");
        assert!(error(&indented).starts_with("line 3: blanks stand before"));
        let trusted = certificates(&section(TRUSTED)).unwrap_err();
        assert!(trusted.contains("only OpenSSL reads"), "{trusted}");
    }
}
