//! A refusal: a value with its reason and the rule that made it. Reply, access log, metric and `explain` are renderings of it.

use std::{borrow::Cow, fmt, sync::Arc};

/// Where a decision was made: the object and the field of it that decided, e.g. `Tenant/acme: limits[all]`.
///
/// For the operator (log, `explain`) only: it names a tenant, so it never goes into a reply or a shared metric.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RuleRef(Arc<str>);

impl RuleRef {
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Kind and name of the object that the rule stands in.
    pub fn object(&self) -> Option<(&str, &str)> {
        let object = self.0.split_once(':').map_or(&*self.0, |(object, _)| object);
        object.split_once('/')
    }
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $status:literal, $title:literal;)*) => {
        /// Why a request was refused. The strings are part of the contract with users: they stand in replies, logs, metrics and `explain`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// Every reason: the closed set of a metric's label.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// The stable string.
            pub const fn as_str(self) -> &'static str {
                match self { $(Reason::$variant => $text,)* }
            }

            /// The HTTP status that tells it.
            pub const fn status(self) -> u16 {
                match self { $(Reason::$variant => $status,)* }
            }

            /// For the caller: says what to mend and nothing of anybody else.
            pub const fn title(self) -> &'static str {
                match self { $(Reason::$variant => $title,)* }
            }
        }
    };
}

reasons! {
    TokenMissing = "token_missing", 401, "A bearer token is required";
    /// Two tokens, a scheme other than Bearer, not a JWS, not strict JSON, too large.
    TokenMalformed = "token_malformed", 401, "The token is malformed";
    /// An algorithm that the issuer's keys do not use, `none` and HS* among them.
    TokenAlgorithm = "token_algorithm", 401, "The token's algorithm is not accepted";
    /// No usable key of the issuer has the token's `kid`.
    TokenKey = "token_key", 401, "The token's signing key is not known";
    TokenSignature = "token_signature", 401, "The token's signature is not valid";
    TokenExpired = "token_expired", 401, "The token has expired";
    /// `nbf` or `iat` lies in the future.
    TokenNotYetValid = "token_not_yet_valid", 401, "The token is not valid yet";
    TokenIssuer = "token_issuer", 401, "The token's issuer is not accepted";
    TokenAudience = "token_audience", 401, "The token is not meant for this audience";
    TenantMissing = "tenant_missing", 403, "The token names no tenant";
    TenantUnknown = "tenant_unknown", 403, "The token's tenant is not served here";
    TenantMismatch = "tenant_mismatch", 403, "The token's tenant is not served here";
    /// mTLS between workloads: the one that calls, or the one that is called, is none that may be.
    PeerNotAllowed = "peer_not_allowed", 403, "These workloads may not connect to each other";
    PathNotListed = "path_not_listed", 403, "This method and path are not allowed";
    ScopeMissing = "scope_missing", 403, "The token lacks a scope that this request needs";
    /// No rule names the host or the address.
    EgressHostNotListed = "egress_host_not_listed", 403, "This destination is not allowed";
    EgressPortNotListed = "egress_port_not_listed", 403, "This destination is not allowed at this port";
    /// TLS, HTTP or neither, and the destination is listed for another.
    EgressProtocolNotAllowed = "egress_protocol_not_allowed", 403, "This protocol is not allowed to this destination";
    /// Plain HTTP: method and path.
    EgressRequestDenied = "egress_request_denied", 403, "This request is not allowed to this destination";
    /// The name is allowed and leads to an address that is not, or the address is a special one.
    EgressAddressForbidden = "egress_address_forbidden", 403, "This destination's address is not allowed";
    /// CONNECT host, SNI, Host and `:authority` disagree.
    EgressNameMismatch = "egress_name_mismatch", 403, "The names of the destination disagree";
    /// TLS that does not say its host openly: no SNI, two, an address, or Encrypted Client Hello.
    EgressNameHidden = "egress_name_hidden", 403, "The destination must be named openly";
    /// Bytes that begin like TLS or HTTP and are neither.
    EgressMalformed = "egress_malformed", 400, "What was sent is malformed";
    /// A shared workload's connection that no tenant's request stands behind.
    EgressContextMissing = "egress_context_missing", 403, "The tenant context of a request is required";
    EgressContextInvalid = "egress_context_invalid", 403, "The tenant context is not valid";
    EgressConnectionsLimited = "egress_connections_limited", 429, "Too many connections";
    EgressNameUnresolved = "egress_name_unresolved", 502, "The destination's name could not be resolved";
    /// A class, type or operation that the sidecar's DNS does not serve.
    DnsQueryRefused = "dns_query_refused", 403, "This kind of DNS query is not answered";
    /// A policy zone answers that there is no such name or nothing of its kind, or does not answer at all.
    NameBlocked = "name_blocked", 403, "This name is blocked";
    /// A policy zone answers something else in its place.
    NameRewritten = "name_rewritten", 403, "This name leads elsewhere here";
    /// More was said in DNS names, or heard in free-form answers, than a limit allows.
    DnsBudgetSpent = "dns_budget_spent", 429, "The budget of DNS names or answers is spent";
    RateLimited = "rate_limited", 429, "Too many requests";
    RequestMalformed = "request_malformed", 400, "The request is malformed or ambiguous";
    HeadersTooLarge = "headers_too_large", 431, "The request's header fields are too large";
    RequestTimeout = "request_timeout", 408, "The request was not received in time";
    ConfigAbsent = "config_absent", 503, "No policy is in force yet";
    UpstreamConnect = "upstream_connect", 502, "The upstream could not be reached";
    /// It was to prove that it is a certain workload.
    UpstreamIdentity = "upstream_identity", 502, "The upstream did not prove who it is";
    UpstreamProtocol = "upstream_protocol", 502, "The upstream's reply was not valid";
    UpstreamTimeout = "upstream_timeout", 504, "The upstream did not answer in time";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A decision against a request. Not an error: nothing went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deny {
    pub reason: Reason,
    /// The rule that decided, where there is one.
    pub rule: Option<RuleRef>,
    /// For the operator only; may name fields, keys and rules.
    pub detail: Cow<'static, str>,
}

impl Deny {
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, rule: None, detail: detail.into() }
    }

    pub fn by(mut self, rule: &RuleRef) -> Self {
        self.rule = Some(rule.clone());
        self
    }
}

impl fmt::Display for Deny {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.reason)?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        if let Some(rule) = &self.rule {
            write!(f, " ({rule})")?;
        }
        Ok(())
    }
}
