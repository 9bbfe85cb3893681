import assert from "node:assert/strict";
import { test } from "../../test/support/harness.ts";
import { decodeField } from "../base/index.ts";
import { buildSpec } from "./spec.ts";
import { compareSpec } from "./spec-differences.ts";
import type { ContainerState } from "./state.ts";

const container: ContainerState = {
  id: "0123456789ab",
  name: "web",
  image: "busybox",
  imageConfig: { user: "", stopSignal: "SIGTERM", cmd: ["/bin/httpd", "-f"] },
  config: { user: "1000:1000", readOnly: true, tmpfs: ["/scratch"], limits: { memoryBytes: 1_000_000 } },
  limits: { memoryBytes: 1_000_000 },
  disks: [],
  createdAtMs: 0,
  state: "running",
  inGuest: true,
  frozen: false,
  starts: 1,
  processes: [],
};
const { imageConfig, config, limits } = container;
const saved = buildSpec(imageConfig, { ...config, limits, hostname: "old" });

function differences(spec: unknown): string[] {
  const found = compareSpec(container, decodeField(spec, "spec", "INVALID_ARGUMENT"));
  return found.map(({ what, mayDiffer }) => (mayDiffer ? `(${what})` : what));
}

test("specifications: the same one, and parts of it, do not differ", async () => {
  const user = { uid: 1000, gid: 1000 };
  assert.deepEqual(differences({ ...saved, process: { ...saved.process, user } }), []);
  assert.deepEqual(differences({}), []);
  assert.deepEqual(differences({ process: { cwd: "/" } }), []);
});

test("specifications: what a restore elsewhere has otherwise is no difference", async () => {
  assert.deepEqual(
    differences({
      ...saved,
      root: { path: "/elsewhere", readonly: true },
      hostname: "new",
      hooks: { prestart: [{ path: "/hook" }] },
      annotations: { some: "other" },
      process: { ...saved.process, user: { uid: 1000, gid: 1000 }, env: ["A=1"], args: ["/usr/bin/httpd", "-f"] },
      mounts: saved.mounts.map((mount) => ({ ...mount, source: "/elsewhere", options: [...mount.options].reverse() })),
      linux: {
        ...saved.linux,
        cgroupsPath: "/another",
        devices: [{ path: "/dev/x", major: 1, minor: 2 }],
        namespaces: [...saved.linux.namespaces, { type: "network", path: "/run/netns/x" }].map((each) => ({ ...each })),
      },
    }),
    [],
  );
});

const cases: readonly (readonly [spec: object, ...what: readonly string[]])[] = [
  [{ ociVersion: "1.2.0" }, "ociVersion"],
  [{ root: { readonly: false } }, "root.readonly"],
  [{ process: { args: ["/bin/httpd"] } }, "process.args"],
  [{ process: { args: ["/bin/other", "-f"] } }, "process.args"],
  [{ process: { cwd: "/tmp" } }, "process.cwd"],
  [{ process: { terminal: true } }, "process.terminal"],
  [{ process: { user: { uid: 0, gid: 1000 } } }, "process.user.uid"],
  [{ process: { user: { uid: 1000, gid: 5 } } }, "process.user.gid"],
  [{ process: { capabilities: { bounding: ["CAP_SYS_ADMIN"] } } }, "process.capabilities.bounding"],
  [{ process: { rlimits: [{ type: "RLIMIT_NOFILE", soft: 1, hard: 1 }] } }, "process.rlimits"],
  [{ process: { noNewPrivileges: true } }, "process.noNewPrivileges"],
  [{ linux: { sysctl: { "net.core.somaxconn": "1" } } }, "linux.sysctl"],
  [{ linux: { seccomp: { defaultAction: "SCMP_ACT_ALLOW" } } }, "linux.seccomp"],
  [{ linux: { namespaces: [{ type: "pid" }] } }, "linux.namespaces"],
  [{ mounts: saved.mounts.slice(1) }, "mounts /proc"],
  [{ mounts: [...saved.mounts, { destination: "/more", type: "tmpfs" }] }, "mounts /more"],
  [
    { mounts: saved.mounts.map((mount) => (mount.destination === "/scratch" ? { ...mount, options: ["ro"] } : mount)) },
    "mounts /scratch",
  ],
  [{ linux: { resources: { memory: { limit: 5 } } } }, "(linux.resources.memory.limit)"],
  [{ linux: { resources: { pids: { limit: 5 } } } }, "(linux.resources.pids.limit)"],
  [
    { linux: { resources: { cpu: { quota: 5, cpus: "0" } } } },
    "(linux.resources.cpu.quota)",
    "(linux.resources.cpu.cpus)",
  ],
];

for (const [spec, ...what] of cases) {
  test(`specifications: ${JSON.stringify(spec).slice(0, 80)} differs in ${what.join(", ")}`, async () => {
    assert.deepEqual(differences(spec), what);
  });
}

test("specifications: what is none is refused, and what is hostile has its limits", async () => {
  for (const spec of [5, "text", [], { process: 5 }, { process: { args: "no list" } }, { mounts: [{}] }]) {
    assert.throws(() => differences(spec), { reason: "INVALID_ARGUMENT" }, JSON.stringify(spec));
  }
  const [long] = compareSpec(
    container,
    decodeField({ process: { cwd: "x".repeat(10_000) } }, "spec", "INVALID_ARGUMENT"),
  );
  assert.equal(long?.given.length, 200);
});
