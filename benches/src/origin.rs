//! What stands behind the programs under test: as little as answers a GET. The reply's body is the tenant that the request names, so
//! that a check sees what a workload would be told.

use std::{io, rc::Rc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::process::until_stdin_ends;

/// The field that tells a workload whose request it is.
const TENANT: &str = "x-ringfence-tenant";
const MAX_FIELDS: usize = 64;

pub(crate) fn run() -> io::Result<()> {
    serve(|stream| async move { answer(stream).await })
}

/// Listens on a port of the system's choice, tells it on standard output, and serves each connection with `serve_one` until standard
/// input ends, which it does with the process that holds its other end.
pub(crate) fn serve<F>(serve_one: impl Fn(TcpStream) -> F + 'static) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        println!("{}", listener.local_addr()?);
        let (ended, mut end) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            until_stdin_ends();
            let _ = ended.send(());
        });
        let serve_one = Rc::new(serve_one);
        loop {
            let (stream, _) = tokio::select! {
                accepted = listener.accept() => accepted?,
                _ = &mut end => return Ok(()),
            };
            stream.set_nodelay(true)?;
            let serve_one = serve_one.clone();
            // A connection that breaks is its client's to tell.
            tokio::task::spawn_local(async move { serve_one(stream).await });
        }
    })
}

async fn answer(mut stream: TcpStream) -> io::Result<()> {
    let (mut octets, mut replies) = (Vec::with_capacity(4096), Vec::new());
    loop {
        while let Some(head) = reply_to(&octets, &mut replies)? {
            octets.drain(..head);
        }
        if !replies.is_empty() {
            stream.write_all(&replies).await?;
            replies.clear();
        }
        if stream.read_buf(&mut octets).await? == 0 {
            return Ok(());
        }
    }
}

/// Appends the reply to the first request, which has no body, and tells how long its head is; `None`: it is not all there.
fn reply_to(octets: &[u8], replies: &mut Vec<u8>) -> io::Result<Option<usize>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(head) = request.parse(octets).map_err(io::Error::other)? else { return Ok(None) };
    let named: Vec<&[u8]> =
        request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(TENANT)).map(|field| field.value).collect();
    let body = named.join(&b","[..]);
    replies.extend_from_slice(format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
    replies.extend_from_slice(&body);
    Ok(Some(head))
}
