//! What else than MQTT a stream may begin with: told to an operator whose client uses the wrong port.

/// A protocol that is known by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// A ClientHello.
    Tls,
    /// A request.
    Http,
    /// The header by which a proxy names its client.
    Proxy,
    /// A CONNECT, where it comes too early.
    Mqtt,
}

/// How requests begin.
const METHODS: [&[u8]; 8] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"PRI * ",
];
/// How PROXY headers begin, in both versions.
const PROXY: [&[u8]; 2] = [b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"];
/// Names of the protocol in a CONNECT, which stand among its first bytes.
const NAMES: [&[u8]; 2] = [b"\0\x04MQTT", b"\0\x06MQIsdp"];
const NAME_WITHIN_BYTES: usize = 13;

impl Foreign {
    /// What `stream` begins with, if that is known by what has come so far.
    #[must_use]
    pub fn of(stream: &[u8]) -> Option<Self> {
        let begins = |starts: &[&[u8]]| starts.iter().any(|start| stream.starts_with(start));
        if let [0x16, 3, 0..=4, ..] = stream {
            return Some(Foreign::Tls);
        }
        if begins(&METHODS) {
            return Some(Foreign::Http);
        }
        if begins(&PROXY) {
            return Some(Foreign::Proxy);
        }
        let head = stream.get(..NAME_WITHIN_BYTES).unwrap_or(stream);
        let has = |name: &&[u8]| head.windows(name.len()).any(|part| part == *name);
        (stream.first() == Some(&0x10) && NAMES.iter().any(has)).then_some(Foreign::Mqtt)
    }

    /// Why that is no CONNECT, and what would serve it.
    #[must_use]
    pub const fn in_place_of_connect(self) -> &'static str {
        match self {
            Foreign::Tls => {
                "it sends TLS, which its listener does not speak (listener.url: mqtts:// and wss:// do)"
            }
            Foreign::Http => {
                "it sends HTTP, which its listener does not speak (listener.url: ws:// and wss:// do)"
            }
            Foreign::Proxy => {
                "it sends a PROXY header, and its address is not in listener.proxy_protocol_from"
            }
            Foreign::Mqtt => "it sends MQTT where something else is to come first",
        }
    }

    /// Why that is not TLS, and what would serve it.
    #[must_use]
    pub const fn in_place_of_tls(self) -> &'static str {
        match self {
            Foreign::Tls => "it is another version of it",
            Foreign::Http => "it is HTTP without TLS (listener.url: ws:// serves that)",
            Foreign::Proxy => {
                "it is a PROXY header, and its address is not in listener.proxy_protocol_from"
            }
            Foreign::Mqtt => "it is MQTT without TLS (listener.url: mqtt:// serves that)",
        }
    }

    /// Why that is no request for a WebSocket, and what would serve it.
    #[must_use]
    pub const fn in_place_of_upgrade(self) -> &'static str {
        match self {
            Foreign::Tls => {
                "it sends TLS, which its listener does not speak (listener.url: wss:// does)"
            }
            Foreign::Http => "it sends another request",
            Foreign::Proxy => {
                "it sends a PROXY header, and its address is not in listener.proxy_protocol_from"
            }
            Foreign::Mqtt => {
                "it sends MQTT without a WebSocket (listener.url: mqtt:// serves that)"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_to_the_wrong_port_is_known_by_its_first_bytes() {
        for (stream, wanted) in [
            (&b"\x16\x03\x01\x02\0"[..], Some(Foreign::Tls)),
            (b"GET / HTTP/1.1\r\n", Some(Foreign::Http)),
            (b"PROXY TCP4 ", Some(Foreign::Proxy)),
            (b"\r\n\r\n\0\r\nQUIT\n\x21", Some(Foreign::Proxy)),
            (b"\x10\x0c\0\x04MQTT\x04", Some(Foreign::Mqtt)),
            (b"\x10\xff\xff\x03\0\x06MQIsdp\x03", Some(Foreign::Mqtt)),
            (b"\x10\x0c\0\x04XQTT\x04", None),
            (b"\xC0\0", None),
            (b"GE", None),
            (b"", None),
        ] {
            assert_eq!(Foreign::of(stream), wanted, "{stream:?}");
        }
    }
}
