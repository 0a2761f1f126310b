//! What the names lead to. It plays the server of a TLS connection as far as a proxy can tell one: it answers a ClientHello, and then sends
//! what it is asked for. Nothing is encrypted, for what that costs is the two ends'.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::origin::serve;

/// What a ClientHello is answered with.
pub(crate) const ANSWER: u8 = 0x16;
/// Type, version and length of a TLS record (RFC 8446 §5.1).
const RECORD: usize = 5;
const PIECE: usize = 256 * 1024;

pub(crate) fn run() -> io::Result<()> {
    serve(answer)
}

/// A ClientHello in one record is answered with one octet; after it, each eight octets (big-endian) with as many as they say.
async fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut head = [0; RECORD];
    stream.read_exact(&mut head).await?;
    let mut hello = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    stream.read_exact(&mut hello).await?;
    stream.write_u8(ANSWER).await?;
    loop {
        let mut left = stream.read_u64().await?;
        let piece = vec![0x5a; PIECE];
        while left > 0 {
            let length = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            stream.write_all(&piece[..length]).await?;
            left -= length as u64;
        }
    }
}
