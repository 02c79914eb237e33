"""The work of ops/corpus: what becomes of every message of a folder, and whether all that comes of it is valid.

Arguments: the built `tie`, the folder of messages, a folder to write to. Each message is taken twice: as it is, and
completed with the numbers that no record can be kept without (see `mapped.completed`), so that the mappings see more.
"""

import collections
import json
import pathlib
import sys
import time

from mapped import bundles, completed, mapped, messages_below
from server import Server
from validators import faults

TIE, CORPUS, WORK = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])


def told(title, counts, most=1000):
    print(f"\n{title}: {sum(counts.values())}")
    for what, count in counts.most_common(most):
        print(f"{count:6} {what}")


def results(lines):
    """Counts of results, of results by trigger event, and of reasons."""
    kinds = collections.Counter(line["result"] for line in lines)
    by_trigger = collections.Counter(f"{line['trigger']}: {line['mapping']}: {line['result']}" for line in lines)
    reasons = collections.Counter(f"{line['result']}: {line['reason']}" for line in lines if line["reason"])
    return kinds, by_trigger, reasons


def posted(named):
    """What a real server refuses, of bundles in the order they came, people first."""
    refused = []
    people = lambda bundle: not any(entry["resource"]["resourceType"] == "Patient" for entry in bundle["entry"])
    with Server(WORK) as server:
        for name, bundle in sorted(named, key=lambda found: people(found[1])):
            said = server.post(bundle)
            if said:
                refused.append((name, said))
    return refused


def examined(title, files):
    started = time.monotonic()
    lines, raw, said = mapped(TIE, files)
    seconds = time.monotonic() - started
    _, again, _ = mapped(TIE, files)
    kinds, by_trigger, reasons = results(lines)
    named = list(bundles(lines))
    print(f"\n=== {title}: {len(lines)} messages of {len(files)} files in {seconds:.1f} s, {len(named)} bundles")
    told("results", kinds)
    told("reasons", reasons)
    wrong = faults(named)
    invalid = collections.Counter(f"{validator}: {kind}: {fault[:160]}" for validator, _, kind, fault in wrong)
    told(f"faults, in {len({name for _, name, _, _ in wrong})} of {len(named)} bundles", invalid, 40)
    refused = posted(named)
    told("refused by the server", collections.Counter(said[:300] for _, said in refused), 20)
    same = raw == again
    panics = said.count("panicked at") + sum("panic" in (line["reason"] or "") for line in lines)
    print(f"\nthe second run is byte-identical: {'yes' if same else 'NO'}; panics: {panics}")
    report = {
        "messages": len(lines), "seconds": round(seconds, 2), "results": kinds, "by_trigger": by_trigger, "reasons": reasons,
        "faults": [list(fault) for fault in wrong], "refused": refused, "same_again": same, "panics": panics,
        "findings": collections.Counter(finding for line in lines for finding in line["findings"]),
        "lines": [{key: line[key] for key in ("file", "trigger", "mapping", "result", "reason")} for line in lines],
    }
    return report, bool(wrong or refused or panics or not same or kinds["error"] or kinds["unrouted"])


def main():
    WORK.mkdir(parents=True, exist_ok=True)
    files = messages_below(CORPUS)
    as_it_is, bad = examined("as they are", files)
    copies = completed(files, CORPUS, WORK / "completed")
    full, worse = examined("completed", sorted(copies.values()))
    (WORK / "report.json").write_text(json.dumps({"as_they_are": as_it_is, "completed": full}, indent=1))
    print(f"\nAll of it: {WORK / 'report.json'}")
    sys.exit(1 if bad or worse else 0)


main()
