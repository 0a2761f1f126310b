//! A pod that runs: its network, its containers in their order, commands in them.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr, TcpStream},
    path::Path,
    process::{Command, Output},
    sync::Arc,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    API_SERVICE, Node,
    container::{Bind, Runtime},
    spec::{self, Container, PodSpec, Probe},
    volumes::Source,
};
use crate::{eventually, kubernetes::User, netns::Namespace, process::Process};

/// How often an init container is started that fails.
const INIT_ATTEMPTS: usize = 3;

// Ended in this order: the workload before its sidecar.
pub struct RunningPod {
    pub name: String,
    pub namespace: String,
    pub address: Ipv4Addr,
    pub address_v6: Ipv6Addr,
    containers: Vec<Running>,
    pub(super) object: Value,
    pub(super) spec: PodSpec,
    pub network: Namespace,
    dir: TempDir,
    outside: Arc<Namespace>,
}

struct Running {
    runtime: Runtime,
    process: Process,
    name: String,
}

impl RunningPod {
    pub(super) fn start(node: &Node, object: Value, network: Namespace, addresses: (Ipv4Addr, Ipv6Addr)) -> Result<Self, String> {
        let spec = spec::read(&object)?;
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut pod = Self {
            name: text("/metadata/name"),
            namespace: text("/metadata/namespace"),
            address: addresses.0,
            address_v6: addresses.1,
            containers: Vec::new(),
            object,
            spec,
            network,
            dir: tempfile::tempdir().unwrap(),
            outside: node.network.clone(),
        };
        pod.write_etc(node);
        let runtimes = pod.prepare(&node.kubelet)?;
        for (index, runtime) in runtimes.into_iter().enumerate() {
            pod.begin(index, runtime)?;
        }
        for container in &pod.spec.containers {
            pod.passes(container, container.readiness_probe.as_ref());
        }
        pod.tell(&node.kubelet);
        Ok(pod)
    }

    /// A program in a running container, as `kubectl exec` has the runtime start it.
    #[track_caller]
    pub fn exec(&self, container: &str, command: &[&str]) -> Output {
        self.command(container, command).output().unwrap()
    }

    #[track_caller]
    pub fn command(&self, container: &str, command: &[&str]) -> Command {
        let running = self.running(container);
        let mut entered = running.runtime.enter(&running.process);
        entered.args(command);
        entered
    }

    /// The process of a container.
    #[track_caller]
    pub fn pid(&self, container: &str) -> u32 {
        self.running(container).process.pid()
    }

    /// What a container has printed.
    #[track_caller]
    pub fn lines(&self, container: &str) -> Vec<String> {
        self.running(container).process.lines()
    }

    #[track_caller]
    fn running(&self, name: &str) -> &Running {
        let found = self.containers.iter().find(|running| running.name == name);
        found.unwrap_or_else(|| panic!("no container {name:?} runs in {}", self.name))
    }

    /// What every container finds there: who resolves names, and whose root it is not.
    fn write_etc(&self, node: &Node) {
        let etc = self.dir.path().join("etc");
        fs::create_dir(&etc).unwrap();
        let Self { namespace, name, address, .. } = self;
        let write = |file: &str, text: &str| fs::write(etc.join(file), text).unwrap();
        write(
            "resolv.conf",
            &format!(
                "search {namespace}.svc.cluster.local svc.cluster.local cluster.local\nnameserver {}\noptions ndots:5\n",
                node.dns.address.ip()
            ),
        );
        write("hosts", &format!("127.0.0.1 localhost\n::1 localhost\n{address} {name}\n"));
        write("nsswitch.conf", "hosts: files dns\n");
        write("passwd", "root:x:0:0::/:/bin/sh\n");
        write("group", "root:x:0:\n");
        // Of the machine's programs, which are the images'.
        for path in ["ld.so.cache", "alternatives"] {
            let copied = Command::new("cp").arg("-a").arg(Path::new("/etc").join(path)).arg(&etc).status().unwrap();
            assert!(copied.success(), "/etc/{path}");
        }
    }

    fn prepare(&self, kubelet: &User) -> Result<Vec<Runtime>, String> {
        let source = Source { node: kubelet, pod: &self.object, spec: &self.spec, address: self.address.to_string() };
        let volumes = self.dir.path().join("volumes");
        for volume in &self.spec.volumes {
            source.make(volume, &volumes.join(&volume.name))?;
        }
        let runtime = |container: &Container| {
            let binds = container.volume_mounts.iter().map(|mount| {
                let volume = self.spec.volumes.iter().find(|volume| volume.name == mount.name);
                Bind {
                    from: volumes.join(&mount.name).display().to_string(),
                    to: mount.mount_path.clone(),
                    // But for an emptyDir, nobody writes to what the node keeps.
                    read_only: mount.read_only || volume.is_none_or(|volume| volume.empty_dir.is_none()),
                }
            });
            let mut env = vec![
                ("HOSTNAME".to_owned(), self.name.clone()),
                ("KUBERNETES_SERVICE_HOST".to_owned(), API_SERVICE.to_string()),
                ("KUBERNETES_SERVICE_PORT".to_owned(), "443".to_owned()),
            ];
            for variable in &container.env {
                let value = match (&variable.value, &variable.value_from) {
                    (_, Some(from)) => source.field(&from.field_ref)?,
                    (value, None) => value.clone().unwrap_or_default(),
                };
                env.push((variable.name.clone(), value));
            }
            Runtime::new(container, &self.spec.security_context, binds.collect(), &env)
        };
        self.spec.init_containers.iter().chain(&self.spec.containers).map(runtime).collect()
    }

    /// Starts the container of this place and waits for what the next one waits for.
    fn begin(&mut self, index: usize, runtime: Runtime) -> Result<(), String> {
        let inits = self.spec.init_containers.len();
        let container = self.container(index);
        let start = || runtime.start(&self.network, &self.name, self.dir.path());
        if index < inits && container.restart_policy.is_none() {
            // As a kubelet does, which goes on for as long as the pod is there.
            let mut process = (1..INIT_ATTEMPTS).fold(start(), |mut process, _| if process.ended().success() { process } else { start() });
            let status = process.ended();
            if !status.success() {
                return Err(format!("container {}: {status}\n{}", container.name, process.lines().join("\n")));
            }
            return Ok(());
        }
        let process = start();
        // In front: what is started last is ended first.
        self.containers.insert(0, Running { runtime, process, name: container.name.clone() });
        let container = self.container(index);
        self.passes(container, container.startup_probe.as_ref());
        Ok(())
    }

    /// In the order in which they are started.
    fn container(&self, index: usize) -> &Container {
        self.spec.init_containers.iter().chain(&self.spec.containers).nth(index).expect("one runtime for each")
    }

    #[track_caller]
    fn passes(&self, container: &Container, probe: Option<&Probe>) {
        let Some(probe) = probe else { return };
        let passed = || self.try_probe(container, probe).then_some(());
        eventually(&format!("{} of {} passes its probe", container.name, self.name), passed);
    }

    /// Whether a kubelet that looked now would leave the pod in its Services, as far as one look tells.
    pub fn is_ready(&self) -> bool {
        self.spec.containers.iter().all(|container| container.readiness_probe.as_ref().is_none_or(|probe| self.try_probe(container, probe)))
    }

    fn try_probe(&self, container: &Container, probe: &Probe) -> bool {
        if let Some(exec) = &probe.exec {
            let command: Vec<&str> = exec.command.iter().map(String::as_str).collect();
            return self.exec(&container.name, &command).status.success();
        }
        let port = |port| container.port(port).expect("a probe of a port that is there");
        if let Some(get) = &probe.http_get {
            let url = format!("{}://{}:{}{}", get.scheme.to_ascii_lowercase(), self.address, port(&get.port), get.path);
            let timeout = probe.timeout_seconds.to_string();
            let output = self.outside.command("curl").args(["--fail", "--insecure", "--max-time", &timeout, &url]).output();
            return output.unwrap().status.success();
        }
        let port = probe.tcp_socket.as_ref().map(|tcp| port(&tcp.port)).expect("it is of one kind");
        self.outside.inside(|| TcpStream::connect((self.address, port)).is_ok())
    }

    /// To whoever asks the API server.
    fn tell(&self, kubelet: &User) {
        let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(|kind| json!({ "type": kind, "status": "True" }));
        let address = self.address.to_string();
        let status = json!({ "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }], "conditions": conditions });
        let path = format!("/api/v1/namespaces/{}/pods/{}/status", self.namespace, self.name);
        eventually("the API server takes the pod's status", || {
            let mut object = kubelet.get(["-n", &self.namespace, "pod", &self.name]);
            object["status"] = status.clone();
            kubelet.feed(["replace", "--raw", &path, "-f", "-"], &object.to_string()).status.success().then_some(())
        });
    }
}
