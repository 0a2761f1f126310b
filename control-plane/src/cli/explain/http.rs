//! `explain … http`: a request to an inbound listener.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use clap::Args;
use ringfence_xds::policy::{
    Deny, Reason, Snapshot, TenantId,
    identify::{self, VerifiedClaims},
    path::NormalPath,
    ratelimit::{LimitKey, LimitPolicy, Mode},
    snapshot::TenantAnswer,
    tenant::{InboundPolicy, ServedTenants, TenantPolicy},
};

use super::{ExplainError, Explanation};

#[derive(Debug, Args)]
pub(super) struct HttpArgs {
    /// e.g. GET
    pub(super) method: String,
    /// e.g. /tenants/acme/report
    pub(super) path: String,
    /// A file with the bearer token, `-` for standard input; tokens are secrets and do not belong on a command line
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// The listener, as configured; default: the workload's first
    #[arg(long, value_name = "ADDRESS")]
    pub(super) listen: Option<SocketAddr>,
}

impl HttpArgs {
    pub(super) fn explain(&self, snapshot: &Snapshot) -> Result<Explanation, ExplainError> {
        let token = self.token_file.as_deref().map(read_token).transpose()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| ExplainError::Clock)?.as_secs();
        let mut inbound = snapshot.workload.inbound.iter();
        let listener = inbound.find(|inbound| self.listen.is_none_or(|listen| inbound.listen == listen));
        let listener = listener.ok_or_else(|| ExplainError::NoListener(snapshot.workload.name.to_string()))?;
        let mut explanation = Explanation::default();
        let decided = route(&self.method, &self.path, token.as_deref(), listener, snapshot, now, &mut explanation);
        Ok(explanation.decide(decided.map(|()| Some(listener.upstream.to_string()))))
    }
}

fn read_token(path: &Path) -> Result<String, ExplainError> {
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        io::stdin().take(identify::MAX_TOKEN_BYTES as u64 * 2).read_to_string(&mut text).map(|_| ())
    } else {
        fs::read_to_string(path).map(|read| text = read)
    };
    read.map_err(|error| ExplainError::Read { path: path.into(), error })?;
    Ok(text.trim().to_owned())
}

/// The stages of the inbound route, in their order. A stage says what it found before the next one is asked.
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
    if listener.mtls {
        explanation.begin("peer");
        explanation.say(format!("over mTLS, {}", peers(snapshot)));
    }
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

/// Who may ask at a listener with mTLS; whether a certain workload may, its SVID decides.
fn peers(snapshot: &Snapshot) -> String {
    let list = |tenants: &BTreeSet<TenantId>| tenants.iter().map(|tenant| tenant.as_str()).collect::<Vec<_>>().join(", ");
    match &snapshot.workload.tenants {
        ServedTenants::Any => "from workloads of the token's tenant".into(),
        ServedTenants::Some(tenants) => format!("from workloads of the token's tenant, of {}", list(tenants)),
        ServedTenants::One(own) => match snapshot.tenants.get(own) {
            Some(tenant) if !tenant.peers.is_empty() => {
                format!("from workloads of {own}, and to public paths of its peers {}", list(&tenant.peers))
            }
            _ => format!("from workloads of {own}"),
        },
    }
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
