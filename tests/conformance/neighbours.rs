//! What other processes of a pod get of its sidecar: the workload's, and one that runs as the sidecar's own user.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    os::unix::net::UnixStream,
    process::Stdio,
};

use ringfence_tests::{
    Net, Pod,
    pod::{DNS, EGRESS, INBOUND, SIDECAR, WORKLOAD},
};

/// Of proc(5): whoever reads these has the keys, the tokens that pass, or a way to get them.
const CLOSED: [&str; 8] = ["auxv", "cwd/", "environ", "fd/", "io", "maps", "mem", "root/"];
/// What anybody may know of a process.
const OPEN: [&str; 3] = ["cmdline", "comm", "status"];

#[test]
fn a_neighbour_of_the_sidecar_gets_nothing_of_it() {
    let Some(net) = Net::new() else { return };
    let pod = Pod::captured(net, "", (Ipv4Addr::LOCALHOST, 1).into());
    let sidecar = pod.start().ready();
    let reads = |uid, entry: &str| {
        let mut command = pod.net.pod.command_as(uid, if entry.ends_with('/') { "ls" } else { "cat" });
        let path = format!("/proc/{}/{entry}", sidecar.process.pid());
        command.arg(path).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    };
    for uid in [WORKLOAD, SIDECAR] {
        for entry in CLOSED {
            assert!(!reads(uid, entry), "{entry} as {uid}");
        }
        for entry in OPEN {
            assert!(reads(uid, entry), "{entry} as {uid}");
        }
    }

    // Files that only the sidecar's user may read.
    let last_good = sidecar.state.join("last-good");
    for file in [&last_good, &pod.site.beside().join("pod/access.log")] {
        for (uid, may) in [(WORKLOAD, false), (SIDECAR, true)] {
            let mut cat = pod.net.pod.command_as(uid, "cat");
            let status = cat.arg(file).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
            assert_eq!(status.success(), may, "{} as {uid}", file.display());
        }
    }
    let denied = |result: io::Result<UnixStream>| result.map_err(|error| error.kind()).err() == Some(io::ErrorKind::PermissionDenied);
    let (admin, ads) = (pod.site.beside().join("pod/admin"), pod.serve.socket("pod"));
    for socket in [&admin, &ads] {
        assert!(denied(pod.net.pod.inside_as(WORKLOAD, || UnixStream::connect(socket))), "{}", socket.display());
        assert!(pod.net.pod.inside_as(SIDECAR, || UnixStream::connect(socket)).is_ok(), "{}", socket.display());
    }

    // Nor are its ports shared with anybody.
    for port in [INBOUND, EGRESS, DNS] {
        let bound = pod.net.pod.inside_as(WORKLOAD, || TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
        assert_eq!(bound.unwrap_err().kind(), io::ErrorKind::AddrInUse, "{port}");
    }
    let mut kill = pod.workload("kill");
    let killed = kill.args(["-TERM", &sidecar.process.pid().to_string()]).stderr(Stdio::null()).status().unwrap();
    assert!(!killed.success() && sidecar.admin.get("/readyz").is_some_and(|reply| reply.status == 200));
}
