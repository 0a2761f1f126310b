//! The inbound route without policy, for replaying request corpora: `plain LISTEN UPSTREAM`.

use std::{error::Error, net::SocketAddr, rc::Rc};

use ringfence_proxy::inbound::{
    Inbound, Timeouts, Upstream,
    listener::{self, Drain},
};
use tokio::{sync::watch, task::LocalSet};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(listen), Some(upstream)) = (arguments.next(), arguments.next()) else {
        return Err("usage: plain LISTEN UPSTREAM".into());
    };
    let (listen, upstream): (SocketAddr, SocketAddr) = (listen.parse()?, upstream.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let timeouts = Timeouts::default();
    let upstream = Rc::new(Upstream::new(upstream, timeouts.connect));
    let inbound = Rc::new(Inbound { upstream, tls: None, forward_token: false, timeouts });
    let (_sender, drain) = watch::channel(None);
    let listener = listener::bind(listen)?;
    println!("{}", listener.local_addr()?);
    runtime.block_on(LocalSet::new().run_until(listener::serve(listener, inbound, Drain::new(drain))))?;
    Ok(())
}
