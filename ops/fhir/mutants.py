"""Broken resources: does `tie` refuse what validators refuse? The work of ops/check-fhir's second half.

Sound resources of testdata are broken one way each. Four judge each mutant: `tie`, which gets it as a script's own map and
checks it before delivery, the two validators, and a real server. `tie` must refuse every mutant
(or mend it and say so). Arguments: the built `tie`, and a folder below target/ to work in.
"""

import collections
import copy
import json
import pathlib
import subprocess
import sys

from mapped import bundles, fail, mapped, messages_below, resources
from profiles import types
from server import Server
from validators import by_medplum, by_models

TIE, WORK = sys.argv[1], pathlib.Path(sys.argv[2])
EACH = 3  # mutants of one kind
ELEMENTS = "engine/src/fhir/elements.txt"


def spots(node, type_name):
    """(object, element, its type, its choice) of all that stands in a resource."""
    known = types().get(type_name, {})
    for name, child in list(node.items()):
        shape = known.get(name)
        if not shape:
            continue
        yield node, name, *shape
        for item in child if isinstance(child, list) else [child]:
            if isinstance(item, dict) and shape[0] != "Resource":
                yield from spots(item, shape[0])


def of_type(*wanted):
    """The first spot of one of these types."""
    return lambda it: next(((o, n) for o, n, kind, _ in spots(it, it["resourceType"]) if kind in wanted), None)


def objects(type_name, having=()):
    """The first object of a type that has these elements."""
    def find(it):
        if it["resourceType"] == type_name and all(name in it for name in having):
            return it
        for holder, name, kind, _ in spots(it, it["resourceType"]):
            for item in holder[name] if isinstance(holder[name], list) else [holder[name]]:
                if kind == type_name and isinstance(item, dict) and all(part in item for part in having):
                    return item
        return None
    return find


def written(text, *wanted):
    """Another text at the first spot of these types."""
    def change(it):
        found = of_type(*wanted)(it)
        if not found:
            return False
        holder, name = found
        holder[name] = [text] if isinstance(holder[name], list) else text
        return True
    return change


def altered(type_name, having, change):
    """The first object of a type, changed."""
    def apply(it):
        found = objects(type_name, having)(it)
        if found is None:
            return False
        change(found)
        return True
    return apply


def put(**elements):
    return lambda it: it.update(elements)


def without(*names):
    return lambda it: [it.pop(name, None) for name in names]


def kept(*names):
    return lambda it: [it.pop(name) for name in list(it) if name not in names and name != "resourceType"]


def both(*changes):
    return lambda it: [change(it) for change in changes]


def listed(it):
    found = next(((o, n) for o, n, _, _ in spots(it, it["resourceType"]) if isinstance(o[n], list)), None)
    if found:
        found[0][found[1]] = found[0][found[1]][0]
    return bool(found)


def doubled(it):
    found = next(((o, n) for o, n, kind, _ in spots(it, it["resourceType"]) if isinstance(o[n], dict)), None)
    if found:
        found[0][found[1]] = [found[0][found[1]]]
    return bool(found)


def needs():
    """One mutation for each required element of each type: it is taken out."""
    current = None
    for line in pathlib.Path(ELEMENTS).read_text(encoding="utf-8").splitlines():
        if line.startswith(("#", "@")):
            continue
        if ":" in line:
            current = line.split(":")[0]
        elif line.split(" ")[1] in ("1", "+"):
            name = line.split(" ")[0]
            yield f"{current} without {name}", altered(current, [name], without(name))


CODED = {"coding": [{"system": "http://x.example", "code": "x"}]}
PATIENT = {"reference": "Patient/1"}
MUTATIONS = dict(needs()) | {
    "an element that there is not": put(nonsense="x"),
    "a code of no set": lambda it: any(it.update({name: "nonsense"}) is None for name in ("status", "gender", "use") if name in it),
    "a code with two blanks": written("a  b", "code"),
    "a day that there is not": written("2026-02-30", "date", "dateTime"),
    "a day without dashes": written("20260228", "date", "dateTime"),
    "a time without zone": written("2026-02-28T09:30:00", "dateTime", "instant"),
    "a time without seconds": written("2026-02-28T09:30Z", "dateTime", "instant"),
    "an instant of a day": written("2026-02-28", "instant"),
    "an uri with a blank": written("http://x example", "uri", "canonical", "url"),
    "an id with a line": put(id="a_b"),
    "an id of 65 letters": put(id="x" * 65),
    "data that is no base64": written("QUI", "base64Binary"),
    "a text for a truth": written("true", "boolean"),
    "a text for a number": written("7", "decimal", "integer", "positiveInt"),
    "a number for a text": written(7, "string"),
    "a zero that must be above": written(0, "positiveInt"),
    "one for a list": listed,
    "a list for one": doubled,
    "a reference to what it may not": altered("Reference", ["reference"], put(reference="Substance/1")),
    "a twin with nonsense": altered("Patient", ["birthDate"], put(_birthDate={"nonsense": "x"})),
    "a contained resource with nonsense": put(contained=[{"resourceType": "Patient", "id": "x", "nonsense": 1}]),
    "a contained resource of no kind": put(contained=[{"resourceType": "Nonsense", "id": "x"}]),
    "a reference to nothing contained (ref-1)": altered("Reference", ["reference"], put(reference="#nothing")),
    "two deaths": altered("Patient", [], put(deceasedBoolean=True, deceasedDateTime="2026")),
    "two values": altered("Observation", [], put(valueString="x", valueBoolean=True)),
    "ext-1: no value": altered("Extension", ["url"], kept("url")),
    "ext-1: value and extension": altered("Extension", ["url"], put(valueString="x", extension=[{"url": "x", "valueString": "x"}])),
    "obs-6": altered("Observation", ["valueQuantity"], put(dataAbsentReason=CODED)),
    "obs-7": lambda it: altered("Observation", ["valueQuantity"], put(component=[{"code": copy.deepcopy(it.get("code"))}]))(it),
    "obs-3": altered("Observation.referenceRange", [], kept()),
    "per-1": altered("Period", ["start"], put(start="2026-02-02", end="2026-02-01")),
    "cpt-2": altered("ContactPoint", ["system", "value"], without("system")),
    "att-1": altered("Attachment", ["data"], without("contentType")),
    "pat-1": altered("Patient", [], put(contact=[{"gender": "male"}])),
    "org-1": altered("Organization", [], without("identifier", "name")),
    "org-2": altered("Organization", [], put(address=[{"use": "home", "city": "x"}])),
    "org-3": altered("Organization", [], put(telecom=[{"use": "home", "system": "phone", "value": "1"}])),
    "qty-3": altered("Quantity", ["code"], without("system")),
    "rng-2": altered("Observation", ["valueQuantity"], both(without("valueQuantity"), put(valueRange={"low": {"value": 2}, "high": {"value": 1}}))),
    "rat-1": altered("Observation", ["valueQuantity"], both(without("valueQuantity"), put(valueRatio={"numerator": {"value": 2}}))),
    "a narrative that is none": put(text={"status": "generated", "div": "x"}),
}
# Whole resources, for what testdata may not have: (name, resource).
WHOLE = {
    "con-4": {"resourceType": "Condition", "subject": PATIENT, "clinicalStatus": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}]}, "abatementDateTime": "2026"},
    "con-5": {"resourceType": "Condition", "subject": PATIENT, "clinicalStatus": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}]}, "verificationStatus": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-ver-status", "code": "entered-in-error"}]}},
    "ait-1": {"resourceType": "AllergyIntolerance", "patient": PATIENT},
    "ait-2": {"resourceType": "AllergyIntolerance", "patient": PATIENT, "clinicalStatus": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical", "code": "active"}]}, "verificationStatus": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/allergyintolerance-verification", "code": "entered-in-error"}]}},
    "app-1": {"resourceType": "Appointment", "status": "proposed", "participant": [{"status": "accepted"}]},
    "app-2": {"resourceType": "Appointment", "status": "proposed", "start": "2026-02-28T09:30:00Z", "participant": [{"status": "accepted", "actor": PATIENT}]},
    "app-3": {"resourceType": "Appointment", "status": "booked", "participant": [{"status": "accepted", "actor": PATIENT}]},
    "app-4": {"resourceType": "Appointment", "status": "proposed", "cancelationReason": CODED, "participant": [{"status": "accepted", "actor": PATIENT}]},
    "mad-1": {"resourceType": "MedicationAdministration", "status": "completed", "medicationCodeableConcept": CODED, "subject": PATIENT, "effectiveDateTime": "2026", "dosage": {"text": "x"}},
    "mdd-1": {"resourceType": "MedicationDispense", "status": "completed", "medicationCodeableConcept": CODED, "whenPrepared": "2026-02-28T09:30:00Z", "whenHandedOver": "2026-02-27T09:30:00Z"},
    "prr-1": {"resourceType": "ServiceRequest", "status": "active", "intent": "order", "subject": PATIENT, "orderDetail": [CODED]},
    "tim-1": {"resourceType": "MedicationRequest", "status": "active", "intent": "order", "medicationCodeableConcept": CODED, "subject": PATIENT, "dosageInstruction": [{"timing": {"repeat": {"duration": 1}}}]},
    "tim-2": {"resourceType": "MedicationRequest", "status": "active", "intent": "order", "medicationCodeableConcept": CODED, "subject": PATIENT, "dosageInstruction": [{"timing": {"repeat": {"period": 1}}}]},
    "cmp-1": {"resourceType": "Composition", "status": "final", "type": CODED, "date": "2026", "author": [{"display": "x"}], "title": "x", "section": [{"title": "x"}]},
    "lst-1": {"resourceType": "List", "status": "current", "mode": "working", "emptyReason": CODED, "entry": [{"item": {"display": "x"}}]},
    "imm-1": {"resourceType": "Immunization", "status": "completed", "vaccineCode": CODED, "patient": PATIENT, "occurrenceDateTime": "2026", "education": [{"publicationDate": "2026"}]},
}


def mutants():
    """(kind of break, resource): no more than EACH of one kind, of different types of resource where there are."""
    lines, _, _ = mapped(TIE, [f for f in messages_below("testdata") if "/broken/" not in f and "/journals/" not in f])
    sound = {}
    for _, bundle in bundles(lines):
        # Alone, a resource cannot refer to its neighbours in the bundle.
        text = json.dumps(bundle)
        for entry in bundle["entry"]:
            text = text.replace(f'"reference": "{entry["fullUrl"]}"', f'"reference": "{entry["request"]["url"]}"')
        for resource in resources(json.loads(text)):
            sound.setdefault((resource["resourceType"], tuple(sorted(resource))), resource)
    for kind, change in MUTATIONS.items():
        made, of = 0, collections.Counter()
        for resource in sound.values():
            if made == EACH or of[resource["resourceType"]]:
                continue
            broken = copy.deepcopy(resource)
            before = json.dumps(broken, sort_keys=True)
            change(broken)
            if json.dumps(broken, sort_keys=True) != before:
                made += 1
                of[resource["resourceType"]] += 1
                yield kind, broken
    for kind, resource in WHOLE.items():
        yield kind, {**resource, "id": "x"}


def rhai(node):
    """The JSON of a node as a literal of Rhai."""
    if isinstance(node, dict):
        return "#{" + ", ".join(f"{json.dumps(name)}: {rhai(child)}" for name, child in node.items()) + "}"
    if isinstance(node, list):
        return "[" + ", ".join(map(rhai, node)) + "]"
    return json.dumps(node, ensure_ascii=False)


def by_tie(broken):
    """What `tie` says of each: it gets them as maps that a script returns, one message each."""
    home = WORK / "mutants"
    (home / "mappings").mkdir(parents=True, exist_ok=True)
    functions = "".join(f"fn m{n}() {{ {rhai(resource)} }}\n" for n, resource in enumerate(broken))
    cases = ", ".join(f'"{n}" => m{n}()' for n in range(len(broken)))
    (home / "mappings/mutants.rhai").write_text(f'{functions}fn map(msg) {{ switch msg.text("MSH-10") {{ {cases} }} }}\n')
    messages = "".join(f"MSH|^~\\&|A|RXX|||20260115093000||ADT^A01|{n}|P|2.4\rPID|1\r" for n in range(len(broken)))
    (home / "all.hl7").write_text(messages)
    run = subprocess.run([TIE, "--home", str(home), "map", "mutants", "--json", str(home / "all.hl7")], capture_output=True, text=True)
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    if len(lines) != len(broken):
        fail("mutants", [f"tie judged {len(lines)} of {len(broken)}", run.stderr[-3000:]])
    # What it can mend it mends: then what comes out is another resource, and sound.
    outputs = [line["outputs"][0] if line["outputs"] else {} for line in lines]
    sound = [not medplum and not by_models(output) for medplum, output in zip(by_medplum(outputs), outputs)]
    mended = [fine and output != given for fine, output, given in zip(sound, outputs, broken)]
    return [line["reason"] or ("mended" if good else "") for line, good in zip(lines, mended)]


def by_server(broken):
    with Server(WORK) as server:
        for resource in broken:
            url = f"{resource['resourceType']}/{resource.get('id', 'x')}"
            yield server.post({"resourceType": "Bundle", "type": "transaction", "entry": [{"resource": resource, "request": {"method": "PUT", "url": url}}]}) or ""


def main():
    kinds, broken = zip(*mutants())
    judges = {
        "tie": by_tie(broken),
        "fhir.resources": [" ".join(by_models(resource)) for resource in broken],
        "medplum": [" ".join(found) for found in by_medplum(list(broken))],
        "server": list(by_server(broken)),
    }
    refused = {judge: sum(map(bool, said)) for judge, said in judges.items()}
    missed = [n for n in range(len(broken)) if not judges["tie"][n]]
    told = [
        {"break": kinds[n], "resource": broken[n], **{judge: said[n] for judge, said in judges.items()}} for n in range(len(broken))
    ]
    (WORK / "mutants.json").write_text(json.dumps(told, indent=1))
    print(f"{len(broken)} broken resources, {len(set(kinds))} ways; refused by " + ", ".join(f"{judge} {count}" for judge, count in refused.items()))
    if missed:
        others = lambda n: [judge for judge in judges if judge != "tie" and judges[judge][n]]
        fail("mutants", [f"tie lets through: {kinds[n]} ({broken[n]['resourceType']}); refused by {others(n)}" for n in missed])


main()
