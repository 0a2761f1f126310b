"""The bills of materials of both binaries: by the schema, and beside what the binaries say of themselves.

    sbom.py BIN

BIN is a directory of binaries with debug information. Exit codes: 0 as it should be, 1 not.
"""

import json
import pathlib
import re
import subprocess
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

SBOM = pathlib.Path(__file__).resolve().parents[1] / "tools" / "sbom"
# Where the source of a crate lies while it is compiled, as debug information has it: this, then the registry and the crate.
SOURCES = b"/registry/src/"
CRATE = re.compile(rb"[^/]{1,64}/([A-Za-z0-9_-]+?)-(\d+\.\d+\.\d+[A-Za-z0-9.+-]*)/")


def compiled_from(binary):
    found = map(CRATE.match, binary.read_bytes().split(SOURCES)[1:])
    return {(crate[1].decode(), crate[2].decode()) for crate in found if crate}


def faults(binary, directory):
    text = subprocess.run([SBOM, binary], check=True, stdout=subprocess.PIPE, text=True).stdout
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        yield f"is not CycloneDX 1.6: {error}"
    bom = json.loads(text)
    components = {(part["name"], part["version"]): part for part in bom["components"]}
    compiled = compiled_from(directory / binary)
    print(f"{binary}: {len(components)} components, {len(compiled)} crates told by the binary")
    if len(compiled) < 50:
        yield "has no debug information"
    for name, version in sorted(compiled - components.keys()):
        yield f"lacks {name} {version}, which the binary was compiled from"
    for key, part in components.items():
        if "purl" in part and not ("licenses" in part and "hashes" in part):
            yield f"tells neither licence nor checksum of {key}"
    known = {bom["metadata"]["component"]["bom-ref"], *(part["bom-ref"] for part in bom["components"])}
    for need in bom["dependencies"]:
        for ref in {need["ref"], *need["dependsOn"]} - known:
            yield f"refers to {ref}, which is no component"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    found = [f"{binary} {fault}" for binary in ("ringfence", "ringfence-proxy") for fault in faults(binary, pathlib.Path(sys.argv[1]))]
    print(*found, sep="\n")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
