/**
 * The network's figures: bytes and requests through each kind of network, in turns with the same VM and the same back end under rules
 * that do no more than they must, by hand; and what a network adds to the creation of a sandbox. Needs root, and the Debian packages
 * iperf3 and wrk, which nothing else of the project does.
 */
import { execFile } from "node:child_process";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import type { NetworkConfig, Runtime, SandboxHandle } from "../src/sdk/index.ts";
import { type Measurement, time } from "./measure.ts";

const run = promisify(execFile);

export interface NetworkBench {
  readonly runtime: Runtime;
  /** Runs a command of Belljar's. */
  readonly cli: (...args: string[]) => Promise<void>;
  readonly dir: string;
}

const TURNS = 6;
const REST_MS = 1_000;
const SECONDS = 2;
const CREATIONS = 12;
const [IPERF, HTTP] = [5201, 80];
const IMAGE = "bench-iperf3";
const SERVER = `require("http").createServer((q, r) => r.end("hello, world\\n")).listen(${HTTP})`;

/** A way in, from Belljar's rules to those by hand and back. */
interface Subject {
  readonly name: string;
  readonly config: NetworkConfig;
  /** In front of a client's command. */
  readonly from: readonly string[];
  readonly begin: () => Promise<void>;
  readonly end: () => Promise<void>;
  /** Where the servers are to be found. */
  readonly place: (sandbox: SandboxHandle) => Promise<{ readonly host: string; readonly ports: readonly number[] }>;
  readonly byHand: (sandbox: SandboxHandle) => Promise<Toggle>;
}

interface Toggle {
  readonly on: () => Promise<void>;
  readonly off: () => Promise<void>;
}

export async function measureNetwork(bench: NetworkBench): Promise<Measurement[]> {
  for (const [program, flag] of [
    ["iperf3", "--version"],
    ["wrk", "--version"],
  ] as const) {
    await run(program, [flag]).catch((error: unknown) => {
      // `wrk` says its version with a status of 1.
      if (error instanceof Error && "code" in error && error.code === "ENOENT") {
        throw new Error(`the benchmark needs ${program}: apt-get install ${program}`);
      }
    });
  }
  await importImage(bench);
  const measurements: Measurement[] = [];
  for (const subject of subjects()) measurements.push(...(await measureSubject(bench.runtime, subject)));
  measurements.push(...(await measureCreations(bench.runtime)));
  return measurements;
}

async function measureSubject(runtime: Runtime, subject: Subject): Promise<Measurement[]> {
  await subject.begin();
  try {
    await using sandbox = await runtime.sandboxes.create({
      image: "node",
      network: subject.config,
      container: { command: ["node", "-e", SERVER] },
    });
    const server = await sandbox.containers.create({ image: IMAGE, command: ["/usr/bin/iperf3", "-s"] });
    await server.start();
    const { host, ports } = await subject.place(sandbox);
    const [iperfPort = 0, httpPort = 0] = ports;
    await untilServed([...subject.from, "curl", "-sf", `http://${host}:${httpPort}/`]);
    const iperf = async (...flags: string[]): Promise<number> => {
      const server = ["iperf3", "-J", "-c", host, "-p", String(iperfPort)];
      // Between two of its clients it does not listen for a moment.
      await untilServed([...subject.from, ...server, "-n", "1K"]);
      await sleep(REST_MS);
      const words = [...server, "-t", String(SECONDS), "-O", "1", ...flags];
      const { end, error } = JSON.parse(await said([...subject.from, ...words]));
      if (error !== undefined) throw new Error(`iperf3 through ${subject.name}: ${error}`);
      return end.sum_received.bits_per_second / 8e6;
    };
    const requests = async (): Promise<number> => {
      const words = ["wrk", "-t1", "-c8", `-d${SECONDS}s`, `http://${host}:${httpPort}/`];
      return Number(/Requests\/sec:\s+([\d.]+)/.exec(await said([...subject.from, ...words]))?.[1]);
    };
    const kinds = [
      { name: "into the guest", unit: "MB/s", measure: () => iperf(), warmUps: 1 },
      { name: "out of the guest", unit: "MB/s", measure: () => iperf("-R"), warmUps: 1 },
      // A server in Node, in an emulated guest, gets faster for half a minute.
      { name: "requests of HTTP", unit: "1/s", measure: requests, warmUps: 14 },
    ] as const;
    const toggle = await subject.byHand(sandbox);
    const measurements: Measurement[] = [];
    for (const { name, unit, measure, warmUps } of kinds) {
      const [own, byHand]: [number[], number[]] = [[], []];
      for (let time = 0; time < warmUps; time += 1) await measure();
      for (let turn = 0; turn < TURNS; turn += 1) {
        // Which comes first changes: what gets faster or slower meanwhile is neither's.
        const isFirst = turn % 2 === 0;
        if (isFirst) own.push(await measure());
        await toggle.on();
        byHand.push(await measure());
        await toggle.off();
        if (!isFirst) own.push(await measure());
      }
      measurements.push({ name: `${subject.name}: ${name}`, unit, values: own });
      measurements.push({ name: `${subject.name}: ${name}, by hand`, unit, values: byHand });
    }
    return measurements;
  } finally {
    await subject.end();
  }
}

function subjects(): Subject[] {
  const ports = [{ containerPort: IPERF }, { containerPort: HTTP }];
  const published = async (sandbox: SandboxHandle) => {
    const { network } = await sandbox.info();
    const of = (wanted: number): number =>
      network?.ports.find(({ containerPort }) => containerPort === wanted)?.hostPort ?? 0;
    return { host: "127.0.0.1", ports: [of(IPERF), of(HTTP)] };
  };
  const nothing = async (): Promise<void> => {};
  const own = (mode: "user" | "bridge"): Subject => ({
    name: `network ${mode}`,
    config: { mode, ports },
    from: [],
    begin: nothing,
    end: nothing,
    place: published,
    byHand: async (sandbox) => {
      const { network } = await sandbox.info();
      const [address = ""] = network?.addresses ?? [];
      const inside = ["nsenter", `--net=${network?.namespace}`, "--"];
      const chosen = (await published(sandbox)).ports.map((port, index) => [port, [IPERF, HTTP][index] ?? 0] as const);
      const leading = chosen
        .map(([port, to]) => `iifname "up0" tcp dport ${port} dnat ip to ${address}:${to}`)
        .join("\n");
      const leave = mode === "user" ? 'oifname "up0" masquerade' : "";
      const toggles = [await replaced(inside, "inet belljar", natTable(leading, "", leave))];
      if (mode === "bridge") {
        const table = /table inet (bj_[0-9a-f]{8})/.exec(await said(["nft", "list", "tables"]))?.[1] ?? "";
        const bridge = table.replace("_", "-");
        const in_ = chosen.map(([port]) => `ip daddr 127.0.0.1 tcp dport ${port} dnat ip to ${address}`).join("\n");
        const out = `oifname "${bridge}" ip saddr 127.0.0.0/8 masquerade`;
        toggles.push(await replaced([], `inet ${table}`, natTable("", in_, out)));
      }
      return both(toggles);
    },
  });
  const name = `bench-${process.pid}`;
  const path = `/run/netns/${name}`;
  const given: Subject = {
    name: "network netns",
    config: { mode: "netns", path },
    from: ["nsenter", `--net=${path}-peer`, "--"],
    begin: async () => {
      for (const each of [name, `${name}-peer`]) await run("ip", ["netns", "add", each]);
      await run("ip", [
        "-n",
        name,
        "link",
        "add",
        "eth0",
        "type",
        "veth",
        "peer",
        "name",
        "peer0",
        "netns",
        `${name}-peer`,
      ]);
      for (const [space, link, address] of [
        [name, "eth0", "10.77.0.2/24"],
        [`${name}-peer`, "peer0", "10.77.0.1/24"],
      ] as const) {
        await run("ip", ["-n", space, "address", "add", address, "dev", link]);
        await run("ip", ["-n", space, "link", "set", link, "up"]);
      }
    },
    end: async () => {
      for (const each of [name, `${name}-peer`]) await run("ip", ["netns", "delete", each]);
    },
    place: async () => ({ host: "10.77.0.2", ports: [IPERF, HTTP] }),
    byHand: async ({ id }) => {
      const tap = `bj${id}0`;
      const inside = ["nsenter", `--net=${path}`, "--"];
      const toggle = await replaced(inside, `netdev belljar_${id}`, "");
      const redirect = async (from: string, to: string): Promise<void> => {
        await said([...inside, "tc", "qdisc", "add", "dev", from, "ingress"]);
        const filter = ["parent", "ffff:", "protocol", "all", "u32", "match", "u8", "0", "0"];
        const action = ["action", "mirred", "egress", "redirect", "dev", to];
        await said([...inside, "tc", "filter", "add", "dev", from, ...filter, ...action]);
      };
      return {
        on: async () => {
          await toggle.on();
          await redirect("eth0", tap);
          await redirect(tap, "eth0");
        },
        off: async () => {
          for (const link of ["eth0", tap]) await said([...inside, "tc", "qdisc", "delete", "dev", link, "ingress"]);
          await toggle.off();
        },
      };
    },
  };
  return [own("user"), own("bridge"), given];
}

/** From the call until the container runs; in turns, from a template. */
async function measureCreations(runtime: Runtime): Promise<Measurement[]> {
  const modes = ["none", "user", "bridge"] as const;
  const values: Record<(typeof modes)[number], number[]> = { none: [], user: [], bridge: [] };
  const create = async (mode: (typeof modes)[number]): Promise<number> => {
    let made: SandboxHandle | undefined;
    const config = { image: "busybox", network: { mode }, container: { command: ["sleep", "3600"] } };
    const tookMs = await time(async () => {
      made = await runtime.sandboxes.create(config);
    });
    await made?.delete({ force: true });
    return tookMs;
  };
  for (const mode of modes) await create(mode);
  for (let turn = 0; turn < CREATIONS; turn += 1) {
    for (const mode of modes) values[mode].push(await create(mode));
  }
  return modes.map((mode) => ({ name: `create with network ${mode}`, unit: "ms", values: values[mode] }));
}

/** The table by hand is in the place of this one while it is `on`. */
async function replaced(within: readonly string[], table: string, byHand: string): Promise<Toggle> {
  const saved = await said([...within, "nft", "list", "table", ...table.split(" ")]);
  const apply = (text: string): Promise<string> => said([...within, "sh", "-ec", `nft -f - <<'RULES'\n${text}\nRULES`]);
  return {
    on: async () => void (await apply(`delete table ${table}\n${byHand}`)),
    off: async () => void (await apply(`${byHand === "" ? "" : "delete table inet byhand\n"}${saved}`)),
  };
}

function natTable(arrive: string, output: string, leave: string): string {
  return `table inet byhand {
    chain arrive { type nat hook prerouting priority -100;\n${arrive}\n}
    chain within { type nat hook output priority -100;\n${output}\n}
    chain leave { type nat hook postrouting priority 100;\n${leave}\n}
  }`;
}

function both(toggles: readonly Toggle[]): Toggle {
  return {
    on: async () => {
      for (const { on } of toggles) await on();
    },
    off: async () => {
      for (const { off } of toggles) await off();
    },
  };
}

/** A root file system of the host's own iperf3 and what it is linked with. */
async function importImage({ cli, dir }: NetworkBench): Promise<void> {
  const root = join(dir, "iperf3-root");
  await mkdir(join(root, "usr/bin"), { recursive: true });
  await mkdir(join(root, "tmp"), { recursive: true, mode: 0o1777 });
  const program = (await said(["sh", "-c", "command -v iperf3"])).trim();
  const linked = [...(await said(["ldd", program])).matchAll(/(\/\S+) \(0x/g)].map(([, path = ""]) => path);
  await run("cp", ["-L", program, join(root, "usr/bin/iperf3")]);
  for (const path of linked) {
    await mkdir(join(root, path, ".."), { recursive: true });
    await run("cp", ["-L", path, join(root, path)]);
  }
  await cli("image", "import", root, IMAGE);
  await rm(root, { recursive: true });
}

async function untilServed(command: readonly string[]): Promise<void> {
  for (const endMs = performance.now() + 60_000; ; await sleep(200)) {
    try {
      await said(command);
      return;
    } catch (error) {
      if (performance.now() > endMs) throw error;
    }
  }
}

async function said(command: readonly string[]): Promise<string> {
  const [program = "", ...words] = command;
  return (await run(program, words, { maxBuffer: 16 * 1024 * 1024 })).stdout;
}
