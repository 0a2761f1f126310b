//! What the schema of a field says beyond its type. `shape` looks at types and counts alone, and leaves the rest to the decoder, whose
//! messages are better; an API server has only this. Nothing here is stricter than the decoder.

use schemars::Schema;
use serde_json::{Value as Json, json};

/// Marks a field that names a file next to the operator's own, which a custom resource has not got; its value says what to do instead.
pub(crate) const FILE: &str = "x-ringfence-file";
/// Rules in CEL, as API servers read them.
pub(crate) const RULES: &str = "x-kubernetes-validations";

/// Longest rate there is: `1000000/s`.
const RATE: usize = 9;
const DURATION: usize = 5;

fn set(schema: &mut Schema, keyword: &str, value: impl Into<Json>) {
    schema.insert(keyword.to_owned(), value.into());
}

/// A rule that must hold for the field's value, which CEL calls `self`.
fn rule(schema: &mut Schema, rule: &str, message: &str) {
    let rules = schema.ensure_object().entry(RULES).or_insert_with(|| json!([]));
    if let Some(rules) = rules.as_array_mut() {
        rules.push(json!({ "rule": rule, "message": message }));
    }
}

fn one_of(schema: &mut Schema, texts: &[&str]) {
    set(schema, "enum", texts);
}

fn each(schema: &mut Schema, of: impl FnOnce(&mut Schema)) {
    if let Some(items) = schema.get_mut("items").and_then(|items| <&mut Schema>::try_from(items).ok()) {
        of(items);
    }
}

/// `metadata.name` of an object.
pub(super) fn name(schema: &mut Schema) {
    set(schema, "pattern", "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$");
    set(schema, "maxLength", 63);
}

pub(super) fn names(schema: &mut Schema) {
    set(schema, "maxItems", 1024);
    each(schema, name);
}

/// Those that a tenant may have.
pub(super) fn namespaces(schema: &mut Schema) {
    rule(schema, "self.all(name, name != 'default' && !name.startsWith('kube-'))", "default and kube-* are the cluster's own: name others");
    set(schema, "maxItems", 64);
    each(schema, name);
}

pub(super) fn pod_security(schema: &mut Schema) {
    one_of(schema, &["restricted", "baseline"]);
    set(schema, "default", "restricted");
}

pub(super) fn quantity(schema: &mut Schema) {
    rule(
        schema,
        "self.matches('^([0-9]+[.]?[0-9]*|[.][0-9]+)([numkMGTPE]|[KMGTPE]i)?$')",
        "must be an amount that is not negative, such as 500m, 8 or 16Gi",
    );
    set(schema, "maxLength", 32);
}

/// Users, or groups of them.
pub(super) fn admins(schema: &mut Schema) {
    rule(schema, "self.all(name, !name.startsWith('system:'))", "system:* are the cluster's own: name persons, or groups of persons");
    set(schema, "maxItems", 256);
    each(schema, |item| {
        set(item, "maxLength", 256);
    });
}

pub(super) fn zones(schema: &mut Schema) {
    set(schema, "maxItems", 64);
    each(schema, name);
}

/// The tenants of a shared workload.
pub(super) fn tenants(schema: &mut Schema) {
    rule(schema, "!self.exists(tenant, tenant == '*') || size(self) == 1", "\"*\" (any tenant) must stand alone");
    set(schema, "maxItems", 1024);
    each(schema, |item| {
        set(item, "pattern", r"^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$");
        set(item, "maxLength", 63);
    });
}

/// Entries are known by their names, also to whoever applies some of them only.
fn by_name(schema: &mut Schema, most: usize) {
    set(schema, "maxItems", most);
    set(schema, "x-kubernetes-list-type", "map");
    set(schema, "x-kubernetes-list-map-keys", ["name"]);
}

pub(super) fn limits(schema: &mut Schema) {
    by_name(schema, 64);
}

pub(super) fn dns_limits(schema: &mut Schema) {
    by_name(schema, 16);
}

pub(super) fn egress_rules(schema: &mut Schema) {
    by_name(schema, 4096);
}

pub(super) fn allow_rules(schema: &mut Schema) {
    set(schema, "maxItems", 4096);
}

pub(super) fn methods(schema: &mut Schema) {
    set(schema, "maxItems", 64);
}

/// A file that is not to be had; `instead`: what to do.
fn file(schema: &mut Schema, instead: &str) {
    set(schema, FILE, format!("files are for directories: {instead}"));
}

pub(super) fn jwks_file(schema: &mut Schema) {
    file(schema, "write the set inline, or its uri");
}

pub(super) fn zone_file(schema: &mut Schema) {
    file(schema, "write the zone inline, or transfer it");
}

pub(super) fn ca_file(schema: &mut Schema) {
    file(schema, "custom resources trust the public authorities");
}

pub(super) fn secret_file(schema: &mut Schema) {
    file(schema, "keys for TSIG are had in directories alone; use tls");
}

/// On the sidecar's disk.
pub(super) fn path_of_sidecar(schema: &mut Schema) {
    rule(schema, "self.startsWith('/')", "must be an absolute path in the sidecar's container");
}

/// The text of a zone: as much as an object may hold.
pub(super) fn zone_text(schema: &mut Schema) {
    set(schema, "maxLength", 1 << 20);
}

pub(super) fn mode(schema: &mut Schema) {
    one_of(schema, &["enforce", "shadow"]);
    set(schema, "default", "enforce");
}

/// As `mode`, where none may stand without what goes with it.
pub(super) fn optional_mode(schema: &mut Schema) {
    one_of(schema, &["enforce", "shadow"]);
}

pub(super) fn scope(schema: &mut Schema) {
    one_of(schema, &["local"]);
    set(schema, "default", "local");
}

pub(super) fn protocol(schema: &mut Schema) {
    one_of(schema, &["tls", "http", "tcp"]);
    set(schema, "default", "tls");
}

pub(super) fn capture(schema: &mut Schema) {
    one_of(schema, &["none", "redirect"]);
    set(schema, "default", "none");
}

pub(super) fn dns_count(schema: &mut Schema) {
    one_of(schema, &["queries", "names", "entropy", "txt"]);
    set(schema, "default", "queries");
}

pub(super) fn dns_key(schema: &mut Schema) {
    one_of(schema, &["tenant", "domain"]);
    set(schema, "default", "tenant");
}

pub(super) fn limit_key(schema: &mut Schema) {
    rule(schema, "self == 'tenant' || self == 'subject' || self.startsWith('claim:')", "must be tenant, subject or claim:<name>");
    set(schema, "default", "tenant");
    set(schema, "maxLength", 300);
}

pub(super) fn role(schema: &mut Schema) {
    one_of(schema, &["platform-admin", "viewer", "tenant-admin"]);
}

pub(super) fn algorithms(schema: &mut Schema) {
    each(schema, |item| one_of(item, &["ES256", "ES384", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA"]));
    set(schema, "maxItems", 16);
}

pub(super) fn tsig_algorithm(schema: &mut Schema) {
    one_of(schema, &["hmac-sha256", "hmac-sha384", "hmac-sha512"]);
    set(schema, "default", "hmac-sha256");
}

pub(super) fn zone_override(schema: &mut Schema) {
    let wanted = "must be given, nxdomain, nodata, passthru, drop, tcp-only, disabled or cname:<name>";
    let known = "self in ['given', 'nxdomain', 'nodata', 'passthru', 'drop', 'tcp-only', 'disabled'] || self.startsWith('cname:')";
    rule(schema, known, wanted);
    set(schema, "default", "given");
    set(schema, "maxLength", 300);
}

pub(super) fn rate(schema: &mut Schema) {
    let wanted = "must be N/s, N/m or N/h with N from 1 to 1000000, e.g. 100/s";
    rule(schema, "self.matches('^([1-9][0-9]{0,5}|1000000)/[smh]$')", wanted);
    set(schema, "maxLength", RATE);
}

pub(super) fn clock_skew(schema: &mut Schema) {
    rule(schema, "self.matches('^([0-9]{1,4}s|[0-9]{1,4}m)$')", "must be from 0s to 60s");
    set(schema, "maxLength", DURATION);
}

pub(super) fn max_ttl(schema: &mut Schema) {
    rule(schema, "self.matches('^[0-9]{1,4}[sm]$')", "must be seconds or minutes, such as 90s or 5m");
    set(schema, "maxLength", DURATION);
}

pub(super) fn serve_stale(schema: &mut Schema) {
    rule(schema, "self.matches('^([0-9]{1,4}[sm]|0*[0-9]{1,2}h)$')", "must be from 0s (never) to 24h, e.g. 30m or 1h");
    set(schema, "maxLength", 8);
}

pub(super) fn egress_rule(schema: &mut Schema) {
    rule(schema, "has(self.hosts) || has(self.cidrs)", "must have hosts, cidrs, or both: names, as long as they lead to these addresses");
    let http = "goes with protocol http alone";
    rule(schema, "!has(self.requests) || has(self.protocol) && self.protocol == 'http'", &format!("requests {http}"));
    rule(schema, "!has(self.peer) || has(self.protocol) && self.protocol == 'http'", &format!("peer {http}"));
    let ports = "ports must be given with protocol tcp: it has no usual port";
    rule(schema, "has(self.ports) || !has(self.protocol) || self.protocol != 'tcp'", ports);
}

pub(super) fn peer(schema: &mut Schema) {
    let tenant = "shared cannot stand beside tenant: a shared workload is of no tenant";
    rule(schema, "!has(self.tenant) || !has(self.shared) || !self.shared", tenant);
}

pub(super) fn inbound(schema: &mut Schema) {
    let tls = "mtls cannot stand beside tls: a listener shows the sidecar's SVID or a certificate of its own";
    rule(schema, "!has(self.tls) || !has(self.mtls) || !self.mtls", tls);
}

pub(super) fn workload(schema: &mut Schema) {
    let tenants = "must have exactly one of tenant and tenants: a workload is dedicated or shared";
    rule(schema, "has(self.tenant) != has(self.tenants)", tenants);
    let job = "must have inbound, egress or dns.listen: without one its sidecar has nothing to do";
    rule(schema, "has(self.inbound) && size(self.inbound) > 0 || has(self.egress) || has(self.dns) && has(self.dns.listen)", job);
    let dns = "egress.capture redirect needs dns.listen: DNS is captured too, and names could not be resolved otherwise";
    let captured = "!has(self.egress) || !has(self.egress.capture) || self.egress.capture != 'redirect'";
    rule(schema, &format!("{captured} || has(self.dns) && has(self.dns.listen)"), dns);
    let own = "dns.zones, dns.mode and dns.limits are for shared workloads: write them into the tenant's spec.dns";
    let none = "!has(self.dns.mode) && (!has(self.dns.zones) || size(self.dns.zones) == 0) && (!has(self.dns.limits) || size(self.dns.limits) == 0)";
    rule(schema, &format!("!has(self.tenant) || !has(self.dns) || {none}"), own);
}

pub(super) fn operator(schema: &mut Schema) {
    let tenant = "tenant goes with role tenant-admin, and must stand there";
    rule(schema, "(self.role == 'tenant-admin') == has(self.tenant)", tenant);
}
