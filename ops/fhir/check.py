"""The work of ops/check-fhir: all of testdata/ by its routes, judged by validators and stored in a real server, twice.

Arguments: the built `tie`, and a folder below target/ to work in.
"""

import pathlib
import sys

from mapped import bundles, fail, mapped, messages_below, resources
from server import Server
from validators import faults

TIE, WORK = sys.argv[1], pathlib.Path(sys.argv[2])
NAME = "check-fhir"


def outputs():
    """All messages but those that must be refused, with their bundles; ADT first: results point to patients."""
    files = [file for file in messages_below("testdata") if "/broken/" not in file and "/journals/" not in file]
    lines, _, _ = mapped(TIE, sorted(files, key=lambda file: ("/adt/" not in file, file)))
    # What has no bundle has its reason beside it: see engine/tests/mappings.rs.
    errors = [f"{line['file']}: {line['reason']}" for line in lines if line["result"] == "error"]
    found = list(bundles(lines))
    if errors or len(found) < 70:
        fail(NAME, [f"{len(found)} bundles", *errors])
    return len(lines), found


def stored(named):
    """Posts all, twice: nothing may be refused, and the second time nothing may change. Gives what is stored."""
    kinds = sorted({resource["resourceType"] for _, bundle in named for resource in resources(bundle)})
    made = {f"{resource['resourceType']}/{resource['id']}" for _, bundle in named for resource in resources(bundle)}
    with Server(WORK) as server:
        refused = [f"{name}: {said}" for name, bundle in named if (said := server.post(bundle))]
        if refused:
            fail(NAME, refused)
        first = server.content(kinds)
        if set(first) != made:
            fail(NAME, [f"stored {len(first)} resources, sent {len(made)}: {sorted(set(first) ^ made)[:10]}"])
        refused = [f"{name} again: {said}" for name, bundle in named if (said := server.post(bundle))]
        second = server.content(kinds)
        changed = [key for key in sorted(set(first) | set(second)) if first.get(key) != second.get(key)]
        if refused or changed:
            fail(NAME, [*refused, f"a repeat changed {len(changed)} resources: {changed[:10]}"])
    return {kind: sum(key.startswith(kind + "/") for key in first) for kind in kinds}


def main():
    messages, named = outputs()
    wrong = faults(named)
    if wrong:
        fail(NAME, [": ".join(fault) for fault in wrong])
    counts = ", ".join(f"{count} {kind}" for kind, count in stored(named).items())
    print(f"{len(named)} bundles of {messages} messages are valid R4 and UK Core, and stored; a repeat changes nothing: {counts}")


main()
