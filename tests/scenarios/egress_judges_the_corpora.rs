//! The corpora of addresses, hosts and ClientHellos through the real binaries, in a pod and a world that answers at every address there is.
//! That nothing was opened is what the kernel says, not our log.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use ringfence_tests::{Dns, Net, Pod, Sidecar, corpora, eventually, netns::OUTSIDE_DNS_V4, pod::EGRESS};
use serde_json::Value;

const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(93, 184, 216, 34));
/// Where no request gets, whatever it says.
const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));
const UPSTREAM: SocketAddr = SocketAddr::new(OUTSIDE_DNS_V4, 5353);

struct World {
    sidecar: Sidecar,
    dns: Dns,
    pod: Pod,
}

impl World {
    /// `ports`: where the world listens, at every address.
    fn start(egress: &str, ports: &BTreeSet<u16>) -> Option<Self> {
        let net = Net::new()?;
        for family in ["-4", "-6"] {
            // Not among the local routes, which go before all others: the pod is elsewhere.
            net.outside.ip(&[family, "route", "add", "local", "default", "dev", "lo", "table", "main"]);
        }
        for &port in ports {
            let listener = net.outside.inside(|| TcpListener::bind(("::", port)).unwrap());
            // They are told nothing. Ends with the test's process.
            thread::spawn(move || listener.incoming().for_each(drop));
        }
        let (udp, tcp) = net.outside.inside(|| (UdpSocket::bind(UPSTREAM).unwrap(), TcpListener::bind(UPSTREAM).unwrap()));
        let dns = Dns::serve(udp, tcp);
        let pod = Pod::captured(net, egress, UPSTREAM);
        pod.watch();
        let sidecar = pod.start().ready();
        Some(Self { sidecar, dns, pod })
    }

    /// What comes back for these octets; of what is granted, the head.
    #[track_caller]
    fn ask(&self, to: IpAddr, port: u16, octets: &[u8]) -> String {
        let mut stream = self.pod.connect(to, port).unwrap();
        // It may have had enough of them before it has them all.
        let _ = stream.write_all(octets);
        let (mut reply, mut piece) = (Vec::new(), [0; 4096]);
        while !reply.starts_with(b"HTTP/1.1 200 ") {
            match stream.read(&mut piece) {
                Ok(length) if length > 0 => reply.extend(&piece[..length]),
                _ => break,
            }
        }
        String::from_utf8_lossy(&reply).into_owned()
    }

    /// Whether what is asked of the proxy is granted; where it is not, nothing must have been opened.
    #[track_caller]
    fn proxy(&self, request: &str, row: &Value) -> bool {
        let reply = self.ask([127, 0, 0, 1].into(), EGRESS, format!("{request}\r\nConnection: close\r\n\r\n").as_bytes());
        self.judge(&reply, row)
    }

    #[track_caller]
    fn judge(&self, reply: &str, row: &Value) -> bool {
        let opened = self.pod.opened();
        let is_granted = reply.starts_with("HTTP/1.1 200 ") || reply.contains(r#""reason":"upstream_protocol""#);
        assert_eq!(is_granted, opened > 0, "{opened} connections opened, of {row}: {reply}");
        is_granted
    }
}

fn authority(address: IpAddr, port: u16) -> String {
    SocketAddr::new(address, port).to_string()
}

#[test]
fn addresses() {
    let Some(rows) = corpora::rows("ssrf/addresses.jsonl") else { return };
    let ports: BTreeSet<u16> = rows.iter().map(|row| u16::try_from(row["port"].as_u64().unwrap()).unwrap()).collect();
    let all = format!("{ports:?}").replace('{', "[").replace('}', "]");
    let Some(world) = World::start(
        &format!(
            "egress: {{ connectionRate: 1000/s, allow: [{{ name: all, cidrs: [0.0.0.0/0, \"::/0\"], ports: {all}, protocol: tcp }}, \
             {{ name: name, hosts: [name.test], ports: {all}, protocol: tcp }}] }}"
        ),
        &ports,
    ) else {
        return;
    };
    let (mut denied, mut allowed, mut stricter) = (0, 0, Vec::new());
    // What depends on lists of the row's own test says nothing of the defaults.
    for row in rows.iter().filter(|row| row["depends_on_config"] != true) {
        let address: IpAddr = row["ip"].as_str().unwrap().parse().unwrap();
        let port = u16::try_from(row["port"].as_u64().unwrap()).unwrap();
        let target = authority(address, port);
        world.dns.set("name.test", &[&address.to_string()]);
        let by_name = format!("name.test:{port}");
        let verdicts = [
            world.proxy(&format!("CONNECT {target} HTTP/1.1\r\nHost: {target}"), row),
            world.proxy(&format!("GET http://{target}/ HTTP/1.1\r\nHost: {target}"), row),
            world.proxy(&format!("CONNECT {by_name} HTTP/1.1\r\nHost: {by_name}"), row),
            world.proxy(&format!("GET http://{by_name}/ HTTP/1.1\r\nHost: {by_name}"), row),
        ];
        assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]), "{verdicts:?} of {row}");
        match (row["deny_by_default"] == true, verdicts[0]) {
            (true, false) => denied += 1,
            (false, true) => allowed += 1,
            (false, false) => stricter.push(address),
            (true, true) => panic!("{row}"),
        }
    }
    println!("{denied} denied, {allowed} allowed, {} more strictly: {stricter:?}", stricter.len());
    assert!(denied >= 60 && allowed >= 20, "{denied} denied, {allowed} allowed");
}

#[test]
fn hosts() {
    let Some(rows) = corpora::rows("ssrf/hosts.jsonl") else { return };
    // Names that are allowed here, and lead to where nobody may go.
    let lead = |row: &&Value| row["expect"].as_str().unwrap().starts_with("deny after resolution");
    let leading: Vec<&str> = rows.iter().filter(lead).filter_map(|row| row["host"].as_str()).collect();
    let Some(world) = World::start(
        &format!(
            "egress: {{ connectionRate: 1000/s, allow: [{{ name: all, cidrs: [0.0.0.0/0, \"::/0\"], ports: [80, 443], protocol: tcp }}, \
             {{ name: names, hosts: {leading:?}, ports: [80, 443], protocol: tcp }}] }}"
        ),
        &BTreeSet::from([80, 443]),
    ) else {
        return;
    };
    let control = "93.184.216.34:443";
    assert!(world.proxy(&format!("CONNECT {control} HTTP/1.1\r\nHost: {control}"), &Value::Null), "what is public is let through");
    for row in rows.iter().filter(lead) {
        let leads_to = row["stands_for"].as_str().and_then(|text| text.strip_prefix("dns:")).unwrap_or("127.0.0.1");
        world.dns.set(row["host"].as_str().unwrap(), &[leads_to]);
    }
    let mut judged = 0;
    for row in &rows {
        let verdicts = match (row["host"].as_str(), row["url"].as_str()) {
            (_, Some(url)) => vec![world.proxy(&format!("GET {url} HTTP/1.1\r\nHost: a.test"), row)],
            (Some(host), None) => vec![
                world.proxy(&format!("CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443"), row),
                world.proxy(&format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}"), row),
                world.judge(
                    &world.ask(METADATA, 80, format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes()),
                    row,
                ),
            ],
            _ => continue,
        };
        assert!(!verdicts.contains(&true), "{verdicts:?} of {row}");
        judged += 1;
    }
    println!("{judged} hosts and URLs, none of which opened a connection");
    assert!(judged >= 250, "{judged}");
}

/// Whoever is allowed; keeps what each connection brought.
fn sink(listener: TcpListener) -> std::sync::mpsc::Receiver<Vec<u8>> {
    let (sender, received) = std::sync::mpsc::channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut octets = Vec::new();
            let _ = stream.read_to_end(&mut octets);
            if sender.send(octets).is_err() {
                return;
            }
        }
    });
    received
}

/// In the segments that the row asks for, then nothing more.
fn send(stream: &mut TcpStream, octets: &[u8], row: &Value) {
    stream.set_nodelay(true).unwrap();
    let size = row["segments"].as_u64().map_or(octets.len().max(1), |size| usize::try_from(size).unwrap());
    // What comes too slowly comes never: a test does not wait for a clock.
    let octets = if row["delay_ms"].is_null() { octets } else { &octets[..octets.len() / 2] };
    let cut = row["cut_at"].as_u64().map_or(octets.len(), |cut| usize::try_from(cut).unwrap()).min(octets.len());
    for part in [&octets[..cut], &octets[cut..]] {
        for segment in part.chunks(size) {
            if stream.write_all(segment).is_err() {
                return;
            }
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
}

#[test]
fn client_hellos() {
    let Some(rows) = corpora::rows("ssrf/clienthellos.jsonl") else { return };
    let names = ["allowed.example", "example.com", "xn--80ak6aa92e.com"];
    let rule = format!("{{ name: names, hosts: {names:?}, ports: [443] }}");
    let Some(world) = World::start(&format!("egress: {{ connectionRate: 1000/s, allow: [{rule}] }}"), &BTreeSet::new()) else { return };
    names.iter().for_each(|name| world.dns.set(name, &[&PUBLIC.to_string()]));
    let received = sink(world.pod.net.outside.inside(|| TcpListener::bind(("::", 443)).unwrap()));
    let (mut passed, mut refused) = (0, 0);
    for row in &rows {
        let octets = BASE64_STANDARD.decode(row["raw_b64"].as_str().unwrap()).unwrap();
        let expect = row["expect"].as_str().unwrap();
        let is_named = expect.starts_with("policy:") || expect == "allow" || expect.starts_with("after TLS termination");
        let is_either = expect.starts_with("reject-or-policy");

        // To an address that has nothing to do with the name.
        let mut stream = world.pod.connect([45, 33, 32, 156].into(), 443).unwrap();
        send(&mut stream, &octets, row);
        let _ = stream.read_to_end(&mut Vec::new());
        let is_passed = world.pod.opened() > 0;
        assert!(is_passed == is_named || is_either, "captured: {row}");
        if is_passed {
            assert_eq!(received.recv().unwrap(), octets, "what was looked at arrives as it was sent: {row}");
        }

        // In a tunnel to what it names, or to another.
        let host = names.iter().find(|name| expect.ends_with(*name)).unwrap_or(&names[0]);
        let mut stream = world.pod.connect([127, 0, 0, 1].into(), EGRESS).unwrap();
        write!(stream, "CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n").unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200", "{row}");
        send(&mut stream, &octets, row);
        let _ = stream.read_to_end(&mut Vec::new());
        eventually("the tunnel's connection", || (world.pod.opened() > 0).then_some(()));
        let arrived = received.recv().unwrap();
        assert_eq!(arrived, if is_passed { &octets[..] } else { b"" }, "tunnelled: {row}");
        if is_passed { passed += 1 } else { refused += 1 }
    }
    println!("{passed} hellos were let through, {refused} were not");
    assert!(passed >= 15 && refused >= 25 && world.sidecar.log.lines().len() >= rows.len(), "{passed} passed, {refused} refused");
}
