"""Asks all three the same, many questions at once."""

import asyncio
import itertools
import struct

import dns.flags
import dns.message
import dns.rdatatype

from model import DROPPED, Answer, told
from servers import PORTS
from world import Record, labels

AT_ONCE = 300
# Seconds without an answer, the first time and the second, after which there is none.
PATIENCE = (1.5, 3)
OURS_AT_MOST = 1232


def packet(query, number):
    question = b"".join(bytes([len(label)]) + label for label in query.spelled) + b"\0" + struct.pack("!HH", query.rtype, 1)
    opt = b""
    if query.payload is not None:
        opt = b"\0" + struct.pack("!HHBBHH", dns.rdatatype.OPT, query.payload, 0, 0, 0x8000 * query.dnssec_ok, 0)
    flags = dns.flags.RD | dns.flags.CD * query.checking_disabled
    return struct.pack("!HHHHHH", number, flags, 1, 0, 0, len(opt) > 0) + question + opt


def parse(wire, query):
    message = dns.message.from_wire(wire, one_rr_per_rrset=True)
    asked = message.question[0]
    if asked.name.labels[:-1] != query.spelled or asked.rdtype != query.rtype or not message.flags & dns.flags.RA:
        raise ValueError(f"another question, or no RA: {message}")
    records = [Record(labels(rrset.name.to_text()), rrset.rdtype, rrset.ttl, rrset[0]) for rrset in message.answer]
    return Answer(False, message.rcode(), bool(message.flags & dns.flags.TC), frozenset(map(told, records)))


class Socket(asyncio.DatagramProtocol):
    """Of one client address to one server."""

    def __init__(self):
        self.waiting, self.numbers = {}, itertools.cycle(range(65536))

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, _):
        waiting = self.waiting.get(data[:2])
        if waiting and not waiting.done():
            waiting.set_result(data)

    def error_received(self, _):
        """Nobody listens there yet: there is no answer either."""

    async def ask(self, query, patience):
        number = next(self.numbers)
        key = struct.pack("!H", number)
        waiting = self.waiting[key] = asyncio.get_running_loop().create_future()
        self.transport.sendto(packet(query, number))
        try:
            return await asyncio.wait_for(waiting, patience)
        except TimeoutError:
            return None
        finally:
            del self.waiting[key]


class Client:
    def __init__(self):
        self.sockets = {}

    async def socket(self, address, server):
        key = address, server
        if key not in self.sockets:
            loop = asyncio.get_running_loop()
            ends = {"local_addr": (address, 0), "remote_addr": ("127.0.0.1", PORTS[server])}
            _, self.sockets[key] = await loop.create_datagram_endpoint(Socket, **ends)
        return self.sockets[key]

    async def over_tcp(self, query, server, patience):
        async def exchange():
            reader, writer = await asyncio.open_connection("127.0.0.1", PORTS[server], local_addr=(query.address, 0))
            try:
                wire = packet(query, 1)
                writer.write(struct.pack("!H", len(wire)) + wire)
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                return await reader.readexactly(length)
            finally:
                writer.close()

        try:
            return await asyncio.wait_for(exchange(), patience)
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            return None

    async def ask(self, query, server, patience=PATIENCE[-1]):
        """What may be compared: the answer; besides it that over TCP, where the first did not have room."""
        if query.tcp:
            wire = await self.over_tcp(query, server, patience)
        else:
            wire = await (await self.socket(query.address, server)).ask(query, patience)
        if wire is None:
            return {DROPPED}
        answers = {parse(wire, query)}
        room = max(512, min(query.payload or 512, OURS_AT_MOST))
        if wire[2] & 2 and (whole := await self.over_tcp(query, server, PATIENCE[-1])) and len(whole) > room:
            answers.add(parse(whole, query))
        return answers

    async def ask_all(self, queries, servers):
        """For each query, what those servers answer that `servers` names for it."""
        answers = [None] * len(queries)
        left = iter(enumerate(queries))

        async def work():
            for number, query in left:
                asked = servers(query)
                got = await asyncio.gather(*(self.ask(query, server, PATIENCE[0]) for server in asked))
                if {DROPPED} in got and any(answer != {DROPPED} for answer in got):
                    again = [self.ask(query, server) for server, answer in zip(asked, got) if answer == {DROPPED}]
                    late = iter(await asyncio.gather(*again))
                    got = [next(late) if answer == {DROPPED} else answer for answer in got]
                answers[number] = dict(zip(asked, got))

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        return answers

    async def ready(self, query):
        """Once all servers answer."""
        for server in PORTS:
            while await (await self.socket(query.address, server)).ask(query, 0.2) is None:
                pass
