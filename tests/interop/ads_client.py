"""An outside client of the delta ADS protocol against `ringfence serve`.

    ads_client.py RINGFENCE

RINGFENCE is the operator's command. Each test below is one promise of the protocol, on streams of its own. That something is not sent
is seen without waiting for it: responses come in order, so the next one must be that of a later question.
Exit codes: 0 all held, 1 one did not.
"""

import pathlib
import queue
import re
import subprocess
import sys
import tempfile
import threading
import traceback

import grpc
from envoy_data_plane.envoy.config.core.v3 import Node
from envoy_data_plane.envoy.service.discovery.v3 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from envoy_data_plane.google.rpc import Status

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
TYPE = "type.googleapis.com/ringfence.v1."
INVALID_ARGUMENT = 3
# Seconds until a stream, or a wait for a printed line, fails.
PATIENCE = 60


class ControlPlane:
    """`ringfence serve` over a quickstart of its own."""

    def __init__(self, ringfence, directory):
        self.directory = pathlib.Path(directory) / "objects"
        subprocess.run([ringfence, "init", self.directory], check=True, stdout=subprocess.DEVNULL)
        command = [ringfence, "serve", self.directory, "--dangerous-plaintext", "127.0.0.1:0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()
        self.address = self.says(r"plaintext on (\S+)")[1]
        self.says(r"^ready$")

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def says(self, pattern):
        """Waits for a line like that."""
        while (line := self.lines.get(timeout=PATIENCE)) is not None:
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"ringfence serve ended without saying {pattern!r}")

    def edit(self, file, pattern, replacement):
        path = self.directory / file
        text, count = re.subn(pattern, replacement, path.read_text())
        assert count == 1, f"{file}: {count} times {pattern!r}"
        path.write_text(text)

    def stop(self):
        self.process.terminate()
        assert self.process.wait(PATIENCE) == 0, self.process.returncode


class Stream:
    """One ADS stream of one node."""

    def __init__(self, plane, node):
        self.node = Node(id=node)
        self.channel = grpc.insecure_channel(plane.address)
        call = self.channel.stream_stream(METHOD, request_serializer=bytes, response_deserializer=DeltaDiscoveryResponse.parse)
        self.requests = queue.Queue()
        self.responses = call(iter(self.requests.get, None), timeout=PATIENCE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.requests.put(None)
        self.channel.close()

    def send(self, kind, **fields):
        node, self.node = self.node, None
        self.requests.put(DeltaDiscoveryRequest(node=node, type_url=TYPE + kind, **fields))

    def subscribe(self, kind, *names, **fields):
        self.send(kind, resource_names_subscribe=list(names), **fields)

    def ack(self, response, **fields):
        self.send(response.type_url.removeprefix(TYPE), response_nonce=response.nonce, **fields)

    def nack(self, response, message):
        self.ack(response, error_detail=Status(code=INVALID_ARGUMENT, message=message))

    def receive(self, kind, present=(), removed=()):
        """The next response, which must tell exactly this."""
        response = next(self.responses)
        told = (response.type_url, {r.name for r in response.resources}, set(response.removed_resources))
        assert told == (TYPE + kind, set(present), set(removed)), told
        assert len(response.resources) == len(set(present)) and response.nonce
        for resource in response.resources:
            assert resource.version and resource.resource.type_url == response.type_url, resource
        return response

    def fetch(self, kind, name):
        """Subscribes to one resource and acknowledges it; its version."""
        self.subscribe(kind, name)
        response = self.receive(kind, [name])
        self.ack(response)
        return response.resources[0].version

    def silent(self):
        """Nothing more is on its way: a question that must be answered has the very next response."""
        self.subscribe("Tenant", "barrier")
        self.ack(self.receive("Tenant", removed=["barrier"]))


def change_rate(plane, tenant):
    """Changes what is published of a tenant, every time anew."""
    rate = re.search(r"rate: (\d+)/s", (plane.directory / f"tenant-{tenant}.yaml").read_text())[1]
    plane.edit(f"tenant-{tenant}.yaml", r"rate: \d+/s", f"rate: {int(rate) + 1}/s")


def test_subscribed_resources_come_and_are_acknowledged(plane):
    with Stream(plane, "acme-api") as stream:
        versions = {kind: stream.fetch(kind, name) for kind, name in (("Workload", "acme-api"), ("Tenant", "acme"), ("Issuer", "dev"))}
        assert len(set(versions.values())) == 3, versions
        stream.silent()
    with Stream(plane, "acme-api") as stream:
        assert stream.fetch("Tenant", "acme") == versions["Tenant"], "a version must not depend on the stream"


def test_an_edit_comes_to_those_that_it_concerns(plane):
    with Stream(plane, "acme-api") as acme, Stream(plane, "globex-api") as globex:
        before = acme.fetch("Tenant", "acme")
        globex.fetch("Tenant", "globex")
        change_rate(plane, "acme")
        response = acme.receive("Tenant", ["acme"])
        assert response.resources[0].version != before
        acme.ack(response)
        acme.silent()
        globex.silent()


def test_what_is_asked_for_again_is_sent_again(plane):
    with Stream(plane, "acme-api") as stream:
        before = stream.fetch("Tenant", "acme")
        assert stream.fetch("Tenant", "acme") == before


def test_a_refused_version_is_not_sent_again_until_it_changes(plane):
    with Stream(plane, "acme-api") as stream:
        stream.fetch("Workload", "acme-api")
        stream.fetch("Platform", "platform")
        stream.subscribe("Tenant", "acme")
        refused = stream.receive("Tenant", ["acme"])
        stream.nack(refused, "limits[0].rate: is not to our taste")
        plane.says(r"tenant-acme\.yaml:\d+:\d+: Tenant/acme: .*is not to our taste.*said by the sidecar of acme-api")
        stream.silent()

        # Something else changes: that alone is sent.
        plane.edit("platform.yaml", r"inFlight: (\d+)", r"inFlight: 1\1")
        stream.ack(stream.receive("Platform", ["platform"]))
        stream.silent()

        change_rate(plane, "acme")
        mended = stream.receive("Tenant", ["acme"])
        assert mended.resources[0].version != refused.resources[0].version
        stream.ack(mended)
        stream.silent()


def test_a_stream_resumes_with_what_changed_alone(plane):
    with Stream(plane, "shared-api") as stream:
        known = {name: stream.fetch("Tenant", name) for name in ("acme", "globex")}
        issuer = stream.fetch("Issuer", "dev")
    with Stream(plane, "acme-api") as witness:
        witness.fetch("Tenant", "acme")
        change_rate(plane, "acme")
        changed = witness.receive("Tenant", ["acme"]).resources[0].version
    with Stream(plane, "shared-api") as stream:
        stream.subscribe("Issuer", "dev", initial_resource_versions={"dev": issuer})
        stream.subscribe("Tenant", "acme", "globex", initial_resource_versions=known)
        response = stream.receive("Tenant", ["acme"])
        assert response.resources[0].version == changed
        stream.ack(response)
        stream.silent()


def test_what_was_unsubscribed_from_is_not_sent(plane):
    with Stream(plane, "shared-api") as stream:
        for tenant in ("acme", "globex"):
            stream.fetch("Tenant", tenant)
        stream.send("Tenant", resource_names_unsubscribe=["acme"])
        stream.silent()
        with Stream(plane, "acme-api") as witness:
            witness.fetch("Tenant", "acme")
            change_rate(plane, "acme")
            witness.receive("Tenant", ["acme"])
        stream.silent()
        change_rate(plane, "globex")
        stream.ack(stream.receive("Tenant", ["globex"]))
        stream.silent()


def test_a_name_of_nothing_is_told_as_removed(plane):
    with Stream(plane, "acme-api") as stream:
        stream.subscribe("Tenant", "acme", "nosuch")
        stream.ack(stream.receive("Tenant", ["acme"]))
        stream.ack(stream.receive("Tenant", removed=["nosuch"]))
        stream.silent()


def test_another_tenants_name_is_as_good_as_none(plane):
    def answers(name):
        """All that a stream is told of `name`, with another name put for it."""
        with Stream(plane, "acme-api") as stream:
            told = []
            for kind in ("Tenant", "Workload"):
                stream.subscribe(kind, name)
                response = stream.receive(kind, removed=[name])
                stream.ack(response)
                told.append(bytes(response).replace(name.encode(), b"?"))
            stream.subscribe("Tenant", "*")
            response = stream.receive("Tenant", ["acme"])
            stream.ack(response)
            change_rate(plane, "globex")
            with Stream(plane, "globex-api") as witness:
                # The edit is published once another has come that was made after it.
                witness.fetch("Platform", "platform")
                plane.edit("platform.yaml", r"inFlight: (\d+)", r"inFlight: 1\1")
                witness.receive("Platform", ["platform"])
            stream.silent()
            return told

    assert answers("globex") == answers("nosuch"), "of the same length, so that the responses are"


def test_a_bad_edit_reaches_nobody(plane):
    with Stream(plane, "acme-api") as stream:
        stream.fetch("Tenant", "acme")
        plane.edit("tenant-acme.yaml", r"rate: (\d+)/s", r"rate: \1/fortnight")
        plane.says(r"tenant-acme\.yaml:\d+:\d+: Tenant/acme: spec\.limits\[0\]\.rate: ")
        stream.silent()
        plane.edit("tenant-acme.yaml", r"rate: (\d+)/fortnight", r"rate: 1\1/s")
        stream.ack(stream.receive("Tenant", ["acme"]))


def test_a_first_request_without_a_node_is_refused(plane):
    with Stream(plane, "acme-api") as stream:
        stream.node = None
        stream.subscribe("Tenant", "acme")
        try:
            next(stream.responses)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
        else:
            raise AssertionError("answered")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    tests = {name.removeprefix("test_"): test for name, test in globals().items() if name.startswith("test_")}
    failed = 0
    with tempfile.TemporaryDirectory(prefix="interop-") as directory:
        for name, test in tests.items():
            try:
                plane = ControlPlane(sys.argv[1], pathlib.Path(directory) / name)
                try:
                    test(plane)
                finally:
                    plane.stop()
                print(f"ok      {name}")
            except Exception:
                failed += 1
                traceback.print_exc(file=sys.stdout)
                print(f"FAILED  {name}")
    print(f"{len(tests) - failed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
