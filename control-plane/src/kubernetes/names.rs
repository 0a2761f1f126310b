//! The names that the webhook, the controllers, the admission policies and the chart agree on.

/// On a namespace: the tenant that owns it. Only the onboarding controller sets it; admission policies refuse it from others.
pub const TENANT_LABEL: &str = "ringfence.dev/tenant";
/// On a namespace: the UID of the Tenant that it belongs to, so that a Tenant made anew under an old name finds nothing of its forerunner.
pub const TENANT_UID_ANNOTATION: &str = "ringfence.dev/tenant-uid";
/// On a tenant's namespace: [`FENCE_STANDS`] once its fence stands, and else no pod is admitted there.
pub const FENCE_LABEL: &str = "ringfence.dev/fence";
pub const FENCE_STANDS: &str = "standing";
/// Not yet, or no longer.
pub const FENCE_CLOSED: &str = "closed";
/// On a tenant's namespace: which Pod Security Standard its pods are held to, by an admission policy that knows the sidecar.
pub const POD_SECURITY_LABEL: &str = "ringfence.dev/pod-security";
/// On a namespace, its pods' node selector, and as label and taint on nodes: the node pool of a tenant that has its own.
pub const NODE_POOL: &str = "ringfence.dev/node-pool";
/// On a pod: the Workload that its sidecar serves; default: the one that is named as the tenant. The Workload must be of the namespace's tenant.
pub const WORKLOAD_LABEL: &str = "ringfence.dev/workload";
/// On whatever the onboarding controller makes.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "ringfence");

/// The native sidecar in a tenant's pod, and the init container that installs the redirect rules before all others.
pub const PROXY_CONTAINER: &str = "ringfence-proxy";
pub const CAPTURE_CONTAINER: &str = "ringfence-capture";
/// The sidecar's user and group, which no other container of a tenant may have.
pub const PROXY_UID: i64 = 64_015;

/// Of the projected service-account token that proves who a sidecar is.
pub const TOKEN_AUDIENCE: &str = "ringfence";
/// The volume of that token, and where the sidecar alone has it.
pub const TOKEN_VOLUME: &str = "ringfence-token";
pub const TOKEN_FILE: &str = "/var/run/secrets/ringfence/token";
/// In each tenant's namespace: whom its sidecars believe. Kept by the onboarding controller.
pub const TRUST_CONFIG_MAP: &str = "ringfence-trust";
/// Its keys: PEM certificates of the trust bundle, PEM public keys of the configuration.
pub const BUNDLE_KEY: &str = "bundle.pem";
pub const CONFIG_KEYS_KEY: &str = "config-keys.pem";
/// Where the sidecar has that.
pub const TRUST_DIR: &str = "/etc/ringfence/trust";
/// For the last known good and the SVID with its key: an emptyDir that the sidecar alone has.
pub const STATE_VOLUME: &str = "ringfence-state";
pub const STATE_DIR: &str = "/var/lib/ringfence";

/// In the control plane's own namespace: the authority and its keys; the configuration key.
pub const AUTHORITY_SECRET: &str = "ringfence-authority";
pub const CONFIG_KEY_SECRET: &str = "ringfence-config-key";
/// The webhook's serving certificate and what vouches for it.
pub const WEBHOOK_SECRET: &str = "ringfence-webhook";
pub const WEBHOOK_CONFIGURATION: &str = "ringfence-injector";
/// The Service of the control plane: its name, and its port of ADS over TLS.
pub const SERVICE: &str = "ringfence-control-plane";
pub const ADS_PORT: u16 = 15_010;
/// For which replica writes status and children.
pub const LEASE: &str = "ringfence-leader";
/// Field manager of server-side apply.
pub const FIELD_MANAGER: &str = "ringfence";

/// Where the default Workload's sidecar listens, and the redirect rules lead: `egress.listen`, `dns.listen`.
pub const EGRESS_PORT: u16 = 15_001;
pub const DNS_PORT: u16 = 15_053;
/// `dns.listen` where pods are injected without redirect rules: resolv.conf(5) names no port.
pub const EXPLICIT_DNS_PORT: u16 = 53;
/// The trust ConfigMap in a pod.
pub const TRUST_VOLUME: &str = "ringfence-trust";
/// What the capture container tells the sidecar; an emptyDir, and where both have it.
pub const CAPTURE_VOLUME: &str = "ringfence-capture";
pub const CAPTURE_DIR: &str = "/run/ringfence";
/// Nothing, in the place of the application's own service-account token: the ServiceAccount admission plugin adds that wherever nothing is.
pub const EMPTY_VOLUME: &str = "ringfence-empty";
pub const SERVICE_ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The environment variable with the sidecar's bootstrap, and its admin endpoint: a socket that no other container has.
pub const BOOTSTRAP_VARIABLE: &str = "RINGFENCE_BOOTSTRAP";
pub const ADMIN_ADDRESS: &str = "unix:/var/lib/ringfence/admin.sock";
