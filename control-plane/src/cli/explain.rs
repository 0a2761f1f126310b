//! `ringfence explain`: what a sidecar would do, decided by the code that it decides with.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read, Write},
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::{Args, Subcommand};
use prost::Message;
use ringfence_xds::{
    assemble,
    client::Client,
    generated::resource as proto,
    policy::{
        Deny, Reason, Snapshot,
        identify::{self, VerifiedClaims},
        path::NormalPath,
        ratelimit::{LimitKey, LimitPolicy, Mode},
        snapshot::TenantAnswer,
        tenant::{InboundPolicy, TenantPolicy},
    },
    resource::Kind,
    server::ResourceSet,
};
use serde::Serialize;

use super::Output;
use crate::{compile::compile, spec};

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
    Http(HttpArgs),
}

#[derive(Debug, Args)]
struct HttpArgs {
    /// e.g. GET
    method: String,
    /// e.g. /tenants/acme/report
    path: String,
    /// A file with the bearer token, `-` for standard input; tokens are secrets and do not belong on a command line
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The listener, as configured; default: the workload's first
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<std::net::SocketAddr>,
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
    /// Where the request would go.
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Step {
    stage: &'static str,
    outcome: String,
}

/// Prints the explanation; yields whether the request would be let through.
pub(super) fn run(args: &ExplainArgs, out: &mut impl Write) -> Result<bool, ExplainError> {
    let snapshot = snapshot(args)?;
    let What::Http(http) = &args.what;
    let token = http.token_file.as_deref().map(read_token).transpose()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| ExplainError::Clock)?.as_secs();
    let mut inbound = snapshot.workload.inbound.iter();
    let listener = inbound.find(|inbound| http.listen.is_none_or(|listen| inbound.listen == listen));
    let listener = listener.ok_or_else(|| ExplainError::NoListener(args.workload.clone()))?;
    let explanation = explain(&http.method, &http.path, token.as_deref(), listener, &snapshot, now);
    match args.output {
        Output::Json => {
            serde_json::to_writer_pretty(&mut *out, &explanation).map_err(io::Error::from)?;
            writeln!(out)?;
        }
        Output::Text => explanation.write(out)?,
    }
    Ok(explanation.decision == "allow")
}

/// What the workload's sidecar would have in force.
fn snapshot(args: &ExplainArgs) -> Result<Snapshot, ExplainError> {
    let parsed = spec::read_directory(&args.dir).map_err(|error| ExplainError::Read { path: args.dir.clone(), error })?;
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
    sidecar.presume_absent(assemble::wanted(&args.workload, &BTreeSet::new(), &sidecar));
    assemble::assemble(&args.workload, &sidecar, 1, None).ok_or_else(|| ExplainError::NoWorkload(args.workload.clone()))
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

fn read_token(path: &std::path::Path) -> Result<String, ExplainError> {
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        io::stdin().take(identify::MAX_TOKEN_BYTES as u64 * 2).read_to_string(&mut text).map(|_| ())
    } else {
        fs::read_to_string(path).map(|read| text = read)
    };
    read.map_err(|error| ExplainError::Read { path: path.into(), error })?;
    Ok(text.trim().to_owned())
}

fn explain(method: &str, target: &str, token: Option<&str>, listener: &InboundPolicy, snapshot: &Snapshot, now: u64) -> Explanation {
    let mut explanation = Explanation::default();
    match route(method, target, token, listener, snapshot, now, &mut explanation) {
        Ok(()) => {
            explanation.decision = "allow";
            explanation.upstream = Some(listener.upstream.to_string());
        }
        Err(deny) => {
            explanation.decision = "deny";
            explanation.status = Some(deny.reason.status());
            explanation.reason = Some(deny.reason.as_str());
            explanation.rule = deny.rule.as_ref().map(ToString::to_string);
            if let Some(step) = explanation.steps.last_mut() {
                step.outcome.push_str(&deny.detail);
            }
        }
    }
    explanation
}

/// The stages of the inbound route, in their order. A stage says what it found before the next one is asked; one that refuses leaves its
/// last step for the refusal's words.
fn route(
    method: &str,
    target: &str,
    token: Option<&str>,
    listener: &InboundPolicy,
    snapshot: &Snapshot,
    now: u64,
    explanation: &mut Explanation,
) -> Result<(), Deny> {
    explanation.begin("request");
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let path = NormalPath::new(path).map_err(|why| Deny::new(Reason::RequestMalformed, format!("the path {why}")))?;
    explanation.say(format!("{method} {} at {}", path.as_str(), listener.listen));
    if let Some(pattern) = listener.public.iter().find(|pattern| pattern.matches(&path, None)) {
        explanation.begin("public");
        explanation.say(format!("needs no token, by {pattern}"));
        return Ok(());
    }
    explanation.begin("identify");
    let authorization = token.map(|token| format!("Bearer {token}"));
    let token = identify::bearer(authorization.iter().map(String::as_bytes))?;
    let claims = identify::verify(token, snapshot.issuers.iter().map(|issuer| &**issuer), now)?;
    let tenant = match snapshot.tenant_of(&claims)? {
        TenantAnswer::Known(tenant) => tenant,
        TenantAnswer::Unlearnt { .. } => return Err(Deny::new(Reason::TenantUnknown, "no tenant has the token's tenant claim")),
    };
    explanation.say(format!("tenant {}, subject {}, by Issuer/{}", tenant.id, claims.subject().unwrap_or("none"), claims.issuer()));
    for limit in tenant.limits.iter().filter(|limit| limit.matcher.matches(method, &path, &tenant.id)) {
        explanation.begin("limit");
        explanation.say(charged(limit));
    }
    explanation.begin("authorize");
    explanation.say(authorize(tenant, &claims, method, &path)?);
    Ok(())
}

fn authorize(tenant: &TenantPolicy, claims: &VerifiedClaims, method: &str, path: &NormalPath<'_>) -> Result<String, Deny> {
    let rule = tenant.inbound.authorize(method, path, &tenant.id, |scope| claims.has_scope(scope))?;
    Ok(rule.map_or_else(|| "everywhere: the tenant has no inbound.allow".into(), |rule| format!("allowed by {rule}")))
}

fn charged(limit: &LimitPolicy) -> String {
    let key = match &limit.key {
        LimitKey::Tenant => "tenant".to_owned(),
        LimitKey::Subject => "subject".to_owned(),
        LimitKey::Claim(claim) => format!("claim:{claim}"),
    };
    let mode = match limit.mode {
        Mode::Enforce => "enforced",
        Mode::Shadow => "in shadow mode",
    };
    format!("charged to {} ({}, burst {}, by {key}, {mode})", limit.rule, limit.quota.rate, limit.quota.burst)
}

impl Explanation {
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
        if let (Some(status), Some(reason)) = (self.status, self.reason) {
            write!(out, " {status} {reason}")?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::token, quickstart};

    fn explain_in(dir: &std::path::Path, workload: &str, method: &str, path: &str, tenant: Option<(&str, Option<&str>)>) -> Explanation {
        let token_file = tenant.map(|(tenant, scope)| {
            let file = dir.join("token");
            fs::write(&file, token::for_test(dir, tenant, scope)).unwrap();
            file
        });
        let http = HttpArgs { method: method.into(), path: path.into(), token_file, listen: None };
        let args = ExplainArgs { dir: dir.into(), workload: workload.into(), output: Output::Json, what: What::Http(http) };
        let mut out = Vec::new();
        run(&args, &mut out).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        Explanation {
            steps: Vec::new(),
            decision: if json["decision"] == "allow" { "allow" } else { "deny" },
            status: json["status"].as_u64().map(|status| status as u16),
            reason: Reason::ALL.iter().map(|reason| reason.as_str()).find(|reason| json["reason"] == *reason),
            rule: text(&json["rule"]),
            upstream: text(&json["upstream"]),
        }
    }

    #[test]
    fn the_quickstart_is_explained_by_the_rule_that_decides() {
        let dir = tempfile::tempdir().unwrap();
        quickstart::write(dir.path()).unwrap();
        let admin = Some(("acme", Some("admin")));
        for (workload, method, path, token, wanted) in [
            ("acme-api", "GET", "/healthz", None, ("allow", None, None)),
            ("acme-api", "GET", "/hello", None, ("deny", Some("token_missing"), None)),
            ("acme-api", "GET", "/hello?x=1", Some(("acme", None)), ("allow", None, None)),
            (
                "acme-api",
                "GET",
                "/tenants/globex/x",
                Some(("acme", None)),
                ("deny", Some("path_not_listed"), Some("Tenant/acme: inbound.allow")),
            ),
            ("acme-api", "GET", "/tenants/../hello", Some(("acme", None)), ("deny", Some("request_malformed"), None)),
            (
                "acme-api",
                "DELETE",
                "/tenants/acme/x",
                Some(("acme", None)),
                ("deny", Some("scope_missing"), Some("Tenant/acme: inbound.allow[2]")),
            ),
            ("acme-api", "DELETE", "/tenants/acme/x", admin, ("allow", None, None)),
            ("globex-api", "GET", "/hello", Some(("acme", None)), ("deny", Some("tenant_mismatch"), None)),
            ("shared-api", "GET", "/hello", Some(("globex", None)), ("allow", None, None)),
            ("shared-api", "GET", "/hello", Some(("initech", None)), ("deny", Some("tenant_unknown"), None)),
        ] {
            let explanation = explain_in(dir.path(), workload, method, path, token);
            let got = (explanation.decision, explanation.reason, explanation.rule.as_deref());
            assert_eq!(got, wanted, "{workload} {method} {path}");
            assert_eq!(explanation.upstream.is_some(), wanted.0 == "allow");
        }
    }

    #[test]
    fn what_cannot_be_explained_is_said() {
        let dir = tempfile::tempdir().unwrap();
        quickstart::write(dir.path()).unwrap();
        let explain = |workload: &str| {
            let http = HttpArgs { method: "GET".into(), path: "/".into(), token_file: None, listen: Some("127.0.0.1:1".parse().unwrap()) };
            let args = ExplainArgs { dir: dir.path().into(), workload: workload.into(), output: Output::Text, what: What::Http(http) };
            run(&args, &mut Vec::new()).unwrap_err().to_string()
        };
        assert_eq!(explain("nobody"), "there is no Workload named \"nobody\"");
        assert_eq!(explain("acme-api"), "Workload/acme-api has no such listener");
        fs::write(dir.path().join("bad.yaml"), "kind: Tenant").unwrap();
        assert!(explain("acme-api").contains("bad.yaml:1:1: "), "{}", explain("acme-api"));
    }
}
