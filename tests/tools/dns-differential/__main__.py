"""Puts the same queries to Ringfence, Unbound and BIND, which have the same policy zones and the same upstream.

    dns-differential [--queries N] [--seed S]

What Ringfence answers must be what the draft says (model.py). Where a peer answers otherwise, peculiarities of it that have a name
(explanations.py) must account for its answer to the last record; the fewest that do are counted. Any other difference is printed with
the query, the rule and the three answers, and fails the run. Whoever's answer is not as expected is asked once more when it is calm.

Needs root, for a network namespace of its own, dnspython, unbound and named. The programs are those of $RINGFENCE_BIN.
"""

import argparse
import asyncio
import collections
import os
import pathlib
import random
import sys
import tempfile
import time

import dns.rdatatype

from client import Client
from explanations import EXPLANATIONS
from model import Model, agrees
from servers import PORTS, Servers
from world import A, Query, World, labels, text

CORPORA = pathlib.Path(os.environ.get("RINGFENCE_CORPORA", pathlib.Path(__file__).resolve().parents[4] / "shared" / "corpora"))
QUERIES_OF_A_WORLD = 5000
# From an address that no rule is about.
READY = Query(labels("ready.walled.example."), labels("ready.walled.example."), A, "127.0.0.200", False, False, False, None)
# Seconds.
READY_WITHIN = 120
SHOWN = 20


def names():
    """Real ones, where there are."""
    real = CORPORA / "realdata" / "domains-121k.txt"
    if real.exists():
        return real.read_text().split()
    pick, syllables = random.Random(0), "ba ce di fo gu ha ki lo me nu pa ri so ty ve wo".split()
    endings = [".com", ".org", ".co.uk", ".io"]
    made = {"".join(pick.choices(syllables, k=pick.randint(2, 5))) + pick.choice(endings) for _ in range(20_000)}
    return sorted(made)


def accounted(model, query, peer, answers):
    """The fewest peculiarities of the peer that make up its answer; None: none do. With the hit by the draft."""
    def fits(expected):
        return any(agrees(expected, answer) for answer in answers)

    expected, hit, met = model.answer(query)
    if fits(expected):
        return (), hit
    tried = {frozenset()}
    queue = collections.deque([(frozenset(), met)])
    while queue:
        on, met = queue.popleft()
        for peculiarity in sorted(met - on):
            more = on | {peculiarity}
            if peculiarity.partition("/")[0] not in EXPLANATIONS.get(peer, ()) or more in tried:
                continue
            tried.add(more)
            expected, _, met_now = model.answer(query, more)
            if fits(expected):
                return tuple(sorted({name.partition("/")[0] for name in more})), hit
            queue.append((more, met | met_now))
    return None, hit


def show(answer):
    if answer.dropped:
        return "dropped"
    rows = sorted(f"{text(owner)} {ttl} {dns.rdatatype.to_text(rtype)} {data!r}" for owner, rtype, ttl, data in answer.records)
    return f"rcode {answer.rcode}{' TC' if answer.truncated else ''} {rows}"


def tell(model, query, hit, answers, peer):
    expected, _, met = model.answer(query)
    flags = [name for name in ("tcp", "dnssec_ok", "checking_disabled") if getattr(query, name)]
    asked = f"{text(query.name)} {dns.rdatatype.to_text(query.rtype)} from {query.address} {flags} {query.payload}"
    print(f"UNEXPLAINED: {peer}: {asked}")
    if hit:
        owner = f"{hit.rule.owner}{hit.zone.origin} {hit.rule.action}, override {hit.zone.override}"
        print(f"  rule       {owner}, met by {text(hit.name)}, alias {hit.hop}; could matter: {sorted(met)}")
    print(f"  by draft   {show(expected)}")
    for server, given in answers.items():
        print(f"  {server:<10} {' or '.join(map(show, given))}")


async def run_world(world, count, counts):
    """How many differences nothing explains."""
    model, client = Model(world), Client()
    await asyncio.wait_for(client.ready(READY), READY_WITHIN)
    queries = world.queries(count)
    def servers(query):
        return [server for server in PORTS if server != "unbound" or not model.ends_unbound(query)]

    answers = await client.ask_all(queries, servers)
    again = []
    for query, given in zip(queries, answers):
        if "unbound" not in given:
            counts["unbound", ("not asked: it would end",)] += 1
        for peer in list(given):
            reasons, hit = accounted(model, query, peer, given[peer])
            if reasons is None:
                again.append((query, given, peer))
            else:
                counts[peer, reasons or ("as the draft",)] += 1
        counts["rules", (hit.rule.trigger + " " + hit.rule.action if hit else "none",)] += 1
    faults = 0
    for query, given, peer in again:
        given[peer] = await client.ask(query, peer)
        reasons, hit = accounted(model, query, peer, given[peer])
        if reasons is None:
            faults += 1
            if counts["shown", ()] < SHOWN:
                counts["shown", ()] += 1
                tell(model, query, hit, given, peer)
        else:
            counts[peer, reasons or ("as the draft",)] += 1
    return faults


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--queries", type=int, default=100_000)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--in-namespace", action="store_true", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if not options.in_namespace:
        inside = 'ip link set lo up && exec "$@"'
        # Whatever is started there ends with it.
        alone = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        os.execvp("unshare", [*alone, "sh", "-c", inside, "sh", sys.executable, *sys.argv, "--in-namespace"])
    begun, counts, faults, real = time.monotonic(), collections.Counter(), 0, names()
    for number, start in enumerate(range(0, options.queries, QUERIES_OF_A_WORLD)):
        world = World(f"{options.seed}/{number}", real)
        with tempfile.TemporaryDirectory(prefix="dns-differential-") as directory, Servers(pathlib.Path(directory), world) as servers:
            try:
                faults += asyncio.run(run_world(world, min(QUERIES_OF_A_WORLD, options.queries - start), counts))
            except TimeoutError:
                sys.exit(f"not ready: {servers.ended()}")
            if ended := servers.ended():
                sys.exit(f"ended by itself: {ended}")
    for (of, reasons), count in sorted(counts.items()):
        if reasons:
            print(f"{of:<10} {count:>7}  {' and '.join(reasons)}")
    print(f"{options.queries} queries in {time.monotonic() - begun:.0f} s, seed {options.seed}: {faults} unexplained")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
