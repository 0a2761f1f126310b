//! `ringfence explain`: what a sidecar would do, decided by the code that it decides with.

mod connect;
mod dns;
mod http;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

use clap::{Args, Subcommand};
use prost::Message;
use ringfence_xds::{
    assemble,
    client::Client,
    generated::resource as proto,
    policy::{Deny, Snapshot},
    resource::Kind,
    server::ResourceSet,
};
use serde::Serialize;

use super::Output;
use crate::{
    compile::compile,
    plane::STATE_DIR,
    spec::{self, Spec},
};

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// Directory of YAML files
    dir: PathBuf,
    /// Whose sidecar is asked
    #[arg(long)]
    workload: String,
    #[arg(short, long, value_enum, default_value_t = Output::Text, global = true)]
    output: Output,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A request to an inbound listener
    #[command(after_help = "Example:\n  ringfence explain demo --workload acme-api http GET /hello --token-file token")]
    Http(http::HttpArgs),
    /// A connection that leaves the workload
    #[command(after_help = "Example:\n  ringfence explain demo --workload acme-api connect api.example.com:443 --address 203.0.113.7")]
    Connect(connect::ConnectArgs),
    /// A DNS query of the workload
    #[command(
        after_help = "Example:\n  ringfence explain demo --workload acme-api dns www.example.com A --cname cdn.example.net --address 203.0.113.7"
    )]
    Dns(dns::DnsArgs),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ExplainError {
    #[error("cannot read {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{0}")]
    Faults(String),
    #[error("there is no Workload named {0:?}")]
    NoWorkload(String),
    #[error("Workload/{0} has no such listener")]
    NoListener(String),
    #[error("Workload/{0} has no egress: nothing leaves through its sidecar")]
    NoEgress(String),
    #[error("Workload/{0} has no dns: its sidecar answers no queries")]
    NoDns(String),
    #[error("Workload/{0} is shared: name one of its tenants, --tenant NAME")]
    WhichTenant(String),
    #[error("Workload/{workload} does not serve a tenant named {tenant:?}")]
    NoTenant { workload: String, tenant: String },
    #[error("--request goes with --protocol http alone: of other connections no request is seen")]
    NoRequest,
    #[error("--address goes with a name: what is asked for is an address already")]
    NoName,
    #[error("the system's clock is before 1970")]
    Clock,
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// A decision, and how it came about: one step per stage of the route.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explanation {
    steps: Vec<Step>,
    decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    /// Where it would go; absent as well where that is not known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Step {
    stage: &'static str,
    outcome: String,
}

/// Prints the explanation; yields whether it would be let through.
pub(super) fn run(args: &ExplainArgs, out: &mut impl Write) -> Result<bool, ExplainError> {
    let Sidecar { snapshot, not_transferred } = sidecar(args)?;
    let explanation = match &args.what {
        What::Http(http) => http.explain(&snapshot)?,
        What::Connect(connect) => connect.explain(&snapshot)?,
        What::Dns(dns) => dns.explain(&snapshot, &not_transferred)?,
    };
    match args.output {
        Output::Json => {
            serde_json::to_writer_pretty(&mut *out, &explanation).map_err(io::Error::from)?;
            writeln!(out)?;
        }
        Output::Text => explanation.write(out)?,
    }
    Ok(explanation.decision == "allow")
}

/// What the workload's sidecar would have.
struct Sidecar {
    /// In force.
    snapshot: Snapshot,
    /// PolicyZones that it wants, and that have not come from their primaries.
    not_transferred: Vec<Arc<str>>,
}

fn sidecar(args: &ExplainArgs) -> Result<Sidecar, ExplainError> {
    let parsed = spec::read_directory_as_served(&args.dir, &args.dir.join(STATE_DIR))
        .map_err(|error| ExplainError::Read { path: args.dir.clone(), error })?;
    let compiled = compile(&parsed.objects, &parsed.unread());
    let mut faults = parsed.faults;
    faults.extend(compiled.faults());
    if let Some(fault) = faults.first() {
        return Err(ExplainError::Faults(format!("{fault} ({} in all; `ringfence validate` tells them)", faults.len())));
    }
    let mut set = ResourceSet::default();
    for resource in compiled.resources() {
        set.insert(resource.clone());
    }
    let view = set.view(&args.workload);
    let visible = Kind::ALL.into_iter().flat_map(|kind| view.names(kind).into_iter().filter_map(move |name| view.resource(kind, name)));
    let mut sidecar = Client::new(args.workload.as_str());
    sidecar.restore(visible.cloned());
    open_zones(&mut sidecar, &set);
    // What nobody wrote, a platform perhaps, is told absent by the control plane.
    let wanted = |sidecar: &Client| assemble::wanted(&args.workload, &BTreeSet::new(), sidecar);
    sidecar.presume_absent(wanted(&sidecar));
    // Which zones there are to be is known only once the platform is.
    let wanted = wanted(&sidecar);
    let zones = wanted.get(&Kind::PolicyZone).cloned().unwrap_or_default();
    sidecar.presume_absent(wanted);
    let not_transferred = parsed.objects.iter().filter(|object| match &object.spec {
        Spec::PolicyZone(zone) => zone.compiled.is_none() && zones.contains(&*object.key.name),
        _ => false,
    });
    let not_transferred = not_transferred.map(|object| object.key.name.clone()).collect();
    let snapshot = assemble::assemble(&args.workload, &sidecar, 1, None).ok_or_else(|| ExplainError::NoWorkload(args.workload.clone()))?;
    Ok(Sidecar { snapshot, not_transferred })
}

/// Puts the zones together from their chunks, as the sidecar does.
fn open_zones(sidecar: &mut Client, set: &ResourceSet) {
    let manifests: Vec<_> = sidecar.zones().map(|held| held.manifest.clone()).collect();
    for manifest in manifests {
        let mut bytes = Vec::with_capacity(manifest.size as usize);
        for piece in &manifest.pieces {
            let chunk = set.get(Kind::ZoneChunk, &piece.digest.to_string()).map(|chunk| proto::ZoneChunk::decode(chunk.bytes.clone()));
            bytes.extend(chunk.into_iter().flatten().flat_map(|chunk| chunk.data));
        }
        if let Ok(zone) = manifest.open(bytes.into()) {
            sidecar.open_zone(&manifest.name, zone);
        }
    }
}

impl Explanation {
    /// The end of a route. One that refuses leaves its last step for the refusal's words.
    fn decide(mut self, upstream: Result<Option<String>, Deny>) -> Self {
        match upstream {
            Ok(upstream) => {
                self.decision = "allow";
                self.upstream = upstream;
            }
            Err(deny) => {
                self.decision = "deny";
                self.status = Some(deny.reason.status());
                self.reason = Some(deny.reason.as_str());
                self.rule = deny.rule.as_ref().map(ToString::to_string);
                if let Some(step) = self.steps.last_mut() {
                    step.outcome.push_str(&deny.detail);
                }
            }
        }
        self
    }

    fn begin(&mut self, stage: &'static str) {
        self.steps.push(Step { stage, outcome: String::new() });
    }

    fn say(&mut self, outcome: String) {
        if let Some(step) = self.steps.last_mut() {
            step.outcome = outcome;
        }
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        for Step { stage, outcome } in &self.steps {
            writeln!(out, "{stage:<10} {outcome}")?;
        }
        write!(out, "{:<10} {}", "decision", self.decision)?;
        if let Some(status) = self.status {
            write!(out, " {status}")?;
        }
        if let Some(reason) = self.reason {
            write!(out, " {reason}")?;
        }
        if let Some(rule) = &self.rule {
            write!(out, " ({rule})")?;
        }
        if let Some(upstream) = &self.upstream {
            write!(out, " -> {upstream}")?;
        }
        writeln!(out)
    }
}
