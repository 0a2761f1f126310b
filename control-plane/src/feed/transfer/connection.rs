//! A connection to a primary: TCP (RFC 7766), or TLS 1.3 over it (RFC 9103). All that comes over it is bounded.

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    TransferError,
    message::{Parts, Question},
    primary::{Primary, Tls},
    tsig::Chain,
};

/// How much a primary may say, and how slowly.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Until the connection stands.
    pub(super) connect: Duration,
    /// Between two messages.
    pub(super) idle: Duration,
    /// For a whole transfer.
    pub(super) total: Duration,
    /// Of a transfer: of its messages, and of its records with their names in full.
    pub(super) octets: u64,
    pub(super) messages: u32,
    /// Octets of the records of an incremental one, which is held in memory; what is longer is transferred whole.
    pub(super) change_octets: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            idle: Duration::from_secs(20),
            total: Duration::from_secs(15 * 60),
            octets: 512 << 20,
            messages: 2_000_000,
            change_octets: 64 << 20,
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub(super) struct Connection<'a> {
    primary: &'a Primary,
    stream: BufReader<Box<dyn Stream>>,
    limits: Limits,
}

impl<'a> Connection<'a> {
    pub(super) async fn open(primary: &'a Primary, limits: Limits) -> Result<Self, TransferError> {
        let connected = async {
            let socket = TcpStream::connect(primary.address).await.map_err(TransferError::Connect)?;
            let stream: Box<dyn Stream> = match &primary.tls {
                None => Box::new(socket),
                Some(tls) => {
                    let connector = TlsConnector::from(Arc::new(client_config(tls)?));
                    Box::new(connector.connect(tls.server_name.clone(), socket).await.map_err(TransferError::Tls)?)
                }
            };
            Ok::<_, TransferError>(BufReader::with_capacity(64 * 1024, stream))
        };
        let stream = timeout(limits.connect, connected).await.map_err(|_| TransferError::Slow(limits.connect))??;
        Ok(Self { primary, stream, limits })
    }

    /// Asks a question, and yields its answer for reading.
    pub(super) async fn ask(&mut self, question: Question, mut query: Vec<u8>) -> Result<Exchange<'_, 'a>, TransferError> {
        let chain = self.primary.tsig.as_ref().map(|key| key.sign(&mut query, now())).transpose()?;
        let length = u16::try_from(query.len()).map_err(io::Error::other)?;
        self.stream.write_all(&[&length.to_be_bytes()[..], &query].concat()).await?;
        self.stream.flush().await?;
        let left = self.limits.octets;
        Ok(Exchange { connection: self, question, chain, messages: 0, left })
    }

    /// Each message behind its length (RFC 1035 §4.2.2).
    async fn message(&mut self, longest: u64) -> Result<Vec<u8>, TransferError> {
        let length = self.stream.read_u16().await.map_err(cut_off)?;
        if u64::from(length) > longest {
            return Err(TransferError::Long(self.limits.octets));
        }
        let mut message = vec![0; length.into()];
        self.stream.read_exact(&mut message).await.map_err(cut_off)?;
        Ok(message)
    }
}

/// One question's answer.
pub(super) struct Exchange<'c, 'a> {
    connection: &'c mut Connection<'a>,
    question: Question,
    chain: Option<Chain>,
    messages: u32,
    /// Octets that may still come.
    left: u64,
}

impl Exchange<'_, '_> {
    /// The next message, verified as far as it can be by then: what was not signed, the next signature covers.
    pub(super) async fn next(&mut self) -> Result<Parts, TransferError> {
        let limits = self.connection.limits;
        if self.messages == limits.messages {
            return Err(TransferError::Many(limits.messages));
        }
        let message = timeout(limits.idle, self.connection.message(self.left)).await.map_err(|_| TransferError::Slow(limits.idle))??;
        self.left -= message.len() as u64;
        let parts = Parts::read(&message)?;
        match &mut self.chain {
            Some(chain) => chain.verify(&message, parts.signature.as_ref(), now())?,
            // Whoever signs what was not asked to be signed does so with a key that we have not got.
            None if parts.signature.is_some() => return Err(TransferError::Signed),
            None => {}
        }
        parts.check(&self.question, self.messages == 0)?;
        self.messages += 1;
        Ok(parts)
    }

    /// After the last message.
    pub(super) fn finish(self) -> Result<(), TransferError> {
        Ok(self.chain.map_or(Ok(()), |chain| chain.finish())?)
    }
}

fn cut_off(error: io::Error) -> TransferError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => TransferError::Cut,
        _ => TransferError::Io(error),
    }
}

/// Seconds since 1970. A clock that is before that is one that no signature agrees with.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// RFC 9103 §7.2: TLS 1.3 and nothing older, and the protocol by its name.
fn client_config(tls: &Tls) -> Result<ClientConfig, TransferError> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(tls.roots())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"dot".to_vec()];
    Ok(config)
}
