"""Two validators that share no line with `tie` or each other, and the rules of profiles and extensions.

`fhir.resources` reads a resource into its models (R4B): unknown, misshaped and missing elements, formats. `@medplum/core`
checks it against the structure definitions of FHIR 4.0.1, invariants included. Neither knows required codes: those are
checked by `tie` itself, and by the server that everything is posted to.
"""

import json
import os
import pathlib
import subprocess

from fhir.resources.R4B import get_fhir_model_class

import profiles

HERE = pathlib.Path(__file__).parent
TOOLS = pathlib.Path(os.environ.get("TIE_TOOLS", "target/tools")).resolve()

# R4B changed or dropped these resources of R4 (https://hl7.org/fhir/R4B/diff.html): its models cannot judge them.
CHANGED_IN_R4B = {
    "ActivityDefinition", "DeviceDefinition", "EffectEvidenceSynthesis", "Evidence", "EvidenceVariable", "MedicinalProduct",
    "PlanDefinition", "ResearchDefinition", "ResearchElementDefinition", "RiskEvidenceSynthesis", "SubstanceSpecification",
}


def by_models(resource):
    kind = resource.get("resourceType", "")
    if kind in CHANGED_IN_R4B:
        return []
    try:
        get_fhir_model_class(kind).model_validate(resource)
    except Exception as error:  # the models raise several kinds
        return [" ".join(str(error).split())[:400]]
    return []


def by_medplum(resources):
    """The faults of each resource; one process for all."""
    run = subprocess.run(
        ["node", str(HERE / "medplum.mjs"), str(TOOLS / "node")],
        input="".join(json.dumps(resource) + "\n" for resource in resources), capture_output=True, text=True,
    )
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    if run.returncode or len(answers) != len(resources):
        raise RuntimeError(f"medplum judged {len(answers)} of {len(resources)} resources: {run.stderr[-2000:]}")
    return answers


def faults(named_bundles):
    """(validator, name, resource type, fault) for every fault in bundles, their entries included."""
    items = []
    for name, bundle in named_bundles:
        items += [(name, bundle)] + [(name, entry["resource"]) for entry in bundle.get("entry", [])]
    rules = {**profiles.of_package(TOOLS / "node"), **profiles.ukcore()}
    found = []
    for (name, resource), medplum in zip(items, by_medplum([resource for _, resource in items])):
        kind = resource.get("resourceType", "?")
        found += [("fhir.resources", name, kind, fault) for fault in by_models(resource)]
        found += [("medplum", name, kind, fault) for fault in medplum]
        found += [("profiles", name, kind, fault) for fault in profiles.faults(resource, rules)]
    for name, bundle in named_bundles:
        found += [("references", name, "Bundle", fault) for fault in unresolved(bundle)]
    return found


def unresolved(bundle):
    """References within the bundle that lead nowhere."""
    known = {entry.get("fullUrl") for entry in bundle.get("entry", [])}
    return [f"{text} is not in the bundle" for text in references(bundle) if text.startswith("urn:") and text not in known]


def references(node):
    if isinstance(node, dict):
        for name, child in node.items():
            if name == "reference" and isinstance(child, str):
                yield child
            else:
                yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)
