"""The work of ops/check-fhir: maps testdata/ with `tie`, reads the result as FHIR, stores it in a real server, twice.

Arguments: the built `tie`, and a folder below target/ to work in.
"""

import json
import pathlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

from fhir.resources.R4B import get_fhir_model_class

TIE, WORK = sys.argv[1], pathlib.Path(sys.argv[2])
FEEDS = {"adt": "adt", "orders": "orders", "orm": "orders", "oru": "oru"}


def mapped():
    """Every message of the feeds with its bundles, ADT first: results point to patients."""
    found = []
    for folder, mapping in FEEDS.items():
        files = sorted(str(file) for file in pathlib.Path("testdata", folder).rglob("*.hl7"))
        run = subprocess.run([TIE, "map", mapping, "--json", *files], capture_output=True, text=True)
        lines = [json.loads(line) for line in run.stdout.splitlines()]
        if len(lines) < len(files):
            fail([f"tie map {mapping} told of {len(lines)} of {len(files)} messages:", run.stderr])
        found += [(line["file"], line) for line in lines]
    return found


def structure(name, bundle):
    """What fhir.resources says against the bundle and against each resource in it."""
    wrong = []
    for resource in [bundle] + [entry["resource"] for entry in bundle["entry"]]:
        kind = resource["resourceType"]
        try:
            get_fhir_model_class(kind).model_validate(resource)
        except Exception as error:  # the models raise several kinds
            wrong.append(f"{name}: {kind}: {error}")
    return wrong


class Server:
    """A sekmet server with an empty store."""

    def __enter__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.base = f"http://127.0.0.1:{port}/fhir"
        folder = WORK / f"server-{port}"
        folder.mkdir(parents=True)
        settings = {
            "base_url": self.base, "host": "127.0.0.1", "port": port, "data_dir": str(folder.resolve()),
            "validation": {"inbound": "strict"}, "simulator": {"enabled": False}, "log_inbound": False,
        }
        (folder / "settings.yaml").write_text(json.dumps(settings))
        self.log = open(folder / "log", "w")
        command = [str(pathlib.Path(sys.executable).parent / "sekmet"), "serve", "--config", "settings.yaml"]
        self.process = subprocess.Popen(command, cwd=folder, stdout=self.log, stderr=self.log)
        until = time.monotonic() + 60
        while True:
            try:
                self.get("metadata")
                return self
            except OSError:
                if self.process.poll() is not None or time.monotonic() > until:
                    fail(["the server does not start:", (folder / "log").read_text()[-2000:]])
                time.sleep(0.1)

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)
        self.log.close()

    def get(self, path):
        with urllib.request.urlopen(f"{self.base}/{path}", timeout=30) as answer:
            return json.load(answer)

    def post(self, bundle):
        """None when all was stored, else what was said against it."""
        request = urllib.request.Request(
            self.base, json.dumps(bundle).encode(), {"Content-Type": "application/fhir+json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                entries = json.load(answer).get("entry", [])
        except urllib.error.HTTPError as error:
            return f"{error.code} {error.read().decode()[:1500]}"
        states = [entry["response"]["status"] for entry in entries]
        refused = [state for state in states if not state.startswith("2")]
        if refused or len(states) != len(bundle["entry"]):
            return f"{len(states)} of {len(bundle['entry'])} entries answered, refused: {refused}"
        return None

    def content(self, kinds):
        """All that is stored, without the server's own version and time."""
        stored = {}
        for kind in kinds:
            page = self.get(f"{kind}?_count=1000")
            if page["total"] != len(page.get("entry", [])):
                fail([f"{kind}: {page['total']} resources do not come on one page"])
            for entry in page.get("entry", []):
                resource = entry["resource"]
                for own in ("versionId", "lastUpdated"):
                    resource.get("meta", {}).pop(own, None)
                stored[f"{kind}/{resource['id']}"] = resource
        return stored


def fail(lines):
    print("\n".join(["check-fhir: FAILED", *lines]), file=sys.stderr)
    sys.exit(1)


def main():
    messages = mapped()
    errors = [f"{name}: {line['result']}: {line.get('reason')}" for name, line in messages if line["result"] != "mapped"]
    bundles = [(name, output) for name, line in messages for output in line["outputs"]]
    if errors or len(bundles) < 30:
        fail([f"{len(bundles)} bundles", *errors])
    wrong = [problem for name, bundle in bundles for problem in structure(name, bundle)]
    if wrong:
        fail(wrong)
    kinds = sorted({entry["resource"]["resourceType"] for _, bundle in bundles for entry in bundle["entry"]})
    with Server() as server:
        refused = [f"{name}: {said}" for name, bundle in bundles if (said := server.post(bundle))]
        if refused:
            fail(refused)
        first = server.content(kinds)
        made = {f"{entry['resource']['resourceType']}/{entry['resource']['id']}" for _, b in bundles for entry in b["entry"]}
        if set(first) != made:
            fail([f"stored {len(first)} resources, sent {len(made)}: {sorted(set(first) ^ made)[:10]}"])
        refused = [f"{name} again: {said}" for name, bundle in bundles if (said := server.post(bundle))]
        second = server.content(kinds)
        changed = [key for key in sorted(set(first) | set(second)) if first.get(key) != second.get(key)]
        if refused or changed:
            fail([*refused, f"a repeat changed {len(changed)} resources: {changed[:10]}"])
    counts = ", ".join(f"{sum(key.startswith(kind + '/') for key in first)} {kind}" for kind in kinds)
    print(f"{len(bundles)} bundles of {len(messages)} messages are valid R4 and stored; a repeat changes nothing: {counts}")


main()
