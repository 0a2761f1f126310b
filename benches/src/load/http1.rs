//! One request after the other over a keep-alive connection (RFC 9112).

use std::{io, net::SocketAddr, rc::Rc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::Run;

const MAX_FIELDS: usize = 64;

/// One connection, opened anew where it breaks, until no request is left.
pub(super) async fn caller(run: Rc<Run>) {
    let mut connection = None;
    while let Some((number, from)) = run.next().await {
        let head = &run.load.heads[number % run.load.heads.len()];
        match exchange(&mut connection, run.load.address, head.as_bytes()).await {
            Ok(reply) => run.answered(from, reply.status),
            Err(_) => {
                connection = None;
                run.failed();
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    closes: bool,
}

async fn exchange(connection: &mut Option<(TcpStream, Vec<u8>)>, address: SocketAddr, head: &[u8]) -> io::Result<Reply> {
    let (stream, octets) = match connection {
        Some(open) => open,
        None => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            connection.insert((stream, Vec::with_capacity(4096)))
        }
    };
    stream.write_all(head).await?;
    loop {
        if let Some((length, reply)) = reply(octets)?
            && octets.len() >= length
        {
            octets.drain(..length);
            if reply.closes {
                *connection = None;
            }
            return Ok(reply);
        }
        if stream.read_buf(octets).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The reply whose head stands in `octets`, and its whole length; `None`: the head is not all there.
pub(crate) fn reply(octets: &[u8]) -> io::Result<Option<(usize, Reply)>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head) = response.parse(octets).map_err(io::Error::other)? else { return Ok(None) };
    let field = |name: &str| response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value);
    let length = field("content-length").and_then(|value| std::str::from_utf8(value).ok()?.parse::<usize>().ok());
    let length = length.ok_or_else(|| io::Error::other("a reply without Content-Length"))?;
    let closes = field("connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
    Ok(Some((head + length, Reply { status: response.code.unwrap_or_default(), closes })))
}
