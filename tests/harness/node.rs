//! A node: it takes pods from a real API server and runs them as a kubelet, a runtime and kube-proxy would, with what a Linux machine has.
//!
//! ```text
//! pod  10.244.0.N/32 fd77:244::N/128   <-- cable -->   node  10.244.0.1, the API server (10.96.0.1:443), the cluster's DNS (10.96.0.10:53),
//!                                                            Services by address translation, and what `address` adds: the world outside
//! ```
//!
//! There is nobody who enforces NetworkPolicies: what holds here holds without them.

mod container;
mod image;
mod running;
mod spec;
mod volumes;
mod watch;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use rustix::process::geteuid;
use serde_json::{Value, json};

pub use running::RunningPod;
pub use watch::Watch;

use crate::{Dns, KubeApi, eventually, kubernetes::User, netns::Namespace};

pub const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
const NAME: &str = "n1";

// Ended in this order.
pub struct Node {
    pub api: KubeApi,
    /// The cluster's, and the world's.
    pub dns: Dns,
    kubelet: User,
    /// The last number of an address that was given away.
    given: AtomicU8,
    pub network: Arc<Namespace>,
}

impl Node {
    /// With an API server of its own. `None`, and said, where this process may not make namespaces or a program is missing.
    #[track_caller]
    #[allow(clippy::print_stdout, reason = "what a test skips it says in its output")]
    pub fn start() -> Option<Self> {
        if !geteuid().is_root() {
            println!("skipped: needs root");
            return None;
        }
        let network = Arc::new(Namespace::new("node"));
        network.ip(&["link", "set", "lo", "up"]);
        network.inside(|| {
            for forwarding in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                fs::write(format!("/proc/sys/net/{forwarding}"), "1").unwrap();
            }
        });
        for address in [GATEWAY, API_SERVICE, DNS_SERVICE] {
            network.address(address.into());
        }
        // Asked for before an address is translated, and never taken.
        network.ip(&["route", "add", "10.96.0.0/24", "dev", "lo", "src", &GATEWAY.to_string()]);
        let api = KubeApi::start_in(Some(network.clone()))?;
        let kubelet = api.user(&format!("system:node:{NAME}"), Some("system:nodes"));
        let resolver = SocketAddr::from((DNS_SERVICE, 53));
        let (udp, tcp) = network.inside(|| (UdpSocket::bind(resolver).unwrap(), TcpListener::bind(resolver).unwrap()));
        let node = Self { dns: Dns::serve(udp, tcp), api, kubelet, given: AtomicU8::new(1), network };
        let hook = |hook: &str| format!("chain {hook} {{ type nat hook {hook} priority -100; jump addresses; }}\n");
        node.nft(&format!("table ip services {{\nchain addresses {{ }}\n{}{}}}", hook("prerouting"), hook("output")));
        node.lead(API_SERVICE, 443, &[(GATEWAY, node.api.port())]);
        Some(node)
    }

    /// One more address of the world outside.
    #[track_caller]
    pub fn address(&self, address: IpAddr) {
        self.network.address(address);
    }

    /// A listener in the world outside, at an address that was added.
    #[track_caller]
    pub fn listen(&self, address: IpAddr, port: u16) -> TcpListener {
        self.network.inside(|| TcpListener::bind((address, port)).unwrap())
    }

    /// Binds a pod and runs it. When this returns its init containers have done their part and its containers are ready.
    #[track_caller]
    pub fn run(&self, namespace: &str, pod: &str) -> RunningPod {
        self.try_run(namespace, pod).unwrap_or_else(|why| panic!("pod {namespace}/{pod}: {why}"))
    }

    /// The same; or what cannot be run of it.
    #[track_caller]
    pub fn try_run(&self, namespace: &str, pod: &str) -> Result<RunningPod, String> {
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": { "name": pod, "namespace": namespace },
            "target": { "apiVersion": "v1", "kind": "Node", "name": NAME },
        });
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/binding");
        self.api.admin().create_at(&path, &binding);
        let object = eventually("the API server gives the node its pod", || {
            let output: Output = self.kubelet.kubectl(["-n", namespace, "get", "pod", pod, "-o", "json"]);
            output.status.success().then(|| serde_json::from_slice::<Value>(&output.stdout).unwrap())
        });
        let number = self.given.fetch_add(1, Ordering::Relaxed) + 1;
        let addresses = (Ipv4Addr::new(10, 244, 0, number), Ipv6Addr::new(0xfd77, 0x244, 0, 0, 0, 0, 0, number.into()));
        let network = self.cable(number, addresses);
        RunningPod::start(self, object, network, addresses)
    }

    /// Leads a Service's address to those of the pods that it selects, in turn, and its name to the address.
    #[track_caller]
    pub fn serve(&self, namespace: &str, service: &str, pods: &[RunningPod]) {
        let object = self.api.admin().get(["-n", namespace, "service", service]);
        let address: Ipv4Addr = object["spec"]["clusterIP"].as_str().unwrap().parse().unwrap();
        let selected: Vec<_> = pods.iter().filter(|pod| spec::selects(&object["spec"]["selector"], &pod.object)).collect();
        for port in object["spec"]["ports"].as_array().unwrap() {
            let target = if port["targetPort"].is_null() { &port["port"] } else { &port["targetPort"] };
            let of = |pod: &&RunningPod| {
                let number = pod.spec.containers.iter().find_map(|container| container.port(target));
                (pod.address, number.unwrap_or_else(|| panic!("{}: no port {target}", pod.name)))
            };
            let backends: Vec<_> = selected.iter().map(of).collect();
            self.lead(address, u16::try_from(port["port"].as_u64().unwrap()).unwrap(), &backends);
        }
        self.dns.set(&format!("{service}.{namespace}.svc.cluster.local"), &[&address.to_string()]);
    }

    /// Where a pod's packets are bound for, from now on.
    #[track_caller]
    pub fn watch(&self, pod: &RunningPod) -> Watch {
        Watch::new(&self.network, &format!("pod{}", pod.address.octets()[3]))
    }

    fn lead(&self, address: Ipv4Addr, port: u16, backends: &[(Ipv4Addr, u16)]) {
        for (number, (to, to_port)) in backends.iter().enumerate() {
            let turn = backends.len() - number;
            self.nft(&format!(
                "add rule ip services addresses ip daddr {address} tcp dport {port} numgen inc mod {turn} == 0 dnat to {to}:{to_port}"
            ));
        }
    }

    /// A pod's network: nothing but a cable to the node, by which all else is reached.
    fn cable(&self, number: u8, (v4, v6): (Ipv4Addr, Ipv6Addr)) -> Namespace {
        let (network, port) = (Namespace::new("pod"), format!("pod{number}"));
        self.network.ip(&["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", network.name()]);
        self.network.ip(&["link", "set", &port, "up"]);
        self.network.ip(&["address", "add", "fe80::1/64", "dev", &port, "nodad"]);
        self.network.ip(&["route", "add", &v4.to_string(), "dev", &port]);
        self.network.ip(&["route", "add", &v6.to_string(), "dev", &port]);
        network.ip(&["address", "add", &format!("{v4}/32"), "dev", "eth0"]);
        network.ip(&["address", "add", &format!("{v6}/128"), "dev", "eth0", "nodad"]);
        for link in ["lo", "eth0"] {
            network.ip(&["link", "set", link, "up"]);
        }
        network.ip(&["route", "add", &GATEWAY.to_string(), "dev", "eth0", "scope", "link"]);
        network.ip(&["route", "add", "default", "via", &GATEWAY.to_string()]);
        network.ip(&["route", "add", "default", "via", "fe80::1", "dev", "eth0"]);
        network
    }

    #[track_caller]
    fn nft(&self, rules: &str) {
        let output = self.network.command("nft").arg(rules).output().unwrap();
        assert!(output.status.success(), "{rules}: {output:?}");
    }
}
