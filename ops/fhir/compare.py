"""The work of ops/compare-converters: our outputs beside those of other converters for the same messages, element by element.

Others' outputs are no oracle (many are no valid FHIR): what is counted here is where to look, not what is right. Resources
are paired by type and by what they share; elements by their path without indices. A reference is its target's type, a
time is as precise as the less precise of two, in the local time it was written in. Arguments: the built `tie`, the
folder of messages, a folder to write to (other people's data: never into git).
"""

import collections
import csv
import fnmatch
import json
import pathlib
import re
import sys

from mapped import completed, mapped, resources

TIE, CORPUS, WORK = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
ARGUED = pathlib.Path(__file__).with_name("argued.csv")
TIME = re.compile(r"^\d{4}(-\d\d(-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?)?)?$")
NOT_COMPARED = {"id", "text", "fullUrl", "resourceType"}


def leaves(node, path, bundle_types):
    """(path, value) of all primitives below; extensions are named by the end of their url."""
    if isinstance(node, dict):
        if "url" in node and "xtension" in path:
            path = f"{path}({str(node['url']).rsplit('/', 1)[-1]})"
        for name, child in node.items():
            if name == "reference" and isinstance(child, str):
                yield f"{path}.reference", target_type(child, bundle_types)
            elif name not in NOT_COMPARED or "." in path and name == "text":
                if not (name == "url" and "xtension" in path):
                    yield from leaves(child, f"{path}.{name}", bundle_types)
    elif isinstance(node, list):
        for child in node:
            yield from leaves(child, path, bundle_types)
    elif node not in (None, ""):
        yield path, str(node).strip()


def target_type(reference, bundle_types):
    if reference in bundle_types:
        return "→" + bundle_types[reference]
    return "→" + reference.split("?")[0].split("/")[0]


def flat(bundle):
    """Each resource as its type and leaves."""
    types = {}
    for entry in bundle.get("entry", []):
        kind = entry.get("resource", {}).get("resourceType", "?")
        types[entry.get("fullUrl", "")] = kind
        types[f"{kind}/{entry.get('resource', {}).get('id')}"] = kind
    return [(r.get("resourceType", "?"), list(leaves(r, r.get("resourceType", "?"), types))) for r in resources(bundle)]


def same(one, other):
    if one.casefold() == other.casefold():
        return True
    if TIME.match(one) and TIME.match(other):
        one, other = (re.sub(r"(Z|[+-]\d\d:\d\d)$", "", text).split(".")[0] for text in (one, other))
        return one.startswith(other) or other.startswith(one)
    try:
        return float(one) == float(other)
    except ValueError:
        return False


def pairs(ours, theirs):
    """Resources of one type, the most alike first; what is left over has no partner."""
    def likeness(one, other):
        values = collections.Counter(value.casefold() for _, value in one)
        return sum((values & collections.Counter(value.casefold() for _, value in other)).values())
    ranked = sorted(
        ((likeness(o, t), -i, -j) for i, o in enumerate(ours) for j, t in enumerate(theirs)), reverse=True
    )
    used_ours, used_theirs, found = set(), set(), []
    for like, i, j in ranked:
        if -i not in used_ours and -j not in used_theirs and (like > 0 or len(ours) == len(theirs) == 1):
            used_ours.add(-i)
            used_theirs.add(-j)
            found.append((ours[-i], theirs[-j]))
    return found, [t for j, t in enumerate(theirs) if j not in used_theirs], len(ours) - len(used_ours)


class Tally:
    """Counts by path, with some examples each."""

    def __init__(self):
        self.counts = collections.defaultdict(collections.Counter)
        self.messages = collections.defaultdict(set)
        self.examples = collections.defaultdict(list)

    def add(self, path, how, name, example=None):
        self.counts[path][how] += 1
        self.messages[path, how].add(name)
        known = self.examples[path, how]
        if example and len(known) < 3 and all(example[1:] != other[1:] for other in known):
            known.append(example)


def compare(name, ours, theirs, tally):
    by_path = [collections.defaultdict(list), collections.defaultdict(list)]
    for side, found in zip(by_path, (ours, theirs)):
        for path, value in found:
            side[path].append(value)
    for path in sorted(set(by_path[0]) | set(by_path[1])):
        mine, other = list(by_path[0][path]), []
        for value in by_path[1][path]:
            equal = next((m for m in mine if same(m, value)), None)
            if equal is None:
                other.append(value)
            else:
                mine.remove(equal)
                tally.add(path, "equal", name)
        while mine and other:
            tally.add(path, "other value", name, (name, mine.pop(0), other.pop(0)))
        for value in other:
            tally.add(path, "missing", name, (name, "", value))
        for value in mine:
            tally.add(path, "more", name, (name, value, ""))


def argued():
    """Rules of ours: pattern of the path, verdict, why."""
    with open(ARGUED, encoding="utf-8") as file:
        rows = csv.reader(line for line in file if not line.startswith("#"))
        return [tuple(row) for row in rows if row][1:]


def verdict(path, rules):
    return next(((said, why) for pattern, said, why in rules if fnmatch.fnmatchcase(path, pattern)), ("look", ""))


def rows_of(tally, how, rules):
    found = [(len(tally.messages[path, how]), path) for path, counts in tally.counts.items() if counts[how]]
    for count, path in sorted(found, key=lambda row: (-row[0], row[1])):
        yield f"{count} / {tally.counts[path][how]}", path, *verdict(path, rules), tally.examples[path, how]


def report(tally, whole, results, compared):
    rules = argued()
    out = [f"# Ours beside other converters: {compared} messages with output on both sides", ""]
    out += [f"- {count} × {what}" for what, count in results.most_common()]
    sums = collections.Counter()
    for counts in tally.counts.values():
        sums.update(counts)
    out += ["", "Elements of paired resources: " + ", ".join(f"{sums[h]} {h}" for h in ("equal", "other value", "missing", "more"))]
    judged = collections.Counter()
    for path, counts in tally.counts.items():
        judged[verdict(path, rules)[0]] += counts["missing"] + counts["other value"]
    out += ["", "Of what is missing or other: " + ", ".join(f"{count} {said}" for said, count in judged.most_common())]
    out += ["", "## Whole resources", "", "| type | paired | theirs only | ours only | verdict |", "|---|---|---|---|---|"]
    for kind in sorted(whole, key=lambda kind: -whole[kind]["missing"]):
        said = ": ".join(part for part in verdict(kind, rules) if part) if whole[kind]["missing"] else ""
        out.append(f"| {kind} | {whole[kind]['paired']} | {whole[kind]['missing']} | {whole[kind]['more']} | {said} |")
    lacks = collections.Counter()
    for path, counts in tally.counts.items():
        said, why = verdict(path, rules)
        if said == "real":
            lacks[f"{path.split('.')[0]}: {why}"] += counts["missing"]
    for kind in whole:
        said, why = verdict(kind, rules)
        if said == "real":
            lacks[f"{kind} (whole): {why}"] += whole[kind]["missing"]
    out += ["", "## Real lacks, summed (values)", "", *(f"- {count} × {what}" for what, count in lacks.most_common() if count)]
    for how, title in (("missing", "Ours missing"), ("other value", "Other value"), ("more", "Ours more")):
        out += ["", f"## {title}", "", "| messages / values | equal | element | verdict | examples (file: ours → theirs) |", "|---|---|---|---|---|"]
        for count, path, said, why, examples in rows_of(tally, how, rules):
            if how == "more":
                if tally.counts[path][how] < 20:
                    continue
                said, why = "", ""
            shown = "; ".join(f"{pathlib.Path(n).name[-44:]}: {o[:40]} → {t[:60]}" for n, o, t in examples).replace("|", "\\|").replace("\n", " ")
            out.append(f"| {count} | {tally.counts[path]['equal']} | {path} | {said}{': ' + why if why else ''} | {shown} |")
    return "\n".join(out) + "\n"


def main():
    with open(CORPUS / "manifest.csv", encoding="utf-8", newline="") as file:
        expected = {str(CORPUS / row["file"]): CORPUS / row["expected_fhir"] for row in csv.DictReader(file) if row["expected_fhir"]}
    if len(sys.argv) > 4:
        expected = {name: other for name, other in expected.items() if sys.argv[4] in name}
    WORK.mkdir(parents=True, exist_ok=True)
    copies = completed(sorted(expected), CORPUS, WORK / "completed")
    expected = {copy: expected[file] for file, copy in copies.items()}
    lines, _, _ = mapped(TIE, sorted(expected))
    tally, results, compared = Tally(), collections.Counter(), 0
    whole = collections.defaultdict(collections.Counter)
    for line in lines:
        if line["result"] != "mapped":
            results[f"{line['trigger']} {line['result']}: {line['reason']}"] += 1
            continue
        results["mapped"] += 1
        theirs = collections.defaultdict(list)
        ours = collections.defaultdict(list)
        text = expected[line["file"]].read_text(encoding="utf-8-sig")
        if not text.lstrip().startswith("{"):
            continue  # some keep the error that their converter gave
        for kind, found in flat(json.loads(text)):
            theirs[kind].append(found)
        compared += 1
        for output in line["outputs"]:
            for kind, found in flat(output):
                ours[kind].append(found)
        for kind in set(ours) | set(theirs):
            found, missing, more = pairs(ours[kind], theirs[kind])
            whole[kind].update(paired=len(found), missing=len(missing), more=more)
            for mine, other in found:
                compare(line["file"], mine, other, tally)
    (WORK / "report.md").write_text(report(tally, whole, results, compared))
    (WORK / "elements.json").write_text(json.dumps(
        {path: {**counts, "examples": {how: tally.examples[path, how] for how in counts}} for path, counts in sorted(tally.counts.items())},
        indent=1,
    ))
    print(f"{compared} messages compared: {WORK / 'report.md'}")


main()
