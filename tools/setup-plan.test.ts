import assert from "node:assert/strict";
import { test } from "node:test";
import { productPackages, testPackages } from "./packages.ts";
import { type HostFacts, planSetup } from "./setup-plan.ts";

const needed = [
  { name: "qemu-system-x86", program: "qemu-system-x86_64", reason: "runs the VMs" },
  { name: "skopeo", program: "skopeo", reason: "fetches images" },
];
const debian: HostFacts = {
  systemIds: ["debian"],
  systemName: "Debian GNU/Linux 12",
  hasApt: true,
  isRoot: true,
  installed: new Set(["qemu-system-x86", "skopeo"]),
  hasPackageLists: true,
};

function refusal(facts: HostFacts): string {
  const plan = planSetup(facts, needed);
  assert.equal(plan.kind, "refuse");
  return plan.kind === "refuse" ? plan.message : "";
}

test("a host that has everything is ready, root or not", () => {
  assert.deepEqual(planSetup(debian, needed), { kind: "ready" });
  assert.deepEqual(planSetup({ ...debian, isRoot: false }, needed), { kind: "ready" });
});

test("root on Debian installs what is missing, and only that", () => {
  const facts = { ...debian, installed: new Set(["skopeo"]) };
  assert.deepEqual(planSetup(facts, needed), { kind: "install", packages: ["qemu-system-x86"], updateFirst: false });
});

test("a system without package lists fetches them first", () => {
  const facts = { ...debian, installed: new Set<string>(), hasPackageLists: false };
  assert.deepEqual(planSetup(facts, needed), {
    kind: "install",
    packages: ["qemu-system-x86", "skopeo"],
    updateFirst: true,
  });
  assert.deepEqual(planSetup({ ...debian, hasPackageLists: false }, needed), { kind: "update" });
});

test("without root it names the packages and the command, and changes nothing", () => {
  const message = refusal({ ...debian, isRoot: false, installed: new Set(["skopeo"]), hasPackageLists: false });
  assert.match(message, /only root may install them: qemu-system-x86\./);
  assert.match(message, /Nothing was changed/);
  assert.match(message, /apt-get update\n.*apt-get install -y --no-install-recommends qemu-system-x86$/);
});

test("without root and without package lists it says which right is missing", () => {
  assert.match(
    refusal({ ...debian, isRoot: false, hasPackageLists: false }),
    /only root may fetch them[\s\S]*apt-get update$/,
  );
});

test("another system is named, and gets the list of what is needed", () => {
  const message = refusal({ ...debian, systemIds: ["fedora"], systemName: "Fedora Linux 41", hasApt: false });
  assert.match(message, /Fedora Linux 41, without apt-get/);
  assert.match(message, /qemu-system-x86 \(qemu-system-x86_64\): runs the VMs\n.*skopeo \(skopeo\)/);
});

test("a system derived from Debian counts as Debian", () => {
  assert.equal(planSetup({ ...debian, systemIds: ["raspbian", "debian"] }, needed).kind, "ready");
});

test("no package stands in the tables twice", () => {
  const names = [...productPackages, ...testPackages].map(({ name }) => name);
  assert.deepEqual(names, [...new Set(names)]);
});
