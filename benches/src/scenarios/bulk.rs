//! Bytes in bulk, from a source through the program under test: a download that policy has let through and nobody looks at any more.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Plan;
use crate::{
    Error,
    origin::serve,
    peers::{haproxy, ringfence::Installation},
    policy::Issuer,
    report::Report,
    target::Target,
};

/// Downloads under way at a time.
pub(super) const CONNECTIONS: usize = 4;
pub(super) const PIECE: usize = 256 * 1024;
pub(super) const GIB: f64 = (1u64 << 30) as f64;
const ANSWER: Duration = Duration::from_secs(30);

/// Sends as many octets as a connection asks for, in eight octets, big-endian; then ends it.
pub(crate) fn source() -> io::Result<()> {
    serve(|mut stream| async move {
        let mut left = stream.read_u64().await?;
        let piece = vec![0x5a; PIECE];
        while left > 0 {
            let length = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            stream.write_all(&piece[..length]).await?;
            left -= length as u64;
        }
        stream.shutdown().await
    })
}

/// How a program is asked for the source.
#[derive(Clone, Copy)]
enum Way {
    /// It leads there by itself.
    Straight,
    Connect(SocketAddr),
}

pub(super) fn run(plan: Plan, report: &mut Report) -> Result<(), Error> {
    let source = Target::role("source", &["source"])?;
    let relay = Target::relay(source.address)?;
    let dir = tempfile::tempdir().map_err(Error::io("temporary directory"))?;
    let installation = Installation::policy(dir.path(), source.address, &Issuer::generate()?)?;
    let sidecar = installation.outbound()?.start()?;
    let mut programs = vec![(relay, Way::Straight)];
    for splice in [false, true] {
        match haproxy::bulk(dir.path(), source.address, splice)? {
            Some(program) => programs.push((program.start()?, Way::Straight)),
            None => report.leave_out("haproxy is not installed".into()),
        }
    }
    programs.push((sidecar, Way::Connect(source.address)));
    let table = report.table(
        "A download in bulk, 4 connections: CPU of the program under test",
        &["CPU s/GiB", "of the relay's", "GiB/s", "CPU us/connection of 1 octet"],
    );
    for _ in 0..plan.rounds {
        let mut floor = None;
        for (target, way) in &programs {
            let (spent, seconds) = timed(target, || download(target.address, *way, plan.bulk / CONNECTIONS as u64, 1))?;
            let gib = plan.bulk as f64 / GIB;
            let each = spent.as_secs_f64() / gib;
            let floor = *floor.get_or_insert(each);
            let (short, _) = timed(target, || download(target.address, *way, 1, plan.short / CONNECTIONS))?;
            let connection = short.as_secs_f64() * 1e6 / plan.short as f64;
            table.add(&target.name, &[each, each / floor, gib / seconds, connection]);
        }
    }
    Ok(())
}

/// CPU of the program and wall seconds.
pub(super) fn timed(target: &Target, work: impl FnOnce() -> Result<(), Error>) -> Result<(Duration, f64), Error> {
    let (before, started) = (target.cpu()?, Instant::now());
    work()?;
    let seconds = started.elapsed().as_secs_f64();
    Ok((target.cpu()? - before, seconds))
}

/// On each of `CONNECTIONS` threads, `times` connections one after the other, of so many octets each.
fn download(address: SocketAddr, way: Way, octets: u64, times: usize) -> Result<(), Error> {
    let one = || (0..times).try_for_each(|_| pull(address, way, octets));
    let pulled: io::Result<()> = thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(one)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("a download panicked"))))
    });
    pulled.map_err(Error::io("download"))
}

fn pull(address: SocketAddr, way: Way, octets: u64) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_nodelay(true)?;
    if let Way::Connect(to) = way {
        stream.write_all(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes())?;
        established(&mut stream)?;
    }
    stream.write_all(&octets.to_be_bytes())?;
    let (mut piece, mut got) = (vec![0; PIECE], 0);
    loop {
        match stream.read(&mut piece)? {
            0 if got == octets => return Ok(()),
            0 => return Err(io::Error::other(format!("{got} of {octets} octets came"))),
            read => got += read as u64,
        }
    }
}

/// Reads the head of the answer to CONNECT and no more.
fn established(stream: &mut TcpStream) -> io::Result<()> {
    let (mut head, mut octet) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut octet)?;
        head.push(octet[0]);
    }
    if head.starts_with(b"HTTP/1.1 200") { Ok(()) } else { Err(io::Error::other(String::from_utf8_lossy(&head).into_owned())) }
}
