//! The header by which a TCP proxy tells whom it speaks for: PROXY protocol, versions 1 and 2.
//!
//! Parsed by a library; here are its bounds, where it ends, and the choice of what counts.

use ppp::{HeaderResult, v1, v2};
use std::net::{IpAddr, SocketAddr};

/// Longest header that is read: version 2 may carry up to 64 KiB of extensions, a few of which are usual.
const HEADER_BYTES_MAX: usize = 4096;

/// A header that is whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Its length.
    pub bytes: usize,
    /// The client's address; `None` for the proxy's own connections (health checks) and unknown families.
    pub source: Option<SocketAddr>,
}

/// How version 2 begins.
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// How version 1 begins.
const V1_SIGNATURE: &[u8] = b"PROXY ";
/// Longest line of version 1.
const V1_BYTES_MAX: usize = 107;

/// Reads the header at the front of `bytes`; `None` if more is needed.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Header>, &'static str> {
    let Some(header_bytes) = length(bytes)? else {
        return Ok(None);
    };
    let header = bytes.get(..header_bytes).unwrap_or_default();
    let source = match HeaderResult::parse(header) {
        HeaderResult::V1(Ok(header)) => source_v1(&header.addresses),
        HeaderResult::V2(Ok(header)) => source_v2(&header),
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => {
            return Err("the header is not valid");
        }
    };
    Ok(Some(Header {
        bytes: header_bytes,
        source,
    }))
}

/// Where the header ends; `None` if that is not known or not there yet.
fn length(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    if bytes.starts_with(V2_SIGNATURE) {
        let Some(&[high, low]) = bytes.get(14..16) else {
            return Ok(None);
        };
        let total = 16 + usize::from(u16::from_be_bytes([high, low]));
        if total > HEADER_BYTES_MAX {
            return Err("the header is longer than 4096 bytes");
        }
        return Ok((bytes.len() >= total).then_some(total));
    }
    if bytes.starts_with(V1_SIGNATURE) {
        let line = bytes.get(..V1_BYTES_MAX).unwrap_or(bytes);
        let end = line.windows(2).position(|pair| pair == b"\r\n");
        return match end {
            Some(end) => Ok(Some(end + 2)),
            None if line.len() == V1_BYTES_MAX => Err("the line does not end"),
            None => Ok(None),
        };
    }
    let may_become = |signature: &[u8]| signature.starts_with(bytes);
    if may_become(V2_SIGNATURE) || may_become(V1_SIGNATURE) {
        Ok(None)
    } else {
        Err("no PROXY header")
    }
}

fn source_v1(addresses: &v1::Addresses) -> Option<SocketAddr> {
    match addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(a) => Some((a.source_address, a.source_port).into()),
        v1::Addresses::Tcp6(a) => Some((a.source_address, a.source_port).into()),
    }
}

fn source_v2(header: &v2::Header<'_>) -> Option<SocketAddr> {
    if header.command == v2::Command::Local {
        return None;
    }
    let (ip, port) = match header.addresses {
        v2::Addresses::IPv4(a) => (IpAddr::V4(a.source_address), a.source_port),
        v2::Addresses::IPv6(a) => (IpAddr::V6(a.source_address), a.source_port),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x07\x7f\0\0\x01\x12\x34\x07\x5b";

    fn source(text: &[u8]) -> Option<String> {
        let header = parse(text).unwrap().unwrap();
        header.source.map(|source| source.to_string())
    }

    #[test]
    fn both_versions_name_the_client_and_their_own_length() {
        let v1 = b"PROXY TCP4 10.0.0.7 127.0.0.1 4660 1883\r\n";
        for header in [&v1[..], V2] {
            let stream = [header, b"\x10\x0c"].concat();
            assert_eq!(source(&stream).as_deref(), Some("10.0.0.7:4660"));
            assert_eq!(parse(&stream).unwrap().unwrap().bytes, header.len());
        }
        let v6 = b"PROXY TCP6 ::1 ::2 5 6\r\n";
        assert_eq!(source(v6).as_deref(), Some("[::1]:5"));
    }

    #[test]
    fn every_prefix_asks_for_more() {
        for header in [&b"PROXY TCP4 10.0.0.7 127.0.0.1 4660 1883\r\n"[..], V2] {
            for end in 0..header.len() {
                assert_eq!(parse(&header[..end]), Ok(None), "{end}");
            }
        }
    }

    #[test]
    fn health_checks_and_unknown_families_name_nobody() {
        assert_eq!(source(b"PROXY UNKNOWN\r\n"), None);
        let mut local = V2.to_vec();
        local[12] = 0x20;
        assert_eq!(source(&local), None);
    }

    #[test]
    fn anything_else_is_refused() {
        for bytes in [
            &b"\x10\x0c\0\x04MQTT\x04\x02"[..],
            b"PROXY TCP4 10.0.0.7\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
        ] {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
        let mut long = V2.to_vec();
        long[14] = 0xff;
        long.resize(HEADER_BYTES_MAX + 1, 0);
        assert!(parse(&long).is_err());
    }
}
