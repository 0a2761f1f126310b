//! The floor: a proxy that looks at nothing. Whatever it costs, anything between two connections costs.

use std::{io, net::SocketAddr};

use tokio::{io::copy_bidirectional, net::TcpStream};

use crate::origin::serve;

pub(crate) fn run(upstream: SocketAddr) -> io::Result<()> {
    serve(move |mut downstream| async move {
        let mut upstream = TcpStream::connect(upstream).await?;
        upstream.set_nodelay(true)?;
        copy_bidirectional(&mut downstream, &mut upstream).await.map(drop)
    })
}
