"""What a query is to be answered with: draft-vixie-dnsop-dns-rpz-00, read anew, without a line of the filter's own code.

Where a peer reads it otherwise, the model asks whether that peer's peculiarity is `on`; so an explanation of a difference is a computation
of the peer's whole answer.
"""

import bisect
import collections
import ipaddress

import dns.rdata

from world import A, AAAA, ANY, CNAME, HTTPS, IN, SVCB, TTL_UNIT, PolicyZone, Record, canonical, labels, text

# `dropped`: nothing came. `records`: of the answer section.
# `only_some` of them will do; TTLs may be `shorter`.
Answer = collections.namedtuple("Answer", "dropped rcode truncated records only_some shorter", defaults=[False, False])
DROPPED = Answer(True, None, None, frozenset())
# Aliases that Unbound follows.
RESTARTS = 11
NOERROR, SERVFAIL, NXDOMAIN, YXDOMAIN = 0, 2, 3, 6
# `name`: what met the rule; `hop`: its place among the aliases.
Hit = collections.namedtuple("Hit", "zone rule name hop")


def agrees(expected, given):
    if not (expected.only_some or expected.shorter) or given.dropped:
        return expected == given
    if (given.rcode, given.truncated) != (expected.rcode, expected.truncated):
        return False
    if not expected.only_some and len(given.records) != len(expected.records):
        return False
    ttls = {(owner, rtype, data): ttl for owner, rtype, ttl, data in expected.records}
    for owner, rtype, ttl, data in given.records:
        most = ttls.get((owner, rtype, data))
        if most is None or ttl > most or ttl < most and not expected.shorter:
            return False
    return True


def told(record):
    """As answers are compared: TTLs before they were counted down."""
    return record.owner, record.rtype, -(-record.ttl // TTL_UNIT) * TTL_UNIT, canonical(record.rdata)


def addresses(records, with_hints):
    """Of A and AAAA records, and the hints of records of the types `with_hints`."""
    for record in records:
        if record.rtype in (A, AAAA):
            yield ipaddress.ip_address(record.rdata.address)
        elif record.rtype in with_hints:
            for key in (4, 6):
                if hint := record.rdata.params.get(key):
                    yield from map(ipaddress.ip_address, hint.addresses)


def by_name(exact, wildcards, name):
    if name in exact:
        return exact[name]
    return next((wildcards[name[start:]] for start in range(1, len(name) + 1) if name[start:] in wildcards), None)


def by_closest_encloser(zone, name):
    """As DNS has it (RFC 4592 section 3.3.1): a wildcard is not for what lies below a name that exists, be it only above another."""
    owners, reverse = zone.owners(), name[::-1]
    for length in range(len(name), -1, -1):
        at = bisect.bisect_left(owners, reverse[:length])
        if at < len(owners) and owners[at][:length] == reverse[:length]:
            if length < len(name):
                return zone.wildcards.get(name[len(name) - length :])
            # It exists; perhaps as a wildcard that is asked for by its own name.
            return zone.wildcards.get(name[1:]) if name[0] == b"*" else None
    return None


def by_neighbour(zone, name):
    """The wildcard of what the name has in common with the owner before it."""
    owners, reverse = zone.owners(), name[::-1]
    at = bisect.bisect_right(owners, reverse)
    before = owners[at - 1] if at else ()
    shared = next((i for i, (one, other) in enumerate(zip(before, reverse)) if one != other), min(len(before), len(reverse)))
    return zone.wildcards.get(name[len(name) - shared :])


def by_address(prefixes, found):
    """The longest prefix; of equally long ones that of the smallest address."""
    best = None
    for address in found:
        for net, rule in prefixes.items():
            if net.version == address.version and address in net:
                length = net.prefixlen + (96 if net.version == 4 else 0)
                rank = (-length, net.version, int(net.network_address))
                if best is None or rank < best[0]:
                    best = (rank, rule)
    return best and best[1]


def same_owner(prefixes, owner):
    return prefixes if owner is None else {net: rule for net, rule in prefixes.items() if rule.owner == owner}


def action_of(hit):
    return hit.rule.action if hit.zone.override == "given" else hit.zone.override.partition(":")[0]


def passes(hit, query):
    return action_of(hit) == "passthru" or action_of(hit) == "tcp-only" and query.tcp


class Model:
    def __init__(self, world):
        self.zones, self.upstream = world.zones, world.upstream
        self.peculiarities, self.met = frozenset(), set()

    def on(self, peculiarity):
        """Whether to go by it, here where it makes a difference."""
        self.met.add(peculiarity)
        return peculiarity in self.peculiarities

    def answer(self, query, peculiarities=frozenset()):
        """The answer, the hit, and the peculiarities that would matter."""
        self.peculiarities, self.met = peculiarities, set()
        rcode, records, _ = self.upstream.resolve(query.name, query.rtype)
        hit = self.find(query, rcode, records)
        answer = self.act(query, hit, rcode, records)
        if query.rtype == ANY and answer.records and self.on("any-with-shorter-ttls"):
            answer = answer._replace(shorter=True)
        return answer, hit, frozenset(self.met)

    def find(self, query, rcode, records):
        aliases = [record for record in records if record.rtype == CNAME] if query.rtype not in (CNAME, ANY) else []
        names = [query.name, *(labels(alias.rdata.target.to_text()) for alias in aliases)]
        known = rcode in (NOERROR, NXDOMAIN)
        found = list(addresses(records, [] if self.on("no-hints") else (HTTPS, SVCB))) if known else []
        if query.rtype == ANY and found and self.on("any-from-cache"):
            found = next(([found[number]] for number in range(len(found)) if self.on(f"any-with-one-address/{number}")), [])
        passed, left = None, {}
        for by_names, by_addresses in [(True, False), (False, True)] if self.on("names-before-addresses") else [(True, True)]:
            for hop, name in enumerate(names):
                is_last = hop + 1 == len(names)
                for zone in self.zones:
                    rule = None
                    if zone.override == "disabled":
                        if is_last and by_address(zone.prefixes["ip"], found) and self.on("disabled-hides-addresses"):
                            hits = ((address, by_address(zone.prefixes["ip"], [address])) for address in found)
                            left = {address: rule.owner for address, rule in hits if rule} | left
                        continue
                    if by_names and hop == 0 and not passed:
                        rule = self.rule_of_client(query, zone)
                    if by_names and not rule and not (passed and passed.hop == hop and not self.on("passthru-of-one-rule")):
                        rule = self.rule_of_name(zone, hop, name)
                    if rule is None and is_last and by_addresses:
                        zone, rule = self.rule_of_addresses(zone, found, left)
                    if rule:
                        hit = Hit(zone, rule, name, hop)
                        if rule.trigger == "ip" or not passes(hit, query) or not self.on("passthru-of-one-name"):
                            return hit
                        passed = hit
                        if rule.trigger == "client-ip" and self.on("passthru-of-one-rule") and (rule := self.rule_of_name(zone, hop, name)):
                            return Hit(zone, rule, name, hop)
                    if is_last and by_addresses and not known and self.needs_answer(zone, query.rtype):
                        if not self.on("rule-before-failure"):
                            return None
        return passed

    def rule_of_client(self, query, zone):
        return by_address(zone.prefixes["client-ip"], [ipaddress.ip_address(query.address)])

    def rule_of_name(self, zone, hop, name):
        rule = by_name(zone.exact, zone.wildcards, name)
        if rule is None or name in zone.exact:
            pass
        elif (other := by_closest_encloser(zone, name)) is not rule and self.on("wildcard-of-closest-encloser"):
            rule = other
        elif (other := by_neighbour(zone, name)) is not rule and self.on("wildcard-of-neighbour"):
            rule = other
        return None if rule and hop > 0 and self.on(f"alias-unseen/{hop}") else rule

    def rule_of_addresses(self, zone, found, left):
        """With the zone that it is of. `left`: the one owner that may still be met by an address."""
        rules = [by_address(same_owner(zone.prefixes["ip"], left.get(address)), [address]) for address in found]
        rule = by_address({net: rule for net, rule in zone.prefixes["ip"].items() if rule in rules}, found)
        for number, other in enumerate(rules):
            if other and other is not rule and self.on(f"address-of-choice/{number}"):
                return zone, other
        for later in self.zones[self.zones.index(zone) + 1 :] if rule else []:
            for net, other in later.prefixes["ip"].items() if later.override != "disabled" else []:
                met = [number for number, address in enumerate(found) if address in net]
                is_rival = other.bits >= rule.bits or any(rules[number] is not rule for number in met)
                if met and is_rival and self.on(f"prefix-of-later-zone/{later.origin}{other.owner}"):
                    return later, other
        return zone, rule

    def needs_answer(self, zone, rtype):
        """Of a query that the upstream fails to answer: whether the zone may have a better rule than a later one."""
        versions = {A: {4}, AAAA: {6}, HTTPS: {4, 6}, SVCB: {4, 6}, ANY: {4, 6}}.get(rtype, set())
        if zone.prefixes["ip"] and self.on("waits-whatever-the-type"):
            return True
        return any(net.version in versions for net in zone.prefixes["ip"])

    def ends_unbound(self, query):
        """A rule with TCP-Only about a name that an alias leads to is the end of Unbound 1.17.1: a segmentation fault."""
        _, records, _ = self.upstream.resolve(query.name, query.rtype)
        names = [labels(record.rdata.target.to_text()) for record in records if record.rtype == CNAME]
        rules = [by_name(zone.exact, zone.wildcards, name) for name in names for zone in self.zones]
        return any(rule and rule.action == "tcp-only" for rule in rules)

    def act(self, query, hit, rcode, records):
        if sum(record.rtype == CNAME for record in records) > RESTARTS and self.on("chain-given-up"):
            return self.answered(SERVFAIL, [])
        action = action_of(hit) if hit else "passthru"
        if hit and hit.rule.trigger == "client-ip" and action != hit.rule.action and self.on("client-ip-without-override"):
            action = hit.rule.action
        if hit and hit.zone.override.startswith("cname:") and hit.rule.target and hit.hop and self.on("alias-without-override"):
            hit = hit._replace(zone=PolicyZone(hit.zone.origin, "given"))
        if hit and hit.rule.trigger == "ip" and action in ("drop", "tcp-only") and self.on("address-neither-drops-nor-truncates"):
            action = "passthru"
        if action == "tcp-only":
            if not query.tcp:
                return self.truncated(rcode)
            action = "passthru"
        if action == "drop":
            return DROPPED
        if action == "passthru":
            loose = query.rtype == ANY and self.on("any-from-cache")
            return self.answered(rcode, records, loose)
        led_here = records[: hit.hop]
        if action == "nxdomain":
            return self.answered(NXDOMAIN, led_here)
        if action == "nodata":
            return self.answered(NOERROR, led_here)
        if action == "cname" and hit.rule.trigger == "client-ip" and query.rtype != CNAME and self.on("client-ip-alias-unfollowed"):
            return self.answered(NOERROR, [])
        if hit.hop and self.on("alias-data-lost"):
            return self.answered(NOERROR, led_here)
        if action == "cname":
            return self.redirect(query, hit, led_here)
        loose = query.rtype == ANY and self.on("any-without-local-data")
        loose = loose or hit.rule.trigger != "qname" and len(hit.rule.records) > 1 and self.on("address-with-one-record")
        return self.answered(NOERROR, led_here + self.local_data(query, hit), loose)

    def truncated(self, rcode):
        if rcode == SERVFAIL and self.on("tcp-only-after-upstream"):
            return Answer(False, SERVFAIL, False, frozenset())
        if rcode != NOERROR and self.on("tcp-only-with-rcode"):
            return Answer(False, rcode, True, frozenset())
        return Answer(False, NOERROR, True, frozenset())

    def local_data(self, query, hit):
        return [record._replace(owner=hit.name) for record in hit.rule.records if query.rtype in (record.rtype, ANY)]

    def redirect(self, query, hit, led_here):
        if hit.zone.override == "given" or not hit.zone.override.startswith("cname:"):
            target, ttl = hit.rule.target, hit.rule.ttl
        else:
            target = labels(hit.zone.override.partition(":")[2])
            ttl = min((record.ttl for record in hit.rule.records), default=hit.rule.ttl)
            if self.on("override-with-ttl-3600"):
                ttl = 3600
            elif self.on("override-with-ttl-of-type"):
                ttl = next((record.ttl for record in hit.rule.records if record.rtype == query.rtype), 5)
        if target[0] == b"*" and not self.on("target-as-written"):
            target = (*hit.name, *target[1:])
            if sum(map(len, target)) + len(target) > 254:
                return self.answered(YXDOMAIN, led_here)
            if self.on("wildcard-target-with-ttl-0"):
                ttl = 0
        alias = Record(hit.name, CNAME, ttl, dns.rdata.from_text(IN, CNAME, text(target)))
        if query.rtype in (CNAME, ANY) and not self.on("alias-followed-whatever-is-asked"):
            return self.answered(NOERROR, [*led_here, alias])
        rcode, records, _ = self.upstream.resolve(target, query.rtype)
        loose = query.rtype == ANY and self.on("any-from-cache")
        return self.answered(rcode, [*led_here, alias, *records], loose)

    def answered(self, rcode, records, only_some=False):
        if rcode == SERVFAIL:
            records = []
        return Answer(False, rcode, False, frozenset(map(told, records)), only_some)
