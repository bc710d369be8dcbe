//! What lies under MQTT: PROXY header and WebSocket. The same bytes say the same whether they come at once
//! or one by one, and what is kept and sent stays bounded by what came.

use ringmq::engine::outbox::outgoing::Outgoing;
use ringmq::shard::peer::Peer;
use ringmq::shard::transport::setup::{TransportSetup, TrustedProxies, WebSocketSetup};
use ringmq::shard::transport::{Arrival, Layers};
use std::net::SocketAddr;
use std::sync::Arc;

/// What a peer sees and MQTT gets.
#[derive(Debug, PartialEq)]
struct Seen {
    mqtt: Vec<u8>,
    wire: Vec<u8>,
    peer: Peer,
    is_over: bool,
}

/// First byte: which layers; then what the peer sends, a WebSocket upgrade put before it if so chosen.
pub fn layers(input: &[u8]) {
    let Some((choice, bytes)) = input.split_first() else {
        return;
    };
    let (has_proxy, has_websocket) = (choice & 1 != 0, choice & 2 != 0);
    let mut stream = Vec::new();
    if has_websocket && choice & 4 != 0 {
        if has_proxy {
            stream.extend_from_slice(b"PROXY TCP4 10.0.0.7 127.0.0.1 4660 1883\r\n");
        }
        stream.extend_from_slice(
            b"GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
              Sec-WebSocket-Protocol: mqtt\r\nX-Forwarded-For: 10.0.0.9\r\n\r\n",
        );
    }
    // An upgrade request ends the bytes that may come with it.
    let upgrade_bytes = stream.len();
    stream.extend_from_slice(bytes);
    let peer = Peer::internet(SocketAddr::from(([127, 0, 0, 1], 5)));
    let setup = setup(has_proxy, has_websocket);
    let whole = run(
        &setup,
        peer,
        [&stream[..upgrade_bytes], &stream[upgrade_bytes..]].into_iter(),
    );
    let in_bytes = run(&setup, peer, stream.chunks(1));
    if has_websocket && upgrade_bytes == 0 {
        // Whatever follows the request at once is refused, and is taken later.
        return;
    }
    assert_eq!(whole, in_bytes);
    assert!(whole.mqtt.len() <= stream.len(), "more than came");
    assert!(
        whole.wire.len() <= 1024 + 64 * stream.len(),
        "an endless answer"
    );
}

fn setup(has_proxy: bool, has_websocket: bool) -> TransportSetup {
    let everybody = || vec!["127.0.0.0/8".parse().expect("a network")];
    let websocket = has_websocket.then(|| {
        Arc::new(WebSocketSetup {
            path: Some("/mqtt".into()),
            origins: Vec::new(),
        })
    });
    TransportSetup {
        tls: None,
        websocket,
        proxies: Arc::new(TrustedProxies {
            header_from: if has_proxy { everybody() } else { Vec::new() },
            forwarded_from: everybody(),
            real_ip_from: Vec::new(),
        }),
    }
}

fn run<'a>(setup: &TransportSetup, peer: Peer, chunks: impl Iterator<Item = &'a [u8]>) -> Seen {
    let mut seen = Seen {
        mqtt: Vec::new(),
        wire: Vec::new(),
        peer,
        is_over: false,
    };
    let layers = Layers::new(setup, peer).expect("no TLS");
    let Some(mut layers) = layers else {
        chunks.for_each(|chunk| seen.mqtt.extend_from_slice(chunk));
        return seen;
    };
    for chunk in chunks.filter(|chunk| !chunk.is_empty()) {
        let arrival = layers.receive(chunk, &mut seen.mqtt);
        seen.wire.extend(layers.take_wire().into_iter().flatten());
        if arrival != Ok(Arrival::Open) {
            seen.is_over = true;
            break;
        }
    }
    layers.send(&Outgoing::from(b"\xd0\0".to_vec()));
    layers.close();
    seen.wire.extend(layers.take_wire().into_iter().flatten());
    seen.peer = layers.peer();
    seen
}
