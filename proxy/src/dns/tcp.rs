//! Queries over TCP: many on one connection, answered as their answers come (RFC 7766).

use std::{io, net::SocketAddr, pin::pin, rc::Rc};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};

use super::{
    Dns, Pending, Step,
    answer::Transport,
    exchange::Exchange,
    limits::{MAX_CONNECTIONS, MAX_PIPELINED, TCP_IDLE},
};
use crate::listeners::Drain;

/// Octets of the length before each message (RFC 1035 §4.2.2).
const PREFIX: usize = 2;
/// Octets of answers that are written before further queries are looked at.
const ENOUGH: usize = 64 * 1024;
/// Octets of each buffer that a connection keeps.
const KEPT: usize = 4096;

/// Serves one connection until the client has closed it or `drain` turns it away, and it has its answers, or it is idle.
pub(super) async fn serve(mut stream: TcpStream, peer: SocketAddr, listener: SocketAddr, dns: Rc<Dns>, mut drain: Drain) -> io::Result<()> {
    let Some(_open) = Open::new(&dns) else { return Ok(()) };
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = stream.split();
    let (mut received, mut answers) = (Vec::new(), Vec::new());
    let mut waiting = FuturesUnordered::new();
    let mut turned_away = pin!(drain.turns_away());
    let mut idle_at = Instant::now() + TCP_IDLE;
    let mut is_open = true;
    loop {
        let mut taken = 0;
        while let Some(packet) = message(&received[taken..])
            && waiting.len() < MAX_PIPELINED
            && answers.len() < ENOUGH
        {
            taken += PREFIX + packet.len();
            let exchange = Exchange { listener, client: peer.ip(), transport: Transport::Tcp, begun: std::time::Instant::now() };
            if let Step::Wait(pending) = framed(&mut answers, |out| dns.begin(packet, exchange, out)) {
                waiting.push(finish(pending, &dns));
            }
        }
        received.drain(..taken);
        if taken > 0 {
            received.shrink_to(KEPT);
            idle_at = Instant::now() + TCP_IDLE;
        }
        if !answers.is_empty() {
            timeout(TCP_IDLE, writer.write_all(&answers)).await??;
            answers.clear();
            answers.shrink_to(KEPT);
        }
        let has_room = waiting.len() < MAX_PIPELINED;
        if has_room && message(&received).is_some() {
            continue;
        }
        if !is_open && waiting.is_empty() {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = &mut turned_away, if is_open => is_open = false,
            Some(answer) = waiting.next(), if !waiting.is_empty() => answers.extend_from_slice(&answer),
            read = reader.read_buf(&mut received), if is_open && has_room => is_open = read? > 0,
            // A query that does not become whole is as good as none.
            () = sleep_until(idle_at), if waiting.is_empty() => return Ok(()),
        }
    }
}

/// A place among the connections of this thread.
struct Open<'a>(&'a Dns);

impl<'a> Open<'a> {
    fn new(dns: &'a Dns) -> Option<Self> {
        let open = dns.connections.get();
        (open < MAX_CONNECTIONS).then(|| {
            dns.connections.set(open + 1);
            Self(dns)
        })
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.connections.update(|open| open - 1);
    }
}

async fn finish(pending: Box<Pending>, dns: &Dns) -> Vec<u8> {
    let mut out = vec![0; PREFIX];
    dns.finish(*pending, &mut out).await;
    if out.len() == PREFIX {
        return Vec::new();
    }
    set_length(&mut out, 0);
    out
}

/// The first message in `received`, once it is whole.
fn message(received: &[u8]) -> Option<&[u8]> {
    let (length, rest) = received.split_first_chunk::<PREFIX>()?;
    rest.get(..u16::from_be_bytes(*length).into())
}

/// Appends what `write` does with its length before it, or nothing where it does nothing.
fn framed<T>(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX]);
    let written = write(out);
    if out.len() == start + PREFIX {
        out.truncate(start);
    } else {
        set_length(out, start);
    }
    written
}

fn set_length(out: &mut [u8], start: usize) {
    // An answer is cut to what its length can tell.
    let length = (out.len() - start - PREFIX) as u16;
    out[start..start + PREFIX].copy_from_slice(&length.to_be_bytes());
}
