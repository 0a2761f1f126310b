//! A connection to one upstream over TCP, TLS or HTTPS: opened for the first question, kept as long as it is used, and opened again where
//! it has ended. Questions share it (RFC 7766 §6.2.1.1), and nobody opens a second one meanwhile.

use std::{cell::Cell, net::SocketAddr, rc::Rc};

use hickory_proto::op::{DnsRequest, Message};
use hickory_resolver::net::{
    NetError,
    runtime::{TokioRuntimeProvider, iocompat::AsyncIoTokioAsStd},
    tcp::{TcpClientStream, TcpStream as DnsStream},
    xfer::{DnsExchange, DnsHandle, DnsMultiplexer, FirstAnswer},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Mutex,
    task::{AbortHandle, spawn_local},
    time::{Instant, timeout_at},
};

use super::{
    AskError,
    https::{self, Https},
    tls::Tls,
};
use crate::dns::limits::{DEADLINE, MAX_ASKING, UPSTREAM_IDLE};

/// What is spoken over it.
pub(super) enum Dial {
    Tcp,
    Tls(Tls),
    Https(Tls, Https),
}

pub(super) struct Connection {
    address: SocketAddr,
    dial: Dial,
    /// Locked while one is opened, by the first who needs it.
    state: Mutex<State>,
}

#[derive(Default)]
enum State {
    #[default]
    Closed,
    Open(Rc<Open>),
    /// Those who waited for it meanwhile need not fail once more, one after another.
    Failed {
        at: Instant,
        error: AskError,
    },
}

struct Open {
    sender: Sender,
    /// When it was last asked.
    asked: Rc<Cell<Instant>>,
    /// When it last answered.
    heard: Cell<Instant>,
    /// Nothing more is asked over it.
    given_up: Cell<bool>,
    driver: AbortHandle,
}

enum Sender {
    Dns(DnsExchange<TokioRuntimeProvider>),
    Https(https::Sender),
}

/// Why a question that was sent has no answer.
pub(super) enum AskFault {
    /// The connection is of no use: another may be.
    Connection(AskError),
    /// The answer is of no use, and would not be over another.
    Answer(AskError),
}

impl AskFault {
    pub(super) fn of_answer(why: String) -> Self {
        AskFault::Answer(AskError::Network(why))
    }
}

impl Connection {
    pub(super) fn new(address: SocketAddr, dial: Dial) -> Self {
        Self { address, dial, state: Mutex::default() }
    }

    /// A connection that was kept may have been closed by the other end for being idle: once more over another.
    pub(super) async fn ask(&self, request: &DnsRequest) -> Result<Message, AskError> {
        let begun = Instant::now();
        let mut may_repeat = true;
        loop {
            let (open, is_kept) = self.open(begun).await?;
            open.asked.set(Instant::now());
            match self.ask_over(&open, request).await {
                Ok(message) => {
                    open.heard.set(Instant::now());
                    return Ok(message);
                }
                Err(AskFault::Answer(error)) => return Err(error),
                Err(AskFault::Connection(error)) => {
                    open.given_up.set(true);
                    if !std::mem::replace(&mut may_repeat, false) || !is_kept {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// A question that was asked at `begun` has had no answer. Where nothing else has been heard since, there may be nobody any more: a
    /// connection whose other end has vanished would be kept for as long as the kernel repeats itself.
    pub(super) fn unanswered(&self, begun: Instant) {
        if let Ok(state) = self.state.try_lock()
            && let State::Open(open) = &*state
            && open.heard.get() < begun
        {
            open.given_up.set(true);
        }
    }

    /// Whether it was open already.
    async fn open(&self, begun: Instant) -> Result<(Rc<Open>, bool), AskError> {
        let mut state = self.state.lock().await;
        match &*state {
            State::Open(open) if open.is_of_use() => return Ok((open.clone(), true)),
            State::Failed { at, error } if *at > begun => return Err(error.clone()),
            _ => {}
        }
        match self.dial().await {
            Ok(open) => {
                let open = Rc::new(open);
                *state = State::Open(open.clone());
                Ok((open, false))
            }
            Err(error) => {
                *state = State::Failed { at: Instant::now(), error: error.clone() };
                Err(error)
            }
        }
    }

    async fn dial(&self) -> Result<Open, AskError> {
        let socket = TcpStream::connect(self.address).await.and_then(|socket| socket.set_nodelay(true).map(|()| socket));
        let socket = socket.map_err(|error| AskError::Network(error.to_string()))?;
        match &self.dial {
            Dial::Tcp => Ok(dns(socket, self.address)),
            Dial::Tls(tls) => Ok(dns(tls.connect(socket).await.map_err(AskError::Network)?, self.address)),
            Dial::Https(tls, _) => {
                let stream = tls.connect(socket).await.map_err(AskError::Network)?;
                let (sender, driver) = https::handshake(stream).await.map_err(AskError::Network)?;
                Ok(Open::new(Sender::Https(sender), driver))
            }
        }
    }

    async fn ask_over(&self, open: &Open, request: &DnsRequest) -> Result<Message, AskFault> {
        match (&open.sender, &self.dial) {
            (Sender::Https(sender), Dial::Https(_, https)) => https.ask(sender, request).await,
            (Sender::Dns(exchange), _) => match exchange.send(request.clone()).first_answer().await {
                Ok(response) => Ok(response.into_message()),
                Err(error @ (NetError::Timeout | NetError::Busy)) => Err(AskFault::Answer(error.into())),
                Err(error) => Err(AskFault::Connection(error.into())),
            },
            (Sender::Https(_), _) => Err(AskFault::of_answer("is not asked over HTTPS".to_owned())),
        }
    }
}

/// Messages behind their lengths (RFC 1035 §4.2.2), kept apart by their ids.
fn dns<S>(stream: S, address: SocketAddr) -> Open
where
    S: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
{
    let (stream, messages) = DnsStream::from_stream_with_buffer_size(AsyncIoTokioAsStd(stream), address, MAX_ASKING);
    let multiplexer = DnsMultiplexer::new(TcpClientStream::from_stream(stream), messages);
    let multiplexer = multiplexer.with_timeout(DEADLINE).with_max_active_requests(MAX_ASKING);
    let (exchange, driver) = DnsExchange::from_stream(multiplexer);
    Open::new(Sender::Dns(exchange), driver)
}

impl Open {
    fn new(sender: Sender, connection: impl Future + 'static) -> Self {
        let asked = Rc::new(Cell::new(Instant::now()));
        let driver = spawn_local(drive(connection, asked.clone())).abort_handle();
        Self { sender, asked, heard: Cell::new(Instant::now()), given_up: Cell::new(false), driver }
    }

    fn is_of_use(&self) -> bool {
        !self.given_up.get() && !self.driver.is_finished()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Until it ends, or nothing has been asked over it for a while.
async fn drive(connection: impl Future, asked: Rc<Cell<Instant>>) {
    let mut connection = std::pin::pin!(connection);
    loop {
        let idle = asked.get() + UPSTREAM_IDLE;
        if idle <= Instant::now() || timeout_at(idle, &mut connection).await.is_ok() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use tokio::time::advance;

    use super::*;

    #[test]
    fn a_connection_that_rests_is_closed_and_one_that_ends_is_not_kept() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(tokio::task::LocalSet::new().run_until(async {
            let begun = Instant::now();
            let asked = Rc::new(Cell::new(begun));
            let driven = spawn_local(drive(pending::<()>(), asked.clone()));
            tokio::task::yield_now().await;
            advance(UPSTREAM_IDLE / 2).await;
            asked.set(Instant::now());
            driven.await.unwrap();
            assert_eq!(begun.elapsed().as_secs(), (UPSTREAM_IDLE / 2 + UPSTREAM_IDLE).as_secs());

            let begun = Instant::now();
            drive(tokio::time::sleep(Duration::from_secs(1)), Rc::new(Cell::new(begun))).await;
            assert_eq!(begun.elapsed().as_secs(), 1);
        }));
    }
}
