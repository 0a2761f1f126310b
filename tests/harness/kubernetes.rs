//! A cluster without nodes: etcd, kube-apiserver and some of its controllers. Pods are admitted and stay pending.

mod user;

use std::{
    env,
    ffi::OsStr,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, LazyLock},
};

use rcgen::{KeyPair, PKCS_RSA_SHA256};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::{binaries, eventually, netns::Namespace, process::Process, tls};

pub use user::User;

/// Who its service-account tokens are of, and for, where nobody asks for another audience.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// May everything, whatever RBAC says.
const MASTERS: &str = "system:masters";
/// Those without which it would not be a cluster to its users.
const CONTROLLERS: [&str; 7] = [
    // The rules of `admin`, `edit` and `view`.
    "clusterrole-aggregation-controller",
    "garbage-collector-controller",
    "namespace-controller",
    // Where a quota is not counted no pod is admitted.
    "resourcequota-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    // Says what in a policy's expressions cannot be right.
    "validatingadmissionpolicy-status-controller",
];

/// Those that make pods, for whoever has nodes to run them on.
const WORKLOAD_CONTROLLERS: [&str; 2] = ["deployment-controller", "replicaset-controller"];

/// Runs a program until its own standard input ends: with the test process, however that ended, for nothing of a `static` is dropped. Then
/// the directory goes too.
const KEEPER: &str = r#"
    directory=$1; shift
    "$@" &
    trap 'kill -KILL $!; wait; rm -rf "$directory"' EXIT
    trap 'exit 0' TERM
    trap '' INT
    read -r _
"#;

/// Ended when it is dropped.
pub struct KubeApi {
    pub url: String,
    port: u16,
    admin: User,
    _etcd: Process,
    _controllers: Option<Process>,
    /// None while it is stopped.
    apiserver: Option<Process>,
    /// Bound, and never listening: nobody else is given the port, and the API server shares it.
    _port: Socket,
    dir: TempDir,
    place: Place,
}

/// The network that it is in with its users: the tests' own, or a namespace with a cluster's usual addresses.
pub(crate) type Place = Option<Arc<Namespace>>;

impl KubeApi {
    /// One for all tests that need none of their own, each in namespaces of its own; ended with the test process. `None`, and said, where
    /// a program is missing.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: LazyLock<Option<KubeApi>> = LazyLock::new(KubeApi::start);
        if SHARED.is_none() {
            say_skipped();
        }
        SHARED.as_ref()
    }

    /// Ready when this returns, some seconds later. `None`, and said, where a program is missing.
    #[track_caller]
    pub fn start() -> Option<Self> {
        Self::start_in(None)
    }

    /// The same, in a network of its own: there it listens on every address, and Deployments become pods.
    #[track_caller]
    pub(crate) fn start_in(place: Place) -> Option<Self> {
        if ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"].iter().any(|name| program(name).is_none()) {
            say_skipped();
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        // It takes no port 0.
        let bind = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_reuse_port(true).unwrap();
            socket.bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
            socket
        };
        let socket = inside(&place, bind);
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        write_keys(dir.path(), services(&place, port)[1]);
        let url = format!("https://127.0.0.1:{port}");
        let admin = User::certified(dir.path(), &url, &place, "admin", Some(MASTERS));
        let mut api =
            Self { _etcd: start_etcd(dir.path()), _controllers: None, apiserver: None, url, port, admin, _port: socket, dir, place };
        api.resume();
        // They give up on an API server that takes longer than ten seconds to start.
        api._controllers = Some(start_controllers(api.dir.path(), &api.place, &api.admin));
        Some(api)
    }

    /// Nobody is answered any more; what is stored stays.
    pub fn stop(&mut self) {
        self.apiserver = None;
    }

    /// After `stop`: the same again, at the same address.
    #[track_caller]
    pub fn resume(&mut self) {
        let dir = self.dir.path();
        let file = |name: &str| dir.join(name).display().to_string();
        let options = [
            ("etcd-servers", format!("unix://{}", file("etcd.sock"))),
            ("bind-address", if self.place.is_some() { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST }.to_string()),
            ("secure-port", self.port.to_string()),
            ("permit-port-sharing", "true".into()),
            // Told to nobody: its own address is no endpoint that it would take.
            ("advertise-address", if self.place.is_some() { services(&self.place, self.port)[1] } else { Ipv4Addr::LOCALHOST }.to_string()),
            ("endpoint-reconciler-type", "none".into()),
            ("service-cluster-ip-range", format!("{}/24", services(&self.place, self.port)[0])),
            ("cert-dir", file("")),
            ("tls-cert-file", file("server.pem")),
            ("tls-private-key-file", file("server.key")),
            ("client-ca-file", file("ca.pem")),
            ("service-account-issuer", ISSUER.into()),
            ("service-account-key-file", file("tokens.pem")),
            ("service-account-signing-key-file", file("tokens.key")),
            // As kubeadm has them.
            ("authorization-mode", "Node,RBAC".into()),
            ("enable-admission-plugins", "NodeRestriction".into()),
            ("allow-privileged", "true".into()),
        ];
        self.apiserver = Some(start("kube-apiserver", &self.place, None, &options));
        let address = (Ipv4Addr::LOCALHOST, self.port);
        eventually("the API server is ready", || {
            let stream = inside(&self.place, || std::net::TcpStream::connect(address)).ok()?;
            let reply = tls::get(stream, "127.0.0.1", "/readyz").ok()?;
            reply.ends_with("\r\n\r\nok").then_some(())
        });
    }

    /// Of whom its certificate is, as PEM; it believes certificates of the same authority.
    pub fn ca(&self) -> String {
        tls::authority()
    }

    /// At which it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// One who may everything.
    pub fn admin(&self) -> &User {
        &self.admin
    }

    /// Anybody, in no group of his own or in one (rcgen writes one organization into a certificate), and in `system:authenticated`.
    pub fn user(&self, name: &str, group: Option<&str>) -> User {
        User::certified(self.dir.path(), &self.url, &self.place, name, group)
    }

    /// Whoever has this token.
    pub fn bearer(&self, token: &str) -> User {
        User::bearing(self.dir.path(), &self.url, &self.place, token)
    }

    /// A new namespace with its `default` service account, without which no pod is admitted; in it nobody else is.
    #[track_caller]
    pub fn namespace(&self, name: &str) {
        self.admin.ok(["create", "namespace", name]);
        eventually("the service account is made", || {
            self.admin.kubectl(["-n", name, "get", "serviceaccount", "default"]).status.success().then_some(())
        });
    }
}

/// The first addresses of its services. In the tests' network they are loopback's and the cluster's own: a test that listens at a service's
/// address is reached by its name in a webhook's `clientConfig.service`.
fn services(place: &Place, port: u16) -> [Ipv4Addr; 2] {
    let [high, low] = port.to_be_bytes();
    [0, 1].map(|last| if place.is_some() { Ipv4Addr::new(10, 96, 0, last) } else { Ipv4Addr::new(127, high, low, last) })
}

fn inside<T: Send>(place: &Place, work: impl FnOnce() -> T + Send) -> T {
    match place {
        Some(namespace) => namespace.inside(work),
        None => work(),
    }
}

fn command(place: &Place, program: impl AsRef<OsStr>) -> Command {
    place.as_ref().map_or_else(|| Command::new(&program), |namespace| namespace.command(&program))
}

fn start_etcd(dir: &Path) -> Process {
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
        ("log-level", "warn".into()),
    ];
    start("etcd", &None, Some(dir), &options)
}

fn start_controllers(dir: &Path, place: &Place, admin: &User) -> Process {
    let of_pods = if place.is_some() { &WORKLOAD_CONTROLLERS[..] } else { &[] };
    let options = [
        ("kubeconfig", admin.kubeconfig.display().to_string()),
        ("controllers", [&CONTROLLERS, of_pods].concat().join(",")),
        ("root-ca-file", dir.join("ca.pem").display().to_string()),
        ("leader-elect", "false".into()),
        ("secure-port", "0".into()),
    ];
    start("kube-controller-manager", place, None, &options)
}

/// `directory`: goes away with it.
#[track_caller]
fn start(name: &str, place: &Place, directory: Option<&Path>, options: &[(&str, String)]) -> Process {
    let directory = directory.map_or(OsStr::new(""), Path::as_os_str);
    let mut command = command(place, "sh");
    command.args(["-c", KEEPER, "keeper"]).arg(directory).arg(program(name).expect("it was there before"));
    command.args(options.iter().map(|(name, value)| format!("--{name}={value}")));
    Process::start_fed(&mut command)
}

/// The API server's certificate, and what it signs tokens with: RS256, as most clusters do.
fn write_keys(dir: &Path, service: Ipv4Addr) {
    let names = ["127.0.0.1", "localhost", "kubernetes.default.svc", &service.to_string()];
    let (certificate, key) = tls::pair_of_all(&names);
    let tokens = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let files = [
        ("ca.pem", tls::authority()),
        ("server.pem", certificate),
        ("server.key", key),
        ("tokens.key", tokens.serialize_pem()),
        ("tokens.pem", tokens.public_key_pem()),
    ];
    for (name, text) in files {
        fs::write(dir.join(name), text).unwrap();
    }
}

/// Of KUBEBUILDER_ASSETS, or beside a kube-apiserver on the path, or made by `tests/run`.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let assets = match env::var_os("KUBEBUILDER_ASSETS").filter(|folder| !folder.is_empty()) {
        Some(assets) => Some(assets.into()),
        None => env::split_paths(&path).find(|folder| folder.join("kube-apiserver").is_file()),
    };
    let folders = assets.into_iter().chain([binaries::target().join("kubernetes")]);
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}

#[allow(clippy::print_stdout, reason = "what a test skips it says in its output")]
fn say_skipped() {
    println!("skipped: needs a kube-apiserver, which tests/run makes");
}
