"""What the shipped routes and mappings make of messages: one run of `tie map auto --json` for many files."""

import json
import pathlib
import subprocess
import sys


def fail(what, lines):
    print("\n".join([f"{what}: FAILED", *lines]), file=sys.stderr)
    sys.exit(1)


def messages_below(folder):
    """Files with messages, in the order of their names."""
    return sorted(map(str, pathlib.Path(folder).rglob("*.hl7")))


def mapped(tie, files):
    """One line a message (file, trigger, mapping, result, reason, findings, outputs); the same as bytes; what was said besides."""
    command = [tie, "--config", "ops/demo.toml", "map", "auto", "--json", *files]
    run = subprocess.run(command, capture_output=True)
    said = run.stderr.decode(errors="replace")
    if run.returncode not in (0, 1):
        fail("tie map", [f"it ended with {run.returncode}", said[-3000:]])
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    if len({line["file"] for line in lines}) < len(files):
        fail("tie map", [f"it told of {len(lines)} messages in {len(files)} files", said[-3000:]])
    return lines, run.stdout, said


def completed(files, base, folder):
    """Copies of files in which every message has the numbers that no record can be kept without.

    Most messages of other people do not say whose numbers these are, or are of one segment, and are rightly refused:
    in these copies the mappings get to see them. Gives the copies by the files they are of.
    """
    made = {}
    for file in files:
        copy = pathlib.Path(folder) / pathlib.Path(file).relative_to(base)
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = pathlib.Path(file).read_bytes().decode("latin-1")
        copy.write_bytes(numbered(text).encode("latin-1"))
        made[file] = str(copy)
    return made


def numbered(text):
    lines = text.replace("\r\n", "\r").replace("\n", "\r").split("\r")
    header = next((line for line in lines if line.startswith("MSH") and len(line) > 8), None)
    if header is None:
        return text
    bar, hat, tilde = header[3], header[4], header[5]
    number = lambda value, kind: hat.join([value, "", "", "RXX", kind])
    if not any(line.startswith("PID") for line in lines):
        lines.insert(lines.index(header) + 1, f"PID{bar}1")
    if "ORU" in header and not any(line.startswith("OBR") for line in lines):
        first = next((n for n, line in enumerate(lines) if line[:3] in ("OBX", "SPM")), len(lines))
        lines.insert(first, f"OBR{bar}1")
    orders = 0
    for place, line in enumerate(lines):
        fields = line.split(bar)
        if fields[0] == "PID":
            fields += [""] * (4 - len(fields))
            fields[3] = tilde.join(filter(None, [fields[3], number("4001", "MR")]))
        elif fields[0] == "PV1":
            fields += [""] * (20 - len(fields))
            fields[19] = fields[19].split(hat)[0] and fields[19] or number("V1", "VN")
        elif fields[0] == "OBR":
            orders += 1
            fields += [""] * (5 - len(fields))
            if not fields[2].strip(hat) and not fields[3].strip(hat):
                fields[3] = f"F{orders}{hat}RXX"
            fields[4] = fields[4] or f"T{hat}Test"
        lines[place] = bar.join(fields)
    return "\r".join(lines)


def resources(bundle):
    return [entry["resource"] for entry in bundle.get("entry", [])]


def bundles(lines):
    """Every bundle that came out, with its file."""
    for line in lines:
        for output in line["outputs"]:
            if isinstance(output, dict) and output.get("resourceType") == "Bundle":
                yield line["file"], output
