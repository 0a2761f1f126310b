"""What the peers do otherwise than the draft (draft-vixie-dnsop-dns-rpz-00), and why Ringfence does not. The model computes the effect
of each on a query: a name here only allows it for that peer. BIND is 9.18, Unbound 1.17."""

HINTS = "looks at no address in the hints of HTTPS and SVCB records; Ringfence does, by choice: they are used like A and AAAA"
ANY_FROM_CACHE = "answers ANY with whatever it remembers of the name, which rules about addresses then see; RFC 8482 lets it"
ALIAS_FOLLOWED = "follows a rule's CNAME for ANY and CNAME queries too; a CNAME answers those (RFC 1034 section 3.6.2)"
CLOSEST_ENCLOSER = (
    "takes a wildcard for none of a name's business, if its zone has another rule below the name or beside it (RFC 4592); a block list "
    "that gains a rule must not lose another"
)

EXPLANATIONS = {
    "unbound": {
        "names-before-addresses": "applies rules for names of all zones before rules for addresses of any; zones come first (section 5.1)",
        "address-of-choice": "goes by the first address that any rule is about; the longest prefix goes first (section 5.3)",
        "address-with-one-record": "gives one record, where a rule about addresses has several of the type",
        "address-neither-drops-nor-truncates": "sends the answer, where a rule about addresses wants DROP or TCP-Only",
        "alias-unseen": "does not look at every name of a chain of aliases that the upstream followed; rules are for each (section 4)",
        "passthru-of-one-name": "goes on, after PASSTHRU, with rules for what the name leads to; it ends the search (section 3.1)",
        "passthru-of-one-rule": "goes on, after PASSTHRU, with rules for the same name too",
        "client-ip-without-override": "takes a CLIENT-IP rule's own action where the zone has an override",
        "chain-given-up": "fails with chains of more than eleven aliases, whatever rule is about one of them",
        "alias-data-lost": "leaves out what a rule puts behind an alias that the upstream followed; a rule's data are the answer",
        "alias-without-override": "takes a rule's own CNAME behind an alias where the zone has another as its override",
        "client-ip-alias-unfollowed": "takes the CNAME of a CLIENT-IP rule for data, and other types for absent",
        "wildcard-of-closest-encloser": CLOSEST_ENCLOSER,
        "wildcard-of-neighbour": "misses wildcards when another owner or a label below `*` stands between in its tree",
        "target-as-written": "sends a wildcard target as it is written, of rules for addresses, for CNAME queries and behind aliases; "
        "it stands for the name asked for",
        "wildcard-target-with-ttl-0": "sends a wildcard target's CNAME with TTL 0, not the rule's",
        "override-with-ttl-3600": "gives an override's CNAME 3600 seconds, not the rule's TTL",
        "any-without-local-data": "gives no, or some, local data to ANY",
        "any-from-cache": ANY_FROM_CACHE,
        "any-with-one-address": "as it remembers of all addresses only some",
        "alias-followed-whatever-is-asked": ALIAS_FOLLOWED,
        "no-hints": HINTS,
    },
    "bind": {
        "address-of-choice": "breaks ties by how the owner is spelled, and misses longer prefixes of other addresses of the same answer",
        "wildcard-of-closest-encloser": CLOSEST_ENCLOSER,
        "prefix-of-later-zone": "takes a later zone's prefix that is as long or longer, or of another address; zones come first "
        "(section 5.1)",
        "disabled-hides-addresses": "where a disabled zone has a rule for an address, of later zones sees but those for the same prefix",
        "rule-before-failure": "applies a rule for a name though the upstream fails, and an earlier zone may have had one for its address",
        "waits-whatever-the-type": "asks first, if an earlier zone has rules for addresses, and so fails with the upstream, even for types "
        "that have none; Ringfence keeps a refused name inside",
        "tcp-only-after-upstream": "asks before TCP-Only, and fails with the upstream",
        "tcp-only-with-rcode": "truncates with the upstream's NXDOMAIN; TCP-Only is an empty, truncated answer (section 3.4)",
        "override-with-ttl-of-type": "gives an override's CNAME the TTL of the rule's record of the type asked for, or 5 seconds",
        "any-with-shorter-ttls": "tells ANY the least TTL that the zone's rules have come by",
        "any-from-cache": ANY_FROM_CACHE,
        "any-with-one-address": "as it remembers of all addresses only some",
        "alias-followed-whatever-is-asked": ALIAS_FOLLOWED,
        "no-hints": HINTS,
    },
}
