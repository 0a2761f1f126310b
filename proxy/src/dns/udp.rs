//! Queries over UDP: what is known is answered from this loop, the rest from a task of its own.

mod datagrams;

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    pin::pin,
    rc::Rc,
    time::Instant,
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    task::{JoinSet, yield_now},
    time::sleep,
};

use super::{Dns, Pending, Step, answer::Transport, exchange::Exchange, limits::MAX_WAITING, listener::SCARCE};
use crate::listeners::Drain;
use datagrams::{Inbox, Outbox};

/// Answers until `drain` begins, and then what was asked before.
///
/// Must run in a `LocalRuntime` or a `LocalSet`.
pub(super) async fn serve(socket: UdpSocket, listener: SocketAddr, dns: Rc<Dns>, mut drain: Drain) -> io::Result<()> {
    // Not as tokio's own socket, which would be told after each answer that there is room for another: nobody waits for that.
    #[expect(
        deprecated,
        reason = "for descriptors that may be closed while registered: a UdpSocket owns its own, and the new form is unsafe"
    )]
    let socket = Rc::new(AsyncFd::with_interest(socket, Interest::READABLE)?);
    let mut waiting = JoinSet::new();
    let (mut inbox, mut outbox) = (Inbox::new(), Outbox::default());
    let mut cut = drain.clone();
    let mut begun = pin!(drain.begun());
    loop {
        tokio::select! {
            biased;
            () = &mut begun => break,
            Some(_) = waiting.join_next(), if !waiting.is_empty() => continue,
            ready = socket.readable() => drop(ready?),
        }
        match inbox.receive(&socket) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => {
                // What ICMP says of an answer sent before concerns nobody else; memory comes back.
                if is_scarcity(&error) {
                    sleep(SCARCE).await;
                }
                continue;
            }
        }
        let begun = Instant::now();
        for (packet, peer) in inbox.datagrams() {
            // Nobody can be reached there: the sender's address is made up.
            if peer.port() == 0 {
                continue;
            }
            let exchange = Exchange { listener, client: peer.ip(), transport: Transport::Udp, begun };
            match outbox.add(peer, |out| dns.begin(packet, exchange, out)) {
                Step::Done => {}
                // More than that wait already for answers.
                Step::Wait(_) if waiting.len() >= MAX_WAITING => {}
                Step::Wait(pending) => {
                    waiting.spawn_local(finish(pending, peer, socket.clone(), dns.clone()));
                }
            }
        }
        outbox.send(socket.get_ref());
        if inbox.is_full() {
            yield_now().await;
        }
    }
    tokio::select! {
        () = cut.cut() => {}
        () = async { while waiting.join_next().await.is_some() {} } => {}
    }
    Ok(())
}

async fn finish(pending: Box<Pending>, peer: SocketAddr, socket: Rc<AsyncFd<UdpSocket>>, dns: Rc<Dns>) {
    let mut answer = Vec::new();
    dns.finish(*pending, &mut answer).await;
    if !answer.is_empty() {
        // A full socket drops it, as it does those of a batch.
        let _ = socket.get_ref().send_to(&answer, peer);
    }
}

fn is_scarcity(error: &io::Error) -> bool {
    let scarce = [rustix::io::Errno::NOMEM, rustix::io::Errno::NOBUFS].map(|errno| errno.raw_os_error());
    error.raw_os_error().is_some_and(|code| scarce.contains(&code))
}
