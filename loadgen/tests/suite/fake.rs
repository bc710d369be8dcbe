//! A broker of a few lines that can be told to break its word, over TCP, TLS, WebSocket or WSS.
//!
//! It knows MQTT 3.1.1, exact filters and `prefix/#`, and keeps no order between connections. Each
//! connection has a thread; what others publish reaches it by a channel.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use tungstenite::handshake::server::{Callback, ErrorResponse, Request, Response};
use tungstenite::{Message, WebSocket};

/// What is done to every fifth delivery of a subscriber, or to everybody after the twentieth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    Lose,
    Double,
    Reorder,
    Damage,
    /// Nothing is read or written any more.
    Stop,
    /// All connections end.
    Die,
    /// Several packets in one WebSocket message end the connection.
    Together,
}

/// How packets travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    Tcp,
    Tls,
    WebSocket,
    Wss,
}

/// Certificates for a TLS listener and its clients, as PEM.
pub struct Certificates {
    pub ca: String,
    pub client: String,
    pub client_key: String,
    server: Arc<ServerConfig>,
}

impl Certificates {
    /// A CA, a server `localhost`, a client; the server asks for the client's certificate.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let signed = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            (params.signed_by(&key, &ca).unwrap(), key.serialize_pem())
        };
        let (server, server_key) = signed("localhost");
        let (client, client_key) = signed("client");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots),
            provider.clone(),
        );
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(
                vec![server.der().clone()],
                PrivateKeyDer::from_pem_slice(server_key.as_bytes()).unwrap(),
            )
            .unwrap();
        Certificates {
            ca: ca.pem(),
            client: client.pem(),
            client_key,
            server: Arc::new(config),
        }
    }
}

struct Subscriber {
    filter: String,
    qos: u8,
    outgoing: Sender<Vec<u8>>,
    deliveries: u16,
    held: Option<Vec<u8>>,
}

type Subscribers = Arc<Mutex<Vec<Subscriber>>>;

/// Starts a fake; returns its address.
pub fn start(fault: Fault, wire: Wire, certificates: Option<&Certificates>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let subscribers = Subscribers::default();
    let config = certificates.map(|c| c.server.clone());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (subscribers, config) = (subscribers.clone(), config.clone());
            // A client that is gone ends its thread; that is all there is to it.
            thread::spawn(move || serve(stream, fault, wire, config, &subscribers));
        }
    });
    address
}

/// A stream with or without messages around its bytes.
enum Channel<S: Read + Write> {
    Bytes(S),
    Messages(Box<WebSocket<S>>),
}

impl<S: Read + Write> Channel<S> {
    fn read(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Channel::Bytes(stream) => {
                let mut buffer = [0; 65536];
                match stream.read(&mut buffer) {
                    Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
                    Ok(count) => {
                        into.extend_from_slice(&buffer[..count]);
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
            Channel::Messages(websocket) => match websocket.read() {
                Ok(Message::Binary(bytes)) => {
                    into.extend_from_slice(&bytes);
                    Ok(())
                }
                Ok(_) => Ok(()),
                Err(tungstenite::Error::Io(error)) => Err(error),
                Err(error) => Err(io::Error::other(error)),
            },
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Channel::Bytes(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
            Channel::Messages(websocket) => {
                let message = Message::Binary(bytes.to_vec().into());
                websocket.send(message).map_err(io::Error::other)
            }
        }
    }
}

fn serve(
    stream: TcpStream,
    fault: Fault,
    wire: Wire,
    config: Option<Arc<ServerConfig>>,
    subscribers: &Subscribers,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let timeout = stream.try_clone()?;
    let set_timeout = move || timeout.set_read_timeout(Some(Duration::from_millis(1)));
    if let Some(config) = config.filter(|_| matches!(wire, Wire::Tls | Wire::Wss)) {
        let connection = ServerConnection::new(config).map_err(io::Error::other)?;
        serve_stream(
            StreamOwned::new(connection, stream),
            wire,
            set_timeout,
            fault,
            subscribers,
        )
    } else {
        serve_stream(stream, wire, set_timeout, fault, subscribers)
    }
}

fn serve_stream<S: Read + Write>(
    stream: S,
    wire: Wire,
    set_timeout: impl FnOnce() -> io::Result<()>,
    fault: Fault,
    subscribers: &Subscribers,
) -> io::Result<()> {
    let mut channel = match wire {
        Wire::Tcp | Wire::Tls => Channel::Bytes(stream),
        Wire::WebSocket | Wire::Wss => {
            let accepted = tungstenite::accept_hdr(stream, SpeaksMqtt);
            Channel::Messages(Box::new(
                accepted.map_err(|e| io::Error::other(e.to_string()))?,
            ))
        }
    };
    set_timeout()?;
    let (sender, receiver) = channel_of_packets();
    let mut incoming = Vec::new();
    loop {
        if is_over(fault, subscribers) {
            // The first twenty are on their way, whoever comes first to notice.
            let outgoing: Vec<u8> = receiver.try_iter().flatten().collect();
            channel.write(&outgoing)?;
            if fault == Fault::Die {
                return Ok(());
            }
            loop {
                thread::park();
            }
        }
        match channel.read(&mut incoming) {
            Err(error) if !is_timeout(&error) => return Err(error),
            _ => {}
        }
        let mut outgoing = Vec::new();
        let is_alone = |bytes: &[u8]| {
            let mut rest = bytes.to_vec();
            take_packet(&mut rest).is_some() && rest.is_empty()
        };
        if fault == Fault::Together && !incoming.is_empty() && !is_alone(&incoming) {
            return Err(io::Error::other("several at once"));
        }
        while !is_over(fault, subscribers)
            && let Some(packet) = take_packet(&mut incoming)
        {
            handle(&packet, fault, &sender, subscribers, &mut outgoing);
        }
        outgoing.extend(receiver.try_iter().flatten());
        if !outgoing.is_empty() {
            channel.write(&outgoing)?;
        }
    }
}

/// Whether the fake stops, or dies, now.
fn is_over(fault: Fault, subscribers: &Subscribers) -> bool {
    if !matches!(fault, Fault::Stop | Fault::Die) {
        return false;
    }
    let subscribers = subscribers.lock().unwrap();
    subscribers
        .iter()
        .any(|subscriber| subscriber.deliveries >= 20)
}

/// Agrees to the subprotocol.
struct SpeaksMqtt;

impl Callback for SpeaksMqtt {
    fn on_request(self, _: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
        let mqtt = tungstenite::http::HeaderValue::from_static("mqtt");
        let headers = response.headers_mut();
        headers.insert("Sec-WebSocket-Protocol", mqtt);
        Ok(response)
    }
}

fn channel_of_packets() -> (Sender<Vec<u8>>, Receiver<Vec<u8>>) {
    channel()
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn take_packet(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let (mut length, mut used) = (0, 1);
    loop {
        let byte = *bytes.get(used)?;
        length |= usize::from(byte & 0x7F) << (7 * (used - 1));
        used += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    if bytes.len() < used + length {
        return None;
    }
    let rest = bytes.split_off(used + length);
    let mut packet = std::mem::replace(bytes, rest);
    // The length is not needed any more.
    packet.drain(1..used);
    Some(packet)
}

fn text_at(packet: &[u8], at: usize) -> (String, usize) {
    let length = usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    let text = &packet[at + 2..at + 2 + length];
    (String::from_utf8_lossy(text).into_owned(), at + 2 + length)
}

fn handle(
    packet: &[u8],
    fault: Fault,
    sender: &Sender<Vec<u8>>,
    subscribers: &Subscribers,
    out: &mut Vec<u8>,
) {
    match packet[0] >> 4 {
        1 => out.extend_from_slice(&[0x20, 2, 0, 0]),
        3 => publish(packet, fault, subscribers, out),
        5 => out.extend_from_slice(&[0x62, 2, packet[1], packet[2]]),
        6 => out.extend_from_slice(&[0x70, 2, packet[1], packet[2]]),
        8 => {
            let mut at = 3;
            let mut codes = Vec::new();
            while at < packet.len() {
                let (filter, end) = text_at(packet, at);
                codes.push(packet[end]);
                subscribers.lock().unwrap().push(Subscriber {
                    filter,
                    qos: packet[end],
                    outgoing: sender.clone(),
                    deliveries: 0,
                    held: None,
                });
                at = end + 1;
            }
            out.extend_from_slice(&[0x90, 2 + codes.len() as u8, packet[1], packet[2]]);
            out.extend_from_slice(&codes);
        }
        12 => out.extend_from_slice(&[0xD0, 0]),
        _ => {}
    }
}

fn publish(packet: &[u8], fault: Fault, subscribers: &Subscribers, out: &mut Vec<u8>) {
    let qos = packet[0] >> 1 & 3;
    let (topic, mut at) = text_at(packet, 1);
    if qos > 0 {
        let kind = if qos == 1 { 0x40 } else { 0x50 };
        out.extend_from_slice(&[kind, 2, packet[at], packet[at + 1]]);
        at += 2;
    }
    for subscriber in subscribers.lock().unwrap().iter_mut() {
        let prefix = subscriber.filter.strip_suffix('#');
        if prefix.is_some_and(|prefix| topic.starts_with(prefix)) || subscriber.filter == topic {
            deliver(subscriber, &topic, qos, &packet[at..], fault);
        }
    }
}

fn encode(topic: &str, qos: u8, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = (topic.len() as u16).to_be_bytes().to_vec();
    body.extend_from_slice(topic.as_bytes());
    if qos > 0 {
        body.extend_from_slice(&packet_id.to_be_bytes());
    }
    body.extend_from_slice(payload);
    let mut packet = vec![0x30 | qos << 1];
    let mut length = body.len();
    while length >= 0x80 {
        packet.push(length as u8 | 0x80);
        length >>= 7;
    }
    packet.push(length as u8);
    packet.extend_from_slice(&body);
    packet
}

fn deliver(subscriber: &mut Subscriber, topic: &str, qos: u8, payload: &[u8], fault: Fault) {
    let qos = qos.min(subscriber.qos);
    subscriber.deliveries += 1;
    let nth = subscriber.deliveries;
    let mut bytes = encode(topic, qos, nth, payload);
    let is_fifth = nth.is_multiple_of(5);
    let send = |subscriber: &Subscriber, bytes: Vec<u8>| {
        // A subscriber that is gone gets nothing.
        let _ = subscriber.outgoing.send(bytes);
    };
    match fault {
        Fault::Lose if is_fifth => return,
        Fault::Reorder if is_fifth => {
            subscriber.held = Some(bytes);
            return;
        }
        Fault::Damage if is_fifth => {
            if let Some(last) = bytes.last_mut() {
                *last ^= 1;
            }
        }
        Fault::Double if is_fifth => send(subscriber, bytes.clone()),
        _ => {}
    }
    send(subscriber, bytes);
    if let Some(held) = subscriber.held.take() {
        send(subscriber, held);
    }
}
