//! CONNECT (RFC 9110 §9.3.6, RFC 9113 §8.5). The destination is dialled before it is answered, so that whoever may not or cannot go there
//! is told so in a reply. What the tunnel carries is sniffed and decided once more, for the CONNECT said nothing of it.

use std::{io, rc::Rc};

use bytes::Bytes;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use ringfence_policy::{Deny, TenantId};

use super::{Becomes, Downstream, exchange::Exchange, target::Target};
use crate::{
    hop::body::Content,
    outbound::{
        Tunnel, connection,
        decide::{Ask, Protocol},
        flow::Flow,
        stream::Stream,
    },
};

pub(super) async fn connect(
    mut request: Request<Incoming>,
    target: &Target,
    tenant: TenantId,
    downstream: &Rc<Downstream>,
    exchange: &mut Exchange,
) -> Result<Response<Content>, Deny> {
    let outbound = &downstream.outbound;
    let snapshot = outbound.pin()?;
    let ask = Ask { tenant: tenant.clone(), host: target.host.clone(), port: target.port, seen: Protocol::Nothing };
    let decided = outbound.decide(ask, &snapshot).await?;
    let upstream = outbound.dial(&decided, &snapshot).await?;
    let mut flow = Flow::begin(None, outbound);
    flow.asked(&decided.ask);
    flow.allowed(&upstream.destination, decided.shadow.as_ref());
    exchange.continue_elsewhere();
    let opened = Tunnel { host: target.host.clone(), port: target.port, tenant, upstream, flow };
    if request.version() == Version::HTTP_2 {
        let stream = hyper::upgrade::on(&mut request);
        let (downstream, open) = (downstream.clone(), downstream.activity.tunnel());
        tokio::task::spawn_local(async move {
            let _open = open;
            let ended = match stream.await {
                Ok(stream) => tunnel(Stream::Http2(TokioIo::new(stream)), Vec::new(), opened, &downstream).await,
                Err(error) => Err(io::Error::other(error)),
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "tunnel ended");
            }
        });
    } else {
        downstream.becomes.replace(Some(Becomes::Tunnel(opened)));
    }
    Ok(Response::new(Content::Text(Bytes::new())))
}

/// `rest`: what an eager client sent behind its CONNECT, the tunnel's first octets.
pub(super) async fn tunnel(stream: Stream, rest: Vec<u8>, tunnel: Tunnel, downstream: &Downstream) -> io::Result<()> {
    connection::tunnel(stream, rest, tunnel, downstream.outbound.clone(), downstream.drain.clone()).await
}
