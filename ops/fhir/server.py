"""A real FHIR server (`sekmet`, strict) with an empty store, for as long as a `with` block runs."""

import json
import pathlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

from mapped import fail


class Server:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)

    def __enter__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.base = f"http://127.0.0.1:{port}/fhir"
        folder = self.folder / f"server-{port}"
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
                    fail("server", ["it does not start:", (folder / "log").read_text()[-2000:]])
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
                fail("server", [f"{kind}: {page['total']} resources do not come on one page"])
            for entry in page.get("entry", []):
                resource = entry["resource"]
                for own in ("versionId", "lastUpdated"):
                    resource.get("meta", {}).pop(own, None)
                stored[f"{kind}/{resource['id']}"] = resource
        return stored
