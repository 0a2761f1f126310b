//! Notifications of a primary that its zone has changed (RFC 1996). Taken from the primary's address, or signed with the zone's key; all
//! that one does is that the primary is looked at now. What answers is never longer than what came.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};

use super::{
    connection::now,
    message::{Parts, name},
    primary::Primary,
    task::Shared,
};

/// A notification with a record of the new version and a signature is far shorter.
const MAX_OCTETS: usize = 4096;
/// Connections at a time, each for one notification.
const MAX_CONNECTIONS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(5);
/// After an error of the socket, which might come again at once.
const PAUSE: Duration = Duration::from_millis(100);

/// The zones that there are notifications of.
#[derive(Clone, Debug, Default)]
pub(super) struct Notified(Arc<[Zone]>);

#[derive(Debug)]
struct Zone {
    name: Name,
    primary: Arc<Primary>,
    shared: Arc<Shared>,
}

impl Notified {
    pub(super) fn new(zones: impl Iterator<Item = (Arc<Primary>, Arc<Shared>)>) -> Self {
        // A name that a message cannot hold is in no message.
        Self(zones.filter_map(|(primary, shared)| Some(Zone { name: name(&primary.zone).ok()?, primary, shared })).collect())
    }

    /// Takes a message; yields its answer. `None`: it gets none.
    pub(super) fn take(&self, message: &[u8], from: IpAddr, now: u64) -> Option<Vec<u8>> {
        let parts = Parts::read(message).ok().filter(|parts| parts.header.message_type == MessageType::Query)?;
        let mut answer = Message::response(parts.header.id, parts.header.op_code);
        if parts.header.op_code != OpCode::Notify {
            answer.metadata.response_code = ResponseCode::NotImp;
            return answer.to_vec().ok();
        }
        let [question] = &*parts.questions else {
            answer.metadata.response_code = ResponseCode::FormErr;
            return answer.to_vec().ok();
        };
        answer.add_query(question.clone());
        let mut key = None;
        let mut wished = 0;
        for zone in self.0.iter().filter(|zone| zone.is_meant(question)) {
            match (&parts.signature, &zone.primary.tsig) {
                (Some(signature), Some(tsig)) if tsig.verify_request(message, signature, now).is_ok() => key = Some((tsig, signature)),
                (None, _) if zone.primary.address.ip().to_canonical() == from.to_canonical() => {}
                _ => continue,
            }
            zone.shared.wishes.send_replace(());
            wished += 1;
        }
        match wished {
            // Whether we have such a zone is nobody's business but its primary's.
            0 => answer.metadata.response_code = ResponseCode::Refused,
            _ => answer.metadata.authoritative = true,
        }
        let mut answer = answer.to_vec().ok()?;
        if let Some((key, signature)) = key {
            key.sign_answer(signature, &mut answer, now).ok()?;
        }
        (answer.len() <= message.len()).then_some(answer)
    }
}

impl Zone {
    fn is_meant(&self, question: &Query) -> bool {
        *question.name() == self.name && question.query_type() == RecordType::SOA && question.query_class() == DNSClass::IN
    }
}

/// Tried at most, until one is free for both.
const PORTS: u32 = 16;

pub(super) async fn listen(address: SocketAddr, zones: watch::Receiver<Notified>) -> io::Result<SocketAddr> {
    let (udp, tcp) = bind(address).await?;
    let address = udp.local_addr()?;
    tokio::spawn(datagrams(udp, zones.clone()));
    tokio::spawn(connections(tcp, zones));
    Ok(address)
}

/// One port for both. Where any will do, one that is free for UDP may be taken for TCP: another is asked for then.
async fn bind(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut tries = if address.port() == 0 { PORTS } else { 1 };
    loop {
        let udp = UdpSocket::bind(address).await?;
        tries -= 1;
        match TcpListener::bind(udp.local_addr()?).await {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            Err(error) => return Err(error),
        }
    }
}

async fn datagrams(socket: UdpSocket, zones: watch::Receiver<Notified>) {
    let mut message = vec![0; MAX_OCTETS];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut message).await else {
            sleep(PAUSE).await;
            continue;
        };
        let answer = zones.borrow().take(&message[..length], peer.ip(), now());
        if let Some(answer) = answer {
            // A primary that hears nothing says it again.
            let _ = socket.send_to(&answer, peer).await;
        }
    }
}

async fn connections(listener: TcpListener, zones: watch::Receiver<Notified>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok((stream, peer)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let zones = zones.clone();
        tokio::spawn(async move {
            // One that is slow, or breaks off, has said nothing.
            let _ = timeout(PATIENCE, serve(stream, peer.ip(), &zones)).await;
            drop(place);
        });
    }
}

/// Each message behind its length (RFC 1035 §4.2.2).
async fn serve(mut stream: TcpStream, from: IpAddr, zones: &watch::Receiver<Notified>) -> io::Result<()> {
    let mut message = vec![0; usize::from(stream.read_u16().await?).min(MAX_OCTETS)];
    stream.read_exact(&mut message).await?;
    let answer = zones.borrow().take(&message, from, now());
    if let Some(answer) = answer {
        stream.write_all(&[&(answer.len() as u16).to_be_bytes()[..], &answer].concat()).await?;
        stream.shutdown().await?;
    }
    Ok(())
}
