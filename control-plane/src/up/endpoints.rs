//! What `up` prints once all is in force: where each sidecar listens, and lines to paste.

use std::{io, net::SocketAddr, path::Path, sync::Arc};

use serde::Deserialize;
use tokio::net::UnixStream;

use super::sidecar::Paths;
use crate::{
    admin,
    say::say,
    spec::{Object, Spec},
};

/// The part of a sidecar's `/config` that is read here.
#[derive(Debug, Deserialize)]
struct InForce {
    listeners: Vec<Listener>,
}

/// `listen` as configured, `address` as bound: they differ where port 0 was asked for.
#[derive(Debug, Deserialize)]
struct Listener {
    route: String,
    listen: SocketAddr,
    address: SocketAddr,
}

pub(super) async fn print<'a>(dir: &Path, workloads: impl Iterator<Item = &'a Arc<Object>>, paths: impl Fn(&str) -> Option<&'a Paths>) {
    let mut first = None;
    for object in workloads {
        let Spec::Workload(spec) = &object.spec else { continue };
        let name = &object.key.name;
        let Some(paths) = paths(name) else { continue };
        let mut bound = match bound(&paths.admin).await {
            Ok(bound) => bound,
            Err(error) => {
                say(format_args!("{name}: its admin socket does not answer: {error}"));
                Vec::new()
            }
        };
        let whose = match (&spec.tenant, &spec.tenants) {
            (Some(tenant), _) => format!("tenant {tenant}"),
            (None, Some(tenants)) => format!("tenants {}", tenants.join(", ")),
            (None, None) => String::new(),
        };
        for inbound in &spec.inbound {
            let listen = inbound.listen.parse().ok();
            // Taken out: several may ask for port 0 of one address.
            let position = bound.iter().position(|listener| listener.route == "inbound" && Some(listener.listen) == listen);
            let address = position.map(|position| bound.remove(position).address);
            let scheme = if inbound.tls.is_some() { "https" } else { "http" };
            match address {
                Some(address) => {
                    say(format_args!("{name:<16} inbound {scheme}://{address} -> {}  {whose}", inbound.upstream));
                    first = first.or(spec.tenant.clone().map(|tenant| (tenant, format!("{scheme}://{address}"))));
                }
                None => say(format_args!("{name:<16} inbound {} is not bound", inbound.listen)),
            }
        }
        if let Some(egress) = &spec.egress {
            match bound.iter().find(|listener| listener.route == "outbound") {
                Some(listener) => say(format_args!("{name:<16} egress  {}", listener.address)),
                None => say(format_args!("{name:<16} egress  {} is not bound", egress.listen)),
            }
        }
        if let Some(listen) = spec.dns.as_ref().and_then(|dns| dns.listen.as_ref()) {
            match bound.iter().find(|listener| listener.route == "dns") {
                Some(listener) => say(format_args!("{name:<16} dns     {}", listener.address)),
                None => say(format_args!("{name:<16} dns     {listen} is not bound")),
            }
        }
        say(format_args!("{name:<16} admin   {}", paths.admin.display()));
        say(format_args!("{name:<16} log     {}", paths.access_log().display()));
    }
    if let Some((tenant, url)) = first {
        let command = std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_else(|_| "ringfence".into());
        say("\nTry:");
        say(format_args!("  TOKEN=$({command} token --dir {} --tenant {tenant})", dir.display()));
        say(format_args!("  curl -i -H \"Authorization: Bearer $TOKEN\" {url}/tenants/{tenant}/hello   # 200"));
        say(format_args!("  curl -i {url}/tenants/{tenant}/hello   # 401\n"));
    }
}

/// Asks a sidecar where it listens.
async fn bound(socket: &Path) -> io::Result<Vec<Listener>> {
    let body = admin::get(UnixStream::connect(socket).await?, "/config").await?;
    let in_force: InForce = serde_json::from_slice(&body)?;
    Ok(in_force.listeners)
}
