//! What somebody tries who runs whatever he likes in an app's container, and its tenant's admin at the API server.

use std::fs;

use ringfence_tests::{binaries::binary, chart, eventually, node::RunningPod, process::Process};
use serde_json::json;

use super::cluster::{Cluster, FOREIGN, INBOUND, said};

/// Of every attempt; `refused` alone may fail, so that what is misspelt does not pass for what is refused.
const PRELUDE: &str = r#"
import ctypes, os, socket, struct, sys
SIDECAR = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
def refused(attempt, *arguments):
    try:
        print("GOT OUT:", attempt(*arguments))
    except OSError as error:
        print(type(error).__name__, error.strerror or error)
def tcp(address, port):
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    stream = socket.socket(kind, socket.SOCK_STREAM)
    stream.settimeout(60)
    stream.connect((address, port))
    stream.send(b"GET /escaped HTTP/1.1\r\nHost: foreign.test\r\nConnection: close\r\n\r\n")
    reply = stream.recv(4096)
    return reply if b" 200 " in reply else refuse(reply)
def refuse(reply):
    raise OSError("no way: " + (reply.split(b"\r\n")[0].decode() or "closed"))
def call(name, *arguments):
    if getattr(libc, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
def answer(server, name):
    question = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asking.settimeout(60)
    asking.sendto(struct.pack(">6H", 7, 256, 1, 0, 0, 0) + question + b"\0\0\1\0\1", (server, 53))
    return struct.unpack(">6H", asking.recv(4096)[:12])
def datagram(address, port):
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.socket(kind, socket.SOCK_DGRAM).sendto(b"escaped", (address, port))
def listen(address, port):
    stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    stream.bind((address, port))
    stream.listen()
def unix(path):
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect(path)
"#;

/// The attempt, and what comes of it.
fn attempts() -> Vec<(String, &'static str)> {
    let denied = "PermissionError Operation not permitted";
    let unreadable = "PermissionError Permission denied";
    let missing = "FileNotFoundError";
    let mut attempts: Vec<(String, &'static str)> = vec![
        (format!("refused(tcp, '{FOREIGN}', 80)"), "OSError no way: "),
        (format!("refused(tcp, '{FOREIGN}', 2222)"), "OSError no way: "),
        ("refused(tcp, '169.254.169.254', 80)".into(), "OSError no way: "),
        ("refused(tcp, '10.96.0.1', 443)".into(), "OSError no way: "),
        ("refused(tcp, '2606:2800:220:1::25', 80)".into(), "OSError no way: "),
        // Whomever he asks, it is the sidecar that answers: 3 is NXDOMAIN.
        ("print('rcode', answer('8.8.8.8', 'blocked.test')[1] & 15)".into(), "rcode 3"),
        ("refused(datagram, '8.8.8.8', 443)".into(), denied),
        ("refused(datagram, '2001:4860:4860::8888', 443)".into(), denied),
        ("refused(socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)".into(), denied),
        ("refused(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 0)".into(), denied),
        ("refused(os.setuid, 64015)".into(), denied),
        ("refused(os.setgid, 64015)".into(), denied),
        ("refused(os.setgroups, [64015])".into(), denied),
        // CLONE_NEWNET
        ("refused(call, 'unshare', 0x40000000)".into(), denied),
        ("refused(open, f'/proc/{SIDECAR}/ns/net')".into(), unreadable),
        ("refused(listen, '127.0.0.1', 15001)".into(), "Address already in use"),
        ("refused(listen, '127.0.0.1', 15053)".into(), "Address already in use"),
        (format!("refused(listen, '0.0.0.0', {INBOUND})"), "Address already in use"),
        ("refused(unix, '/var/lib/ringfence/admin.sock')".into(), missing),
        ("refused(open, '/var/run/secrets/ringfence/token')".into(), missing),
        ("refused(open, '/var/lib/ringfence/svid.pem')".into(), missing),
        ("refused(open, '/run/ringfence/capture.json')".into(), missing),
        ("refused(unix, f'/proc/{SIDECAR}/root/var/lib/ringfence/admin.sock')".into(), unreadable),
        ("refused(open, f'/proc/{SIDECAR}/root/var/run/secrets/ringfence/token')".into(), unreadable),
        ("refused(open, f'/proc/{SIDECAR}/environ')".into(), unreadable),
        ("refused(open, f'/proc/{SIDECAR}/mem', 'rb')".into(), unreadable),
        ("refused(os.listdir, f'/proc/{SIDECAR}/fd')".into(), unreadable),
        // PTRACE_ATTACH
        ("refused(call, 'ptrace', 16, SIDECAR, 0, 0)".into(), denied),
        ("refused(os.kill, SIDECAR, 9)".into(), denied),
        ("refused(os.kill, SIDECAR, 19)".into(), denied),
        ("refused(call, 'setpriority', 0, SIDECAR, 19)".into(), denied),
    ];
    let capabilities = "print([line for line in open('/proc/self/status') if line.startswith(('CapEff:', 'CapBnd:', 'NoNewPrivs:'))])";
    attempts.push((capabilities.into(), r"['CapEff:\t0000000000000000\n', 'CapBnd:\t0000000000000000\n', 'NoNewPrivs:\t1\n']"));
    attempts
}

/// Programs, of which the machine that plays the image has all.
const PROGRAMS: [(&[&str], &str); 4] = [
    (&["nft", "flush", "ruleset"], "Operation not permitted"),
    (&["nft", "list", "ruleset"], "Operation not permitted"),
    (&["unshare", "--user", "--map-root-user", "nft", "flush", "ruleset"], "not permitted"),
    (&["setpriv", "--reuid=64015", "--clear-groups", "id"], "Operation not permitted"),
];

#[test]
fn whoever_has_the_apps_container_stays_behind_the_fence() {
    let Some(cluster) = Cluster::start() else { return };
    let pod = cluster.app("acme", &cluster.node.api.user("alice", None));
    let sidecar = pod.pid("ringfence-proxy").to_string();
    let seen = cluster.node.watch(&pod);
    let mut faults = Vec::new();
    let mut judge = |attempt: &str, said: String, wanted: &str| {
        if said.contains("GOT OUT") || !said.contains(wanted) {
            faults.push(format!("{attempt}: {said}"));
        }
    };
    for (attempt, wanted) in attempts() {
        let output = pod.exec("app", &["/usr/bin/python3", "-c", &format!("{PRELUDE}\n{attempt}\n"), &sidecar]);
        judge(&attempt, said(&output), wanted);
    }
    for (program, wanted) in PROGRAMS {
        judge(&program.join(" "), said(&pod.exec("app", program)), wanted);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    // The sidecar's questions to the cluster's DNS, at most.
    let out: Vec<String> = seen.told().into_iter().filter(|to| !to.starts_with("10.96.0.10 . 53")).collect();
    assert_eq!(out, Vec::<String>::new());
    assert_eq!(cluster.foreign.connections(), 0);
    assert_eq!(said(&pod.exec("app", &["curl", "-sS", "http://allowed.test/"])), "ok", "and it all works on");
}

/// Of the application's own token, as the container finds it.
fn own_token(pod: &RunningPod) -> String {
    said(&pod.exec("app", &["cat", "/var/run/secrets/kubernetes.io/serviceaccount/token"]))
}

#[test]
fn the_apps_own_token_opens_nothing_of_others() {
    let Some(cluster) = Cluster::start() else { return };
    let pod = cluster.app("acme", &cluster.node.api.user("alice", None));
    let token = own_token(&pod);
    // Past the sidecar, as one who has carried it off.
    let app = cluster.node.api.bearer(&token);
    for resource in ["secrets", "configmaps", "pods"] {
        for namespace in ["globex", chart::NAMESPACE, "acme"] {
            let refused = app.refused(["-n", namespace, "get", resource]);
            assert!(refused.contains("is forbidden") && refused.contains("system:serviceaccount:acme:"), "{refused}");
        }
    }
    // To the control plane it is no proof of a sidecar: it is for another audience.
    let dir = tempfile::tempdir().unwrap();
    let trust = cluster.admin().get(["-n", "acme", "configmap", "ringfence-trust"]);
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    for file in ["bundle.pem", "config-keys.pem"] {
        write(file, trust["data"][file].as_str().unwrap());
    }
    write("token", &token);
    let service = cluster.admin().get(["-n", chart::NAMESPACE, "service", "ringfence-control-plane"]);
    let file = |name: &str| dir.path().join(name).display().to_string();
    let bootstrap = json!({
        "workload": "acme",
        "controlPlane": { "tls": format!("{}:15010", service["spec"]["clusterIP"].as_str().unwrap()) },
        "identity": {
            "trustDomain": "ringfence.internal",
            "bundle": file("bundle.pem"),
            "source": { "controlPlane": { "serviceAccountToken": { "file": file("token") } } },
        },
        "configKeys": file("config-keys.pem"),
        "stateDir": file("state"),
        "admin": format!("unix:{}", file("admin.sock")),
    });
    write("bootstrap.json", &bootstrap.to_string());
    let mut command = cluster.node.network.command(binary("ringfence-proxy"));
    let _impostor = Process::start(command.args(["run", "--bootstrap"]).arg(dir.path().join("bootstrap.json")));
    eventually("the control plane has refused it", || {
        let lines = cluster.control_planes.iter().flat_map(|pod| pod.lines("control-plane"));
        lines.into_iter().any(|line| line.contains("is invalid for the target audiences")).then_some(())
    });
    assert!(!dir.path().join("state/svid.pem").exists());
}

#[test]
fn a_tenants_admin_changes_nothing_of_the_fence() {
    let Some(cluster) = Cluster::start() else { return };
    let alice = cluster.node.api.user("alice", None);
    let pod = cluster.app("acme", &alice);
    let name = pod.name.as_str();
    let debug = r#"{"spec":{"ephemeralContainers":[{"name":"debug","image":"app.test/app","targetContainerName":"ringfence-proxy"}]}}"#;
    let image = r#"{"spec":{"initContainers":[{"name":"ringfence-proxy","image":"app.test/app"}]}}"#;
    let cases: [(&[&str], &str); 12] = [
        (&["patch", "pod", name, "--subresource=ephemeralcontainers", "-p", debug], "pods/ephemeralcontainers"),
        (&["exec", name, "-c", "ringfence-proxy", "--", "id"], "cannot create resource \"pods/exec\""),
        (&["attach", name, "-c", "ringfence-proxy"], "cannot create resource \"pods/attach\""),
        (&["port-forward", name, "15001"], "cannot create resource \"pods/portforward\""),
        (&["label", "pod", name, "ringfence.dev/workload=globex"], "ringfence-pod-update"),
        (&["annotate", "pod", name, "ringfence.dev/inject=false"], "ringfence-pod-update"),
        (&["patch", "pod", name, "-p", image], "ringfence-pod-update"),
        (&["create", "token", "default", "--audience", "ringfence"], "serviceaccounts/token"),
        (&["delete", "networkpolicies", "--all"], "cannot delete resource \"networkpolicies\""),
        (&["delete", "configmap", "ringfence-trust"], "ringfence-trust"),
        (&["-n", "globex", "get", "pods"], "in the namespace \"globex\""),
        (&["get", "workloads.ringfence.dev"], "cannot list resource \"workloads\""),
    ];
    for (arguments, wanted) in cases {
        let refused = alice.refused([&["-n", "acme"], arguments].concat());
        assert!(refused.contains(wanted), "{arguments:?}: {refused}");
    }
}
