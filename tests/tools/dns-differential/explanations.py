"""Where a peer answers otherwise than the draft: what it does, and who is right. The model computes each."""

EXPLANATIONS = {
    "unbound": {
        "names-before-addresses": "",
        "address-of-choice": "",
        "alias-unseen": "",
        "passthru-of-one-name": "",
        "no-hints": "",
        "any-without-local-data": "",
        "wildcard-of-neighbour": "",
        "drop-for-address-undone": "",
        "target-as-written": "",
        "wildcard-target-with-ttl-0": "",
        "any-follows-alias": "",
        "any-from-cache": "",
    },
    "bind": {
        "address-of-choice": "",
        "no-hints": "",
        "any-from-cache": "",
        "any-follows-alias": "",
        "any-with-shorter-ttls": "",
        "wildcard-of-closest-encloser": "",
        "ds-behind-alias": "",
        "tcp-only-with-rcode": "",
        "tcp-only-after-upstream": "",
        "waits-whatever-the-type": "",
    },
}
