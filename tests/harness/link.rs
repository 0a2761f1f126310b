//! The network between a sidecar and its control plane, as a relay that may lead elsewhere, stand still, or lose a connection without a word.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
    sync::watch,
};

use crate::http::{RUNTIME, block_on};

pub struct Link {
    /// Where the sidecar is to connect.
    pub address: SocketAddr,
    to: Arc<Mutex<SocketAddr>>,
    state: watch::Sender<State>,
}

/// Of all connections there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    /// Not one octet passes, either way, and nobody is told.
    partitioned: bool,
    /// Connections of earlier ones are no more.
    generation: u64,
}

impl Link {
    pub fn new(to: SocketAddr) -> Self {
        let listener = block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (to, state) = (Arc::new(Mutex::new(to)), watch::Sender::new(State::default()));
        let (next, states) = (to.clone(), state.subscribe());
        RUNTIME.spawn(async move {
            while let Ok((sidecar, _)) = listener.accept().await {
                let to = *next.lock().unwrap();
                tokio::spawn(relay(sidecar, to, states.clone()));
            }
        });
        Self { address, to, state }
    }

    /// Ends all connections; the next lead to `to`.
    pub fn lead_to(&self, to: SocketAddr) {
        *self.to.lock().unwrap() = to;
        self.state.send_modify(|state| state.generation += 1);
    }

    pub fn partition(&self) {
        self.state.send_modify(|state| state.partitioned = true);
    }

    pub fn heal(&self) {
        self.state.send_modify(|state| state.partitioned = false);
    }
}

async fn relay(sidecar: TcpStream, to: SocketAddr, states: watch::Receiver<State>) {
    let generation = states.borrow().generation;
    let both = async {
        passable(states.clone()).await;
        let Ok(control_plane) = TcpStream::connect(to).await else { return };
        let ((from_sidecar, to_sidecar), (from_plane, to_plane)) = (sidecar.into_split(), control_plane.into_split());
        tokio::select! {
            () = pass(from_sidecar, to_plane, states.clone()) => {}
            () = pass(from_plane, to_sidecar, states.clone()) => {}
        }
    };
    let mut ended = states.clone();
    tokio::select! {
        () = both => {}
        _ = ended.wait_for(|state| state.generation != generation) => {}
    }
}

async fn pass(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, states: watch::Receiver<State>) {
    let mut octets = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut octets).await;
        passable(states.clone()).await;
        match read {
            Ok(read @ 1..) if to.write_all(&octets[..read]).await.is_ok() => {}
            _ => return,
        }
    }
}

async fn passable(mut states: watch::Receiver<State>) {
    // Without a sender there is no test any more.
    let _ = states.wait_for(|state| !state.partitioned).await;
}
