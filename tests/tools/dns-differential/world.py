"""What there is to ask about: made-up policy zones, the upstream's records, and queries, all by a seed.

A name is a tuple of labels in lower case, without the root's.
"""

import collections
import ipaddress
import random

import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype

IN = dns.rdataclass.IN
A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, DS, SVCB, HTTPS, ANY, CAA = (
    int(dns.rdatatype.from_text(mnemonic))
    for mnemonic in ("A", "NS", "CNAME", "SOA", "PTR", "MX", "TXT", "AAAA", "DS", "SVCB", "HTTPS", "ANY", "CAA")
)
TYPES = [A] * 12 + [AAAA] * 5 + [HTTPS, HTTPS, TXT, TXT, MX, NS, SOA, CNAME, PTR, SVCB, ANY, CAA, DS]
# Seconds. TTLs are told in whole units of this, and count down by less than one while the servers run.
TTL_UNIT = 1000

Record = collections.namedtuple("Record", "owner rtype ttl rdata")
# `address`: of the client. `payload`: octets of a UDP answer that the client takes; None: it says nothing, and no EDNS at all.
Query = collections.namedtuple("Query", "name spelled rtype address tcp dnssec_ok checking_disabled payload")
# `target`: the name that a CNAME of the rule names, where that stands for no action. `bits`: of its prefix.
Rule = collections.namedtuple("Rule", "trigger owner action records target ttl bits")

ACTIONS = {"nxdomain": ".", "nodata": "*.", "passthru": "rpz-passthru.", "drop": "rpz-drop.", "tcp-only": "rpz-tcp-only."}

LOCAL_DATA = {
    A: ["203.0.113.1", "203.0.113.2"],
    AAAA: ["2001:db8:ffff::1"],
    TXT: ['"local"'],
    MX: ["10 mail.walled.example."],
    CAA: ['0 issue ";"'],
}


def text(name):
    return dns.name.Name((*name, b"")).to_text()


def labels(name):
    """`name`: as a zone file spells it, absolute."""
    return tuple(label.lower() for label in dns.name.from_text(name).labels[:-1])


def canonical(rdata):
    """The same for all spellings of the names in it."""
    return rdata.to_digestable(dns.name.root)


def rdata(rtype, data):
    return dns.rdata.from_text(IN, rtype, data)


class Upstream:
    """Knows every name, as a recursive resolver does, and follows aliases, but from those in `stops`."""

    def __init__(self):
        self.records = collections.defaultdict(dict)
        self.existing = {()}
        self.failing = set()
        self.stops = set()
        self.zones = set()

    def add(self, name, rtype, ttl, *data):
        self.records[name][rtype] = (ttl, [rdata(rtype, each) for each in data])
        for start in range(len(name)):
            self.existing.add(name[start:])

    def find(self, name):
        """The records of a name, its own or a wildcard's; None: there is no such name."""
        if name in self.existing:
            return self.records.get(name, {})
        start = 1
        while name[start:] not in self.existing:
            start += 1
        return self.records.get((b"*", *name[start:]))

    def zone_of(self, name):
        return next((name[start:] for start in range(len(name)) if name[start:] in self.zones), ())

    def resolve(self, name, rtype, stop=False):
        """Rcode, records, and the zone whose SOA proves that there are no more; `stop`: at aliases that the upstream does not follow.
        With SERVFAIL, the aliases that the upstream had told before it failed."""
        answer, before = [], []
        while True:
            if name in self.failing:
                return 2, before, None
            found = self.find(name)
            if found is None:
                return 3, answer, self.zone_of(name)
            of = [rtype] if rtype != ANY else list(found)
            hits = [Record(name, each, found[each][0], data) for each in of if each in found for data in found[each][1]]
            if hits:
                return 0, answer + hits, None
            if CNAME not in found or rtype == ANY:
                # A zone's own DS records stand in the zone above it.
                return 0, answer, self.zone_of(name[1:] if rtype == DS else name)
            ttl, (alias,) = found[CNAME]
            answer.append(Record(name, CNAME, ttl, alias))
            stopped, name = name in self.stops, labels(alias.target.to_text())
            if stopped:
                before = list(answer)
                if stop:
                    return 0, answer, None


class PolicyZone:
    def __init__(self, origin, override):
        self.origin, self.override = origin, override
        self.exact, self.wildcards = {}, {}
        self.prefixes = {"client-ip": {}, "ip": {}}
        self.sorted_owners = None

    def owners(self):
        """Of the rules about names, as a server's tree has them: in canonical order (RFC 4034 section 6.1), labels from the right."""
        if not self.sorted_owners:
            self.sorted_owners = sorted([*(name[::-1] for name in self.exact), *((*name[::-1], b"*") for name in self.wildcards)])
        return self.sorted_owners

    def rules(self):
        tables = self.exact, self.wildcards, *self.prefixes.values()
        return [rule for table in tables for rule in table.values()]

    def text(self):
        soa = f"{self.origin} 3000 IN SOA ns.{self.origin} h.{self.origin} 1 3600 900 86400 3000"
        lines = [soa, f"{self.origin} 3000 IN NS localhost."]
        for rule in self.rules():
            owner = f"{rule.owner}{self.origin}"
            if rule.action in ACTIONS:
                lines.append(f"{owner} {rule.ttl} IN CNAME {ACTIONS[rule.action]}")
            lines += [f"{owner} {r.ttl} IN {dns.rdatatype.to_text(r.rtype)} {r.rdata.to_text()}" for r in rule.records]
        return "\n".join(lines) + "\n"


class World:
    """One set of policy zones, and what they are about."""

    def __init__(self, seed, names):
        self.random = random.Random(seed)
        self.upstream = Upstream()
        self.names = [labels(name + ".") for name in self.random.sample(names, 1200)]
        self.targets = [labels("garden.walled.example."), labels("absent.walled.example."), labels("alias.walled.example.")]
        self.upstream.zones.add(labels("walled.example."))
        for target in ("garden", "*.wild"):
            self.upstream.add(labels(f"{target}.walled.example."), A, 4000, "203.0.113.80")
            self.upstream.add(labels(f"{target}.walled.example."), AAAA, 4000, "2001:db8:ffff::80")
            self.upstream.add(labels(f"{target}.walled.example."), TXT, 4000, '"walled"')
        self.upstream.add(self.targets[2], CNAME, 2000, "garden.walled.example.")
        self.asked = []
        for number, name in enumerate(self.names):
            self.add_site(number, name)
        self.zones = [self.policy_zone(number) for number in range(self.random.randint(2, 6))]

    def ttl(self):
        return self.random.randint(1, 9) * TTL_UNIT

    def addresses(self, count):
        """Few, so that prefixes meet them."""
        return [f"198.{self.random.choice((18, 19))}.{self.random.randint(0, 15)}.{self.random.randint(0, 31)}" for _ in range(count)]

    def addresses6(self, count):
        return [f"2001:db8:{self.random.randint(0, 15):x}::{self.random.randint(0, 31):x}" for _ in range(count)]

    def add_site(self, number, site):
        pick, add = self.random, self.upstream.add
        self.upstream.zones.add(site)
        self.asked.append(site)
        name = text(site)
        kind = pick.random()
        if kind < 0.03:
            self.upstream.failing.update({site, (b"www", *site)})
            return
        if kind < 0.08:
            return
        add(site, SOA, 3000, f"ns1.{name} admin.{name} 1 3600 900 86400 3000")
        add(site, NS, self.ttl(), f"ns1.{name}", f"ns{pick.randint(2, 9)}.hosting.example.")
        add((b"ns1", *site), A, self.ttl(), *self.addresses(1))
        if pick.random() < 0.9:
            add(site, A, self.ttl(), *set(self.addresses(pick.randint(1, 3))))
        if pick.random() < 0.5:
            add(site, AAAA, self.ttl(), *set(self.addresses6(pick.randint(1, 2))))
        if pick.random() < 0.5:
            add(site, MX, self.ttl(), f"10 mail.{name}", "20 mx.hosting.example.")
            add((b"mail", *site), A, self.ttl(), *self.addresses(1))
        if pick.random() < 0.4:
            long = " ".join(f'"{"x" * 200}"' for _ in range(9)) if pick.random() < 0.1 else '"v=spf1 -all"'
            add(site, TXT, self.ttl(), long, '"Another"')
        if pick.random() < 0.3:
            add(site, CAA, self.ttl(), '0 issue "ca.example"')
        if pick.random() < 0.4:
            (v4,), (v6,) = self.addresses(1), self.addresses6(1)
            hints = pick.choice([f"ipv4hint={v4}", f"ipv4hint={v4} ipv6hint={v6}", ""])
            add(site, HTTPS, self.ttl(), f"1 . alpn=h2 {hints}")
            add((b"_dns", *site), SVCB, self.ttl(), f"1 {name} alpn=dot {hints}")
        if pick.random() < 0.5:
            # Below an empty non-terminal.
            add((b"deep", b"ent", *site), A, self.ttl(), *self.addresses(1))
            self.asked += [(b"ent", *site), (b"deep", b"ent", *site)]
        if pick.random() < 0.3:
            add((b"*", b"wild", *site), A, self.ttl(), *self.addresses(1))
            self.asked.append((b"any", b"wild", *site))
        alias = (b"www", *site)
        for _ in range(pick.randint(1, 5)):
            # Of a later site, so that no alias leads back.
            target = pick.choice(self.names[number + 1 :] or [self.targets[0]])
            add(alias, CNAME, self.ttl(), text(target) if pick.random() < 0.4 else text((b"www", *target)))
            if pick.random() < 0.2:
                self.upstream.stops.add(alias)
            self.asked.append(alias)
            alias = (b"cdn%d" % pick.randint(0, 9), *site)
        odd = pick.choice([b"a b", b"a.b", b"\x00\xff", b"x" * 63, b"_tcp", b"*", b"-", b"(;)", b"\\"])
        if pick.random() < 0.2 and odd != b"*":
            add((odd, *site), A, self.ttl(), *self.addresses(1))
            self.asked.append((odd, *site))

    def policy_zone(self, number):
        pick = self.random
        override = pick.choice(["given"] * 8 + ["disabled", "nxdomain", "nodata", "passthru", "drop", "cname:garden.walled.example."])
        zone = PolicyZone(f"policy{number}.example.", override)
        for _ in range(pick.randint(20, 250)):
            self.add_name_rule(zone)
        if pick.random() < 0.6:
            for _ in range(pick.randint(3, 25)):
                self.add_address_rule(zone, "ip")
        if pick.random() < 0.4:
            for _ in range(pick.randint(1, 4)):
                self.add_address_rule(zone, "client-ip")
        return zone

    def add_name_rule(self, zone):
        name = self.random.choice(self.asked)
        if self.random.random() < 0.1:
            name = (b"sub", *name)
        if self.random.random() < 0.1 and len(name) > 2:
            name = name[1:]
        kind = self.random.choice(["exact", "exact", "wildcard", "both"])
        if kind != "wildcard":
            zone.exact.setdefault(name, self.rule("qname", text(name)))
        if kind != "exact":
            zone.wildcards.setdefault(name, self.rule("qname", "*." + text(name)))

    def add_address_rule(self, zone, trigger):
        pick = self.random
        if trigger == "client-ip":
            net = ipaddress.ip_network((f"127.0.0.{pick.randint(1, 60)}", pick.choice([32, 32, 31, 30])), strict=False)
        elif pick.random() < 0.7:
            net = ipaddress.ip_network((self.addresses(1)[0], pick.choice([32, 32, 30, 28, 24, 22, 20])), strict=False)
        else:
            net = ipaddress.ip_network((self.addresses6(1)[0], pick.choice([128, 128, 124, 64, 48, 46])), strict=False)
        if net.version == 4:
            parts = str(net.network_address).split(".")
        else:
            # `::` is a label of its own: `zz`.
            parts = [part or "zz" for part in str(net.network_address).removesuffix(":").split(":")]
        reverse = ".".join(reversed(parts))
        rule = self.rule(trigger, f"{net.prefixlen}.{reverse}.rpz-{trigger}.", net.prefixlen)
        zone.prefixes[trigger].setdefault(net, rule)

    def rule(self, trigger, owner, bits=None):
        pick = self.random
        action = pick.choice([*ACTIONS, "nxdomain", "nodata", "local-data", "local-data", "local-data", "cname"])
        if action == "drop" and pick.random() < 0.7:
            action = "nxdomain"
        ttl, records, target = self.ttl(), [], None
        if action == "cname":
            spelled = pick.choice(["garden", "*.wild", "*", "absent", "alias"]) + ".walled.example."
            target = labels(spelled)
            records = [Record(None, CNAME, ttl, rdata(CNAME, spelled))]
        elif action == "local-data":
            for rtype in pick.sample(list(LOCAL_DATA), pick.randint(1, 3)):
                own = self.ttl()
                records += [Record(None, rtype, own, rdata(rtype, each)) for each in LOCAL_DATA[rtype]]
        return Rule(trigger, owner, action, records, target, ttl, bits)

    def queries(self, count):
        made = []
        about = [rule for zone in self.zones for rule in zone.rules() if rule.trigger == "qname"]
        for _ in range(count):
            if made and self.random.random() < 0.15:
                made.append(self.random.choice(made[-2000:])._replace(address=self.address()))
            else:
                made.append(self.query(about))
        return made

    def address(self):
        return f"127.0.0.{self.random.randint(1, 60)}"

    def query(self, about):
        pick = self.random
        name = pick.choice(self.asked)
        if pick.random() < 0.45:
            name = labels(pick.choice(about).owner)
            if name[0] == b"*":
                name = (pick.choice([b"below", b"www", b"a.b", b"x" * 63]), *name[1:]) if pick.random() < 0.8 else name[1:]
        chance = pick.random()
        if chance < 0.08:
            name = (pick.choice([b"sub", b"www", b"*", b"\x00"]), *name)
        elif chance < 0.12 and len(name) > 1:
            name = name[1:]
        elif chance < 0.14:
            # As long as a name may be.
            while (room := 254 - sum(map(len, name)) - len(name)) > 1:
                name = (b"l" * min(63, room - 1), *name)
        while sum(map(len, name)) + len(name) > 254:
            name = name[1:]
        flip = pick.random() < 0.5
        spelled = tuple(bytes(c ^ 0x20 if flip and 97 <= c <= 122 and pick.random() < 0.5 else c for c in label) for label in name)
        payload = pick.choice([None, 512, 1232, 1232, 4096])
        dnssec_ok = payload is not None and pick.random() < 0.2
        return Query(name, spelled, pick.choice(TYPES), self.address(), pick.random() < 0.04, dnssec_ok, pick.random() < 0.1, payload)
