import assert from "node:assert/strict";
import { test } from "node:test";
import { parseTemplate } from "./format-template.ts";

const facts = {
  id: "a1b2",
  state: "running",
  vmm: { pid: 7 },
  end: undefined,
  annotations: { "team.name": "blue" },
  containers: [
    { id: "c1", command: ["sh", "-c"] },
    { id: "c2", command: [] },
  ],
};

const cases: readonly (readonly [template: string, text: string])[] = [
  ["{{.state}}", "running"],
  ["{{ .State }} {{.Id}} {{.ID}}", "running a1b2 a1b2"],
  ["{{.vmm.pid}}", "7"],
  ["{{.vmm.template}}/{{.end.message}}", "<no value>/<no value>"],
  ["{{json .vmm}}", '{"pid":7}'],
  ["{{json .}}", JSON.stringify(facts)],
  ["{{json .end}}", "null"],
  ["{{len .containers}}", "2"],
  ['{{range .containers}}{{.id}}={{join .command " "}};{{end}}', "c1=sh -c;c2=;"],
  ["{{range .containers}}{{if .command}}{{.id}}{{else}}none{{end}},{{end}}", "c1,none,"],
  ['{{index .annotations "team.name"}} {{index .annotations "no"}}', "blue <no value>"],
  ["{{index .containers 1}}", '{"id":"c2","command":[]}'],
  ["{{if .end}}ended{{end}}up", "up"],
  ["a\\tb{{.id}}", "a\tba1b2"],
  ["plain", "plain"],
];

for (const [template, text] of cases) {
  test(`--format ${template}`, () => assert.equal(parseTemplate(template)(facts), text));
}

const wrong: readonly (readonly [template: string, message: RegExp])[] = [
  ["{{.nonesuch}}", /there is no fact \.nonesuch; there are id, state/],
  ["{{.constructor}}", /there is no fact/],
  ["{{.state", /has no \}\}/],
  ["{{range .containers}}x", /\{\{end\}\} is missing/],
  ["{{end}}", /\{\{end\}\} is not understood/],
  ["{{.state | upper}}", /not understood/],
  ["{{$x := .state}}", /not understood/],
  ['{{printf "%s" .state}}', /not understood/],
  ["{{}}", /not understood/],
  ["{{json}}", /not understood/],
  ["{{join .containers}}", /not understood/],
];

for (const [template, message] of wrong) {
  test(`--format ${template} is refused, with what there is`, () =>
    assert.throws(() => parseTemplate(template)(facts), { reason: "INVALID_ARGUMENT", message, remedy: /range/ }));
}
