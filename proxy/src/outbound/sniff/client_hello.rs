//! The ClientHello: put together from its records, and read for the name that it says.
//!
//! A walk of our own: rustls shows a ClientHello without the extensions that it does not know (Encrypted Client Hello, a second server_name
//! of another type), and parsers of single messages leave records, exact lengths and duplicates to their caller.

use ringfence_policy::{Deny, Reason, host::HostName};

use super::{Sniffed, Verdict, malformed};

/// The content type of a handshake record (RFC 8446 §5.1).
pub(super) const HANDSHAKE: u8 = 22;

/// Octets of a ClientHello, its header included. Real ones take 200 to 2,500, the largest post-quantum key shares in use 1,600 of them;
/// BoringSSL takes no more than this either.
pub(super) const MAX_HELLO: usize = 16 * 1024;

/// Octets of a record's fragment (RFC 8446 §5.1).
const MAX_FRAGMENT: u16 = 1 << 14;

/// Extensions that a ClientHello has at most, as browsers and libraries write them; more cost another allocation.
const USUAL_EXTENSIONS: usize = 24;

const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;

/// What a ClientHello says openly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    pub name: Name,
}

/// The server's name. Where no rule needs it, a hidden one does no harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    Open(HostName),
    /// [`Reason::EgressNameHidden`]: none, several, no DNS name, or one that Encrypted Client Hello makes a cover.
    Hidden(Deny),
}

/// A handshake on its way in.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    /// Octets of the connection that were taken.
    at: usize,
    /// Octets of the record at hand that are still to come.
    left: usize,
    /// The handshake message without the records around it.
    message: Vec<u8>,
}

impl Handshake {
    pub(super) fn look(&mut self, bytes: &[u8]) -> Verdict {
        match self.advance(bytes) {
            Ok(None) => Verdict::More,
            Ok(Some(hello)) => Verdict::Is(Sniffed::Tls(hello)),
            Err(what) => malformed(what),
        }
    }

    fn advance(&mut self, bytes: &[u8]) -> Result<Option<ClientHello>, &'static str> {
        loop {
            let rest = bytes.get(self.at..).unwrap_or_default();
            if self.left == 0 {
                let Some(length) = record(rest)? else { return Ok(None) };
                self.left = length;
                self.at += RECORD_HEADER;
                continue;
            }
            let wanted = self.left.min(missing(&self.message)?);
            let Some(taken) = rest.get(..wanted.min(rest.len())).filter(|taken| !taken.is_empty()) else { return Ok(None) };
            self.message.extend_from_slice(taken);
            self.at += taken.len();
            self.left -= taken.len();
            if missing(&self.message)? == 0 {
                if self.left > 0 {
                    return Err("a ClientHello must end with its record");
                }
                let body = self.message.get(MESSAGE_HEADER..).unwrap_or_default();
                return client_hello(body).map(Some);
            }
        }
    }
}

/// The length of the record that begins here, once its header is whole.
fn record(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    let mut header = Reader(bytes);
    if header.u8().is_some_and(|kind| kind != HANDSHAKE) {
        return Err("a ClientHello must not be interrupted by other records");
    }
    if header.u8().is_some_and(|major| major != 3) {
        return Err("a record's version must be 3.x");
    }
    let (_minor, length) = (header.u8(), header.u16());
    match length {
        None => Ok(None),
        Some(1..=MAX_FRAGMENT) => Ok(length.map(usize::from)),
        Some(_) => Err("a record must hold 1 to 16,384 octets"),
    }
}

/// How many octets `message` lacks: of its header first, then of its body.
fn missing(message: &[u8]) -> Result<usize, &'static str> {
    let mut header = Reader(message);
    if header.u8().is_some_and(|kind| kind != 1) {
        return Err("the first handshake message must be a ClientHello");
    }
    let Some(length) = header.u24() else { return Ok(MESSAGE_HEADER - message.len()) };
    let whole = MESSAGE_HEADER + length;
    if whole > MAX_HELLO {
        return Err("a ClientHello must have at most 16 KiB");
    }
    Ok(whole.saturating_sub(message.len()))
}

/// RFC 8446 §4.1.2, RFC 5246 §7.4.1.2. Every vector must end where its length says, and hold nothing besides what it should.
fn client_hello(body: &[u8]) -> Result<ClientHello, &'static str> {
    const SHORT: &str = "the ClientHello's lengths do not agree with each other";
    let mut body = Reader(body);
    if body.u16().ok_or(SHORT)? >> 8 != 3 {
        return Err("the ClientHello's version must be 3.x");
    }
    let _random = body.take(32).ok_or(SHORT)?;
    if body.vector8().ok_or(SHORT)?.len() > 32 {
        return Err("the ClientHello's session ID must have at most 32 octets");
    }
    let ciphers = body.vector16().ok_or(SHORT)?;
    if ciphers.is_empty() || ciphers.len() % 2 != 0 {
        return Err("the ClientHello's cipher suites must be whole and one at least");
    }
    if body.vector8().ok_or(SHORT)?.is_empty() {
        return Err("the ClientHello must offer a compression method");
    }
    // TLS 1.2 and older may go without.
    let extensions = if body.is_empty() { &[] } else { body.vector16().ok_or(SHORT)? };
    if !body.is_empty() {
        return Err("nothing may follow a ClientHello's extensions");
    }

    let (mut kinds, mut server_name, mut is_encrypted) = (Vec::with_capacity(USUAL_EXTENSIONS), None, false);
    let mut extensions = Reader(extensions);
    while !extensions.is_empty() {
        let (kind, data) = extensions.u16().zip(extensions.vector16()).ok_or(SHORT)?;
        match kind {
            extension::SERVER_NAME => server_name = Some(data),
            extension::ESNI | extension::ECH_FIRST..=extension::ECH | extension::ECH_OUTER => is_encrypted = true,
            _ => {}
        }
        kinds.push(kind);
    }
    kinds.sort_unstable();
    if kinds.windows(2).any(|pair| pair.first() == pair.last()) {
        return Err("no extension of a ClientHello may stand twice");
    }

    let open = server_name.map(host_name).transpose()?;
    let name = match open {
        // Of the two names that an encrypted hello has, this is the cover. GREASE ECH is refused as well: that nobody on the way can tell
        // it from the real thing is what it is for (RFC 9849 §6.2).
        _ if is_encrypted => Err("Encrypted Client Hello hides the server's name"),
        Some(open) => open,
        None => Err("the ClientHello names no server"),
    };
    Ok(ClientHello { name: name.map_or_else(|why| Name::Hidden(Deny::new(Reason::EgressNameHidden, why)), Name::Open) })
}

/// The one name of a server_name extension (RFC 6066 §3). Outer error: malformed. Inner: sound, and no name that could be used.
fn host_name(extension: &[u8]) -> Result<Result<HostName, &'static str>, &'static str> {
    const SHORT: &str = "the server_name extension's lengths do not agree with each other";
    const DNS: u8 = 0;
    let mut extension = Reader(extension);
    let mut list = Reader(extension.vector16().ok_or(SHORT)?);
    if list.is_empty() || !extension.is_empty() {
        return Err(SHORT);
    }
    let (kind, name) = list.u8().zip(list.vector16()).ok_or(SHORT)?;
    let mut is_single = true;
    while !list.is_empty() {
        list.u8().zip(list.vector16()).ok_or(SHORT)?;
        is_single = false;
    }
    if !is_single || kind != DNS {
        return Ok(Err("the ClientHello must name one server, by its DNS name"));
    }
    // One spelling only: HostName would take the root's dot, the RFC does not.
    let name = std::str::from_utf8(name).ok().filter(|name| !name.ends_with('.')).and_then(|name| name.parse().ok());
    Ok(name.ok_or("the ClientHello's server name must be a DNS name without a dot at its end"))
}

mod extension {
    pub(super) const SERVER_NAME: u16 = 0;
    /// Encrypted SNI (draft-ietf-tls-esni-01 to 06).
    pub(super) const ESNI: u16 = 0xffce;
    /// Encrypted Client Hello from draft 08 on.
    pub(super) const ECH_FIRST: u16 = 0xfe08;
    /// As published (RFC 9849 §11.1).
    pub(super) const ECH: u16 = 0xfe0d;
    /// ech_outer_extensions: belongs inside an encrypted hello.
    pub(super) const ECH_OUTER: u16 = 0xfd00;
}

/// Takes from the front, big-endian; `None` and nothing sensible left where there is too little.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u24(&mut self) -> Option<usize> {
        self.array().map(|[high, middle, low]| usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low))
    }

    /// A vector behind a length of one octet.
    fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(length.into())
    }

    /// A vector behind a length of two octets.
    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }
}
