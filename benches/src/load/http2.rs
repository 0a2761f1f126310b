//! Requests over one HTTP/2 connection with prior knowledge (RFC 9113 §3.3), several at a time.

use std::{io, rc::Rc};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use hyper::{
    client::conn::http2::{SendRequest, handshake},
    rt::Executor,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::spawn_local};

use super::Run;

/// Runs hyper's tasks on this thread.
#[derive(Clone)]
struct Local;

impl<F: Future + 'static> Executor<F> for Local {
    fn execute(&self, task: F) {
        spawn_local(async move { drop(task.await) });
    }
}

/// One connection with so many requests under way, until none is left. A connection that breaks fails all that would have gone over it.
pub(super) async fn connection(run: Rc<Run>, streams: usize) {
    let sender = match connect(&run).await {
        Ok(sender) => sender,
        Err(_) => return run.failed(),
    };
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..streams {
        callers.spawn_local(caller(run.clone(), sender.clone()));
    }
    callers.join_all().await;
}

async fn connect(run: &Run) -> io::Result<SendRequest<Empty<Bytes>>> {
    let stream = TcpStream::connect(run.load.address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(Local, TokioIo::new(stream)).await.map_err(io::Error::other)?;
    spawn_local(async move { drop(connection.await) });
    Ok(sender)
}

async fn caller(run: Rc<Run>, mut sender: SendRequest<Empty<Bytes>>) {
    while let Some((number, from)) = run.next().await {
        match exchange(&mut sender, &run.load.heads[number % run.load.heads.len()]).await {
            Ok(status) => run.answered(from, status),
            Err(_) => run.failed(),
        }
    }
}

async fn exchange(sender: &mut SendRequest<Empty<Bytes>>, head: &str) -> io::Result<u16> {
    let request = request(head)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = response.status().as_u16();
    response.into_body().collect().await.map_err(io::Error::other)?;
    Ok(status)
}

/// The same request as the head says, with `Host` as its authority.
fn request(head: &str) -> io::Result<Request<Empty<Bytes>>> {
    let malformed = || io::Error::other(format!("no request: {head:?}"));
    let mut lines = head.split_terminator("\r\n");
    let path = lines.next().and_then(|line| line.split(' ').nth(1)).ok_or_else(malformed)?;
    let fields: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(": ")).collect();
    let host = fields.iter().find(|(name, _)| *name == "Host").ok_or_else(malformed)?.1;
    let request = Request::builder().method(Method::GET).uri(format!("http://{host}{path}"));
    let others = fields.into_iter().filter(|(name, _)| *name != "Host");
    let request = others.fold(request, |request, (name, value)| request.header(name, value));
    request.body(Empty::new()).map_err(io::Error::other)
}
