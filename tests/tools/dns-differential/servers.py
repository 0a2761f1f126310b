"""The upstream that all ask, and the three that filter: Ringfence, Unbound and BIND, each from the same policy zones."""

import asyncio
import json
import multiprocessing
import os
import pathlib
import signal
import struct
import subprocess

import dns.flags
import dns.message
import dns.name
import dns.rdata
import dns.rrset

from world import IN, SOA, labels, text

ADAPTER = pathlib.Path(__file__).resolve().parents[1] / "rpz-adapter"
UPSTREAM = ("127.0.0.1", 5301)
PROOF = dns.rdata.from_text(IN, SOA, "ns.upstream.example. admin.upstream.example. 1 3600 900 86400 3000")
PORTS = {"ringfence": 5310, "unbound": 5311, "bind": 5312}

BIND = """\
options {{
    directory "{directory}"; pid-file "{directory}/named.pid"; session-keyfile "{directory}/session.key";
    listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
    forward only; forwarders {{ 127.0.0.1 port {upstream}; }};
    allow-query {{ any; }}; allow-recursion {{ any; }}; recursion yes;
    dnssec-validation no; empty-zones-enable no; qname-minimization disabled; minimal-any no; minimal-responses no;
    servfail-ttl 0; recursive-clients 20000; clients-per-query 0; fetches-per-server 0; max-udp-size 1232;
    response-policy {{
{policies}    }} qname-wait-recurse no break-dnssec yes max-policy-ttl 86400 nsip-enable no nsdname-enable no;
}};
controls {{ }};
"""

UNBOUND = """\
server:
    directory: "{directory}"
    pidfile: "{directory}/unbound.pid"
    chroot: ""
    username: ""
    use-syslog: no
    interface: 127.0.0.1@{port}
    access-control: 127.0.0.0/8 allow
    do-not-query-localhost: no
    do-ip6: no
    module-config: "respip iterator"
    num-threads: 1
    incoming-num-tcp: 1000
    outgoing-range: 4096
    num-queries-per-thread: 4096
    qname-minimisation: no
    minimal-responses: no
    aggressive-nsec: no
    rrset-roundrobin: no
    max-udp-size: 1232
    infra-host-ttl: 0
    {local_zones}
remote-control:
    control-enable: no
forward-zone:
    name: "."
    forward-addr: 127.0.0.1@{upstream}
"""


def bind(directory, zones):
    policies = primaries = ""
    for number, zone in enumerate(zones):
        override, _, name = zone.override.partition(":")
        given = "" if override == "given" else f" policy cname {name}" if name else f" policy {override}"
        policies += f'        zone "{zone.origin}"{given};\n'
        file = f'type primary; file "../policy{number}.zone"; notify no; check-names ignore; check-integrity no'
        primaries += f'zone "{zone.origin}" {{ {file}; }};\n'
    config = directory / "named.conf"
    config.write_text(BIND.format(directory=directory, port=PORTS["bind"], upstream=UPSTREAM[1], policies=policies) + primaries)
    return ["named", "-g", "-c", config, "-n", "1"]


def unbound(directory, zones):
    config = directory / "unbound.conf"
    # What it would answer by itself.
    own = ("test.", "invalid.", "onion.", "localhost.", "home.arpa.")
    own = "\n    ".join(f'local-zone: "{zone}" nodefault' for zone in own)
    lines = UNBOUND.format(directory=directory, port=PORTS["unbound"], upstream=UPSTREAM[1], local_zones=own)
    for number, zone in enumerate(zones):
        override, _, name = zone.override.partition(":")
        lines += f'rpz:\n    name: "{zone.origin}"\n    zonefile: "{directory}/../policy{number}.zone"\n'
        if override != "given":
            lines += f"    rpz-action-override: {override}\n"
        if name:
            lines += f'    rpz-cname-override: "{name}"\n'
    config.write_text(lines)
    return ["unbound", "-d", "-c", config]


def ringfence(directory, zones):
    policies = []
    for zone in zones:
        override, _, name = zone.override.partition(":")
        policies.append({"name": zone.origin, "override": override, "options": {"cname": name} if name else {}})
    (directory.parent / "scenario.json").write_text(json.dumps({"policies": policies}))
    return [ADAPTER, directory.parent, f"127.0.0.1:{PORTS['ringfence']}", f"{UPSTREAM[0]}:{UPSTREAM[1]}"]


class Servers:
    """All of them, for as long as the block lasts."""

    def __init__(self, directory, world):
        self.directory, self.world, self.running = directory, world, {}

    def __enter__(self):
        for number, zone in enumerate(self.world.zones):
            (self.directory / f"policy{number}.zone").write_text(zone.text())
        bound = multiprocessing.Event()
        self.upstream = multiprocessing.Process(target=serve_upstream, args=(self.world.upstream, bound), daemon=True)
        self.upstream.start()
        bound.wait()
        for name, command in (("ringfence", ringfence), ("unbound", unbound), ("bind", bind)):
            home = self.directory / f"{name}-home"
            home.mkdir()
            with open(self.directory / f"{name}.log", "w") as log:
                arguments = command(home, self.world.zones)
                self.running[name] = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        return self

    def __exit__(self, *_):
        for process in self.running.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.upstream.kill()
        self.upstream.join()

    def ended(self):
        """What those have said that run no more."""
        return {name: (self.directory / f"{name}.log").read_text() for name, process in self.running.items() if process.poll() is not None}


def serve_upstream(upstream, bound):
    asyncio.run(UpstreamServer(upstream).serve(bound))


class UpstreamServer:
    """Answers over UDP and TCP, never before the whole question is known to it: what it says depends on nothing else."""

    def __init__(self, upstream):
        self.upstream = upstream
        # What follows the question, and how many records each section has.
        self.known = {}

    async def serve(self, bound):
        loop = asyncio.get_running_loop()
        server = self

        class Datagrams(asyncio.DatagramProtocol):
            def connection_made(self, transport):
                self.transport = transport

            def datagram_received(self, data, peer):
                self.transport.sendto(server.answer(data, is_udp=True), peer)

        await loop.create_datagram_endpoint(Datagrams, UPSTREAM)
        await asyncio.start_server(self.stream, *UPSTREAM)
        bound.set()
        await asyncio.Event().wait()

    async def stream(self, reader, writer):
        try:
            while True:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                answer = self.answer(await reader.readexactly(length), is_udp=False)
                writer.write(struct.pack("!H", len(answer)) + answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def answer(self, wire, is_udp):
        end = 12
        while wire[end]:
            end += 1 + wire[end]
        question = wire[12 : end + 5]
        known = self.known.get(question.lower())
        if known is None:
            known = self.known[question.lower()] = self.look_up(question)
        rcode, counts, rest = known
        has_edns = wire[10:12] != b"\0\0"
        payload = max(512, struct.unpack("!H", wire[end + 8 : end + 10])[0]) if has_edns else 512
        truncated = 0
        if is_udp and 12 + len(question) + len(rest) + 11 > payload:
            truncated, counts, rest = 2, (0, 0), b""
        opt = b"\0\0\x29\x04\xd0\0\0\0\0\0\0" if has_edns else b""
        # QR and the query's RD; RA and the query's CD.
        flags = bytes([0x80 | truncated | wire[2] & 1, 0x80 | wire[3] & 0x10 | rcode])
        return wire[:2] + flags + struct.pack("!HHHH", 1, *counts, len(opt) > 0) + question + rest + opt

    def look_up(self, question):
        name, end = dns.name.from_wire(question, 0)
        (rtype,) = struct.unpack("!H", question[end : end + 2])
        rcode, records, proof = self.upstream.resolve(labels(name.to_text()), rtype, stop=True)
        reply = dns.message.make_response(dns.message.make_query(name, rtype))
        for record in records:
            reply.answer.append(rrset(record.owner, record.ttl, record.rdata))
        if proof is not None:
            reply.authority.append(rrset(proof, 3000, PROOF))
        wire = reply.to_wire(max_size=65535)
        return rcode, (len(records), len(reply.authority)), wire[12 + len(question) :]


def rrset(owner, ttl, rdata):
    return dns.rrset.from_rdata(text(owner), ttl, rdata)
