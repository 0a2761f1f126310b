//! For tests: a real API server with its etcd, and neither nodes nor controllers.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
        core::v1::{Namespace, Pod, ServiceAccount},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config, Resource,
    api::{DynamicObject, ObjectMeta, Patch, PatchParams, PostParams},
    config::AuthInfo,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpSocket;

use super::{
    crd,
    names::{TENANT_LABEL, TENANT_UID_ANNOTATION},
};
use crate::{
    spec::{API_VERSION, Kind},
    store::kube::api_resource,
};

/// May everything.
const ADMIN: &str = "s3cret-of-tests";
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc";
/// Who runs the pods.
pub(crate) const ACCOUNT: &str = "web";
/// For programs that start; a test that waits for longer waits for ever.
const PATIENCE: Duration = Duration::from_secs(180);

/// Ended when it is dropped.
pub(crate) struct ApiServer {
    pub(crate) client: Client,
    config: Config,
    /// PKCS#8: what service accounts' tokens are signed with.
    pub(crate) signing_key: Vec<u8>,
    _etcd: Running,
    /// None while it is stopped.
    running: Option<Running>,
    address: SocketAddr,
    /// Bound, and never listening: nobody else is given the port, and the API server shares it.
    _port: TcpSocket,
    dir: TempDir,
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl ApiServer {
    /// Ready when this returns. `None`, and said, where its programs are missing.
    pub(crate) async fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            crate::say::say("skipped: needs etcd and kube-apiserver in KUBEBUILDER_ASSETS");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let port = TcpSocket::new_v4().unwrap();
        port.set_reuseport(true).unwrap();
        port.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = port.local_addr().unwrap();
        let (root, signing_key) = write_keys(dir.path());
        let mut config = Config::new(format!("https://{address}").parse().unwrap());
        config.root_cert = Some(vec![root]);
        config.auth_info = AuthInfo { token: Some(ADMIN.to_owned().into()), ..AuthInfo::default() };
        let client = Client::try_from(config.clone()).unwrap();
        let _etcd = start_etcd(&programs, dir.path());
        let mut api = Self { client, config, signing_key, _etcd, running: None, address, _port: port, dir };
        api.resume().await;
        Some(api)
    }

    /// Nobody is answered any more; what is stored stays.
    pub(crate) fn stop(&mut self) {
        self.running = None;
    }

    pub(crate) async fn resume(&mut self) {
        let file = |name: &str| self.dir.path().join(name).display().to_string();
        let options = [
            ("etcd-servers", format!("unix://{}", file("etcd.sock"))),
            ("bind-address", Ipv4Addr::LOCALHOST.to_string()),
            ("secure-port", self.address.port().to_string()),
            ("permit-port-sharing", "true".into()),
            ("endpoint-reconciler-type", "none".into()),
            ("service-cluster-ip-range", "10.96.0.0/24".into()),
            ("cert-dir", file("")),
            ("tls-cert-file", file("server.pem")),
            ("tls-private-key-file", file("server.key")),
            ("token-auth-file", file("tokens.csv")),
            ("service-account-issuer", ISSUER.into()),
            ("service-account-key-file", file("accounts.pub")),
            ("service-account-signing-key-file", file("accounts.key")),
            ("authorization-mode", "RBAC".into()),
        ];
        let programs = programs().unwrap();
        self.running = Some(run(&programs, "kube-apiserver", self.dir.path(), &options));
        let ready = async {
            while !self.client.request_text(http_get("/readyz")).await.is_ok_and(|reply| reply == "ok") {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let log = || fs::read_to_string(self.dir.path().join("kube-apiserver.log")).unwrap_or_default();
        assert!(tokio::time::timeout(PATIENCE, ready).await.is_ok(), "{}", log());
    }

    /// As `user`, who may what RBAC lets it.
    pub(crate) fn client_as(&self, user: &str) -> Client {
        let mut config = self.config.clone();
        config.auth_info.impersonate = Some(user.to_owned());
        config.auth_info.impersonate_groups = Some(vec!["system:authenticated".into()]);
        Client::try_from(config).unwrap()
    }

    pub(crate) fn all<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    pub(crate) fn within<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// With a service account; `labels`: JSON.
    pub(crate) async fn namespace(&self, name: &str, labels: Value) {
        let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels } })).unwrap();
        self.all::<Namespace>().create(&PostParams::default(), &namespace).await.unwrap();
        let metadata = ObjectMeta { name: Some(ACCOUNT.into()), ..ObjectMeta::default() };
        let account = ServiceAccount { metadata, ..ServiceAccount::default() };
        self.within::<ServiceAccount>(name).create(&PostParams::default(), &account).await.unwrap();
    }

    /// A Tenant of ours, and the namespace that is named as it; of another Tenant, where `uid` is given.
    pub(crate) async fn tenant(&self, name: &str, namespace: &str, uid: Option<&str>) {
        let definitions = self.all::<CustomResourceDefinition>();
        let definition = crd::definition(Kind::Tenant);
        let apply = PatchParams::apply("tests").force();
        definitions.patch(definition["metadata"]["name"].as_str().unwrap(), &apply, &Patch::Apply(&definition)).await.unwrap();
        let tenants: Api<DynamicObject> = Api::all_with(self.client.clone(), &api_resource(Kind::Tenant));
        let spec = json!({ "identity": [{ "issuer": "sso" }] });
        let tenant = json!({ "apiVersion": API_VERSION, "kind": "Tenant", "metadata": { "name": name }, "spec": spec });
        let made = async {
            loop {
                match tenants.patch(name, &apply, &Patch::Apply(&tenant)).await {
                    Ok(made) => break made.metadata.uid.unwrap(),
                    Err(kube::Error::Api(status)) if status.code != 404 => panic!("{status:?}"),
                    // Kinds are served a moment after they are taken.
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        let own = tokio::time::timeout(PATIENCE, made).await.expect("the kind is served");
        self.namespace(namespace, json!({ TENANT_LABEL: name })).await;
        let annotations = json!({ "metadata": { "annotations": { TENANT_UID_ANNOTATION: uid.unwrap_or(&own) } } });
        self.all::<Namespace>().patch(namespace, &PatchParams::default(), &Patch::Merge(annotations)).await.unwrap();
    }

    /// Of `ACCOUNT`. It stays pending: there is no node.
    pub(crate) async fn pod(&self, namespace: &str, name: &str, labels: Value) -> Pod {
        let pod = json!({
            "metadata": { "name": name, "labels": labels },
            "spec": { "serviceAccountName": ACCOUNT, "containers": [{ "name": "app", "image": "app" }] },
        });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        self.within::<Pod>(namespace).create(&PostParams::default(), &pod).await.unwrap()
    }

    /// A token of the `ACCOUNT` of `namespace`, as a kubelet asks for it where it is bound to a pod.
    pub(crate) async fn token(&self, namespace: &str, audiences: &[&str], pod: Option<&Pod>) -> String {
        let bound = pod.map(|pod| BoundObjectReference {
            kind: Some("Pod".into()),
            api_version: Some("v1".into()),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
        });
        let audiences = audiences.iter().map(|audience| (*audience).into()).collect();
        let spec = TokenRequestSpec { audiences, bound_object_ref: bound, expiration_seconds: Some(3600) };
        let request = TokenRequest { metadata: ObjectMeta::default(), spec, status: None };
        let accounts = self.within::<ServiceAccount>(namespace);
        accounts.create_token_request(ACCOUNT, &PostParams::default(), &request).await.unwrap().status.unwrap().token
    }
}

fn http_get(path: &str) -> hyper::Request<Vec<u8>> {
    hyper::Request::get(path).body(Vec::new()).unwrap()
}

pub(crate) fn programs() -> Option<PathBuf> {
    let folder = PathBuf::from(env::var_os("KUBEBUILDER_ASSETS")?);
    ["etcd", "kube-apiserver"].iter().all(|name| folder.join(name).is_file()).then_some(folder)
}

fn start_etcd(programs: &Path, dir: &Path) -> Running {
    let socket = |name: &str| format!("unix://{}", dir.join(name).display());
    // Advertised to nobody, but it wants a port.
    let nowhere = "http://localhost:1";
    let options = [
        ("name", "etcd".to_owned()),
        ("data-dir", dir.join("etcd").display().to_string()),
        ("listen-client-urls", socket("etcd.sock")),
        ("advertise-client-urls", nowhere.into()),
        ("listen-peer-urls", socket("peers.sock")),
        ("initial-advertise-peer-urls", nowhere.into()),
        ("initial-cluster", format!("etcd={nowhere}")),
        ("unsafe-no-fsync", "true".into()),
    ];
    run(programs, "etcd", dir, &options)
}

fn run(programs: &Path, name: &str, dir: &Path, options: &[(&str, String)]) -> Running {
    let log = fs::File::create(dir.join(format!("{name}.log"))).unwrap();
    let mut command = Command::new(programs.join(name));
    command.args(options.iter().map(|(name, value)| format!("--{name}={value}")));
    Running(command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap())
}

/// The root of the server's certificate in DER, and the key of tokens.
fn write_keys(dir: &Path) -> (Vec<u8>, Vec<u8>) {
    let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let (root_key, server_key, accounts) = (key(), key(), key());
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = root.self_signed(&root_key).unwrap();
    let mut server = CertificateParams::default();
    server.subject_alt_names = vec![SanType::IpAddress(Ipv4Addr::LOCALHOST.into())];
    let server = server.signed_by(&server_key, &Issuer::new(root, root_key)).unwrap();
    for (name, text) in [
        ("server.pem", server.pem()),
        ("server.key", server_key.serialize_pem()),
        ("accounts.key", accounts.serialize_pem()),
        ("accounts.pub", accounts.public_key_pem()),
        ("tokens.csv", format!("{ADMIN},admin,admin,system:masters\n")),
    ] {
        fs::write(dir.join(name), text).unwrap();
    }
    (certificate.der().to_vec(), accounts.serialize_der())
}
