//! A ClientHello that offers whatever a test wants, and what comes back in the clear. Nothing here encrypts: a server shows with its own
//! hello what it has agreed to (RFC 5246 §7.4.1, RFC 8446 §4.1).

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
};

use ringfence_tests::DEADLINE;

pub(super) const TLS12: u16 = 0x0303;
pub(super) const TLS13: u16 = 0x0304;

const HANDSHAKE: u8 = 22;
const ALERT: u8 = 21;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;

const SUPPORTED_GROUPS: u16 = 10;
const SIGNATURE_ALGORITHMS: u16 = 13;
pub(super) const SUPPORTED_VERSIONS: u16 = 43;
const KEY_SHARE: u16 = 51;

#[derive(Clone, Debug)]
pub(super) struct Hello {
    /// `legacy_version`.
    pub(super) version: u16,
    /// `supported_versions`; empty: none, as before TLS 1.3.
    pub(super) versions: Vec<u16>,
    pub(super) session_id: Vec<u8>,
    pub(super) suites: Vec<u16>,
    pub(super) compressions: Vec<u8>,
    pub(super) groups: Vec<u16>,
    pub(super) schemes: Vec<u16>,
    /// Extensions besides those that follow from the above.
    pub(super) more: Vec<(u16, Vec<u8>)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Hello(ServerHello),
    /// By its description (RFC 8446 §6).
    Alert(u8),
    Closed,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServerHello {
    pub(super) version: u16,
    pub(super) random: [u8; 32],
    pub(super) session_id: Vec<u8>,
    pub(super) suite: u16,
    pub(super) compression: u8,
    /// Types, in the server's order.
    pub(super) extensions: Vec<u16>,
}

impl Hello {
    /// Sends it on a connection of its own.
    pub(super) fn ask(&self, address: SocketAddr) -> Answer {
        exchange(address, &self.record())
    }

    fn record(&self) -> Vec<u8> {
        let mut extensions = self.more.clone();
        extensions.push((SUPPORTED_GROUPS, sized16(&words(&self.groups))));
        extensions.push((SIGNATURE_ALGORITHMS, sized16(&words(&self.schemes))));
        if !self.versions.is_empty() {
            extensions.push((SUPPORTED_VERSIONS, sized8(&words(&self.versions))));
            // No share: the server says in a HelloRetryRequest which group it wants one of (RFC 8446 §4.2.8).
            extensions.push((KEY_SHARE, sized16(&[])));
        }
        let extensions: Vec<u8> = extensions.iter().flat_map(|(kind, data)| [&kind.to_be_bytes()[..], &sized16(data)].concat()).collect();
        let body = [
            &self.version.to_be_bytes()[..],
            &[7; 32],
            &sized8(&self.session_id),
            &sized16(&words(&self.suites)),
            &sized8(&self.compressions),
            &sized16(&extensions),
        ]
        .concat();
        let message = [&[CLIENT_HELLO, 0][..], &sized16(&body)].concat();
        [&[HANDSHAKE, 3, 1][..], &sized16(&message)].concat()
    }
}

/// What a server answers to these octets.
pub(super) fn exchange(address: SocketAddr, octets: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    // Whoever has refused already need not take the rest.
    let _ = stream.write_all(octets);
    match answer(&mut stream) {
        Ok(answer) => answer,
        Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => Answer::Closed,
        Err(error) => panic!("{error}"),
    }
}

fn answer(stream: &mut TcpStream) -> io::Result<Answer> {
    let mut handshake = Vec::new();
    loop {
        let mut header = [0; 5];
        stream.read_exact(&mut header)?;
        let mut content = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
        stream.read_exact(&mut content)?;
        match header[0] {
            ALERT => return Ok(Answer::Alert(content[1])),
            HANDSHAKE => handshake.extend(content),
            other => panic!("a record of type {other}"),
        }
        if let [kind, high, middle, low, rest @ ..] = &handshake[..]
            && let Some(body) = rest.get(..usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low))
        {
            assert_eq!(*kind, SERVER_HELLO);
            return Ok(Answer::Hello(ServerHello::of(body)));
        }
    }
}

impl ServerHello {
    fn of(body: &[u8]) -> Self {
        let word = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
        let session = usize::from(body[34]);
        let suite = 35 + session;
        let mut hello = Self {
            version: word(0),
            random: body[2..34].try_into().unwrap(),
            session_id: body[35..suite].to_vec(),
            suite: word(suite),
            compression: body[suite + 2],
            extensions: Vec::new(),
        };
        let mut at = suite + 5;
        while at < body.len() {
            if word(at) == SUPPORTED_VERSIONS {
                hello.version = word(at + 4);
            }
            hello.extensions.push(word(at));
            at += 4 + usize::from(word(at + 2));
        }
        hello
    }
}

fn words(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

fn sized8(octets: &[u8]) -> Vec<u8> {
    [&[u8::try_from(octets.len()).unwrap()], octets].concat()
}

fn sized16(octets: &[u8]) -> Vec<u8> {
    [&u16::try_from(octets.len()).unwrap().to_be_bytes()[..], octets].concat()
}
