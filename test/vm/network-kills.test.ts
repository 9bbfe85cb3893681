/**
 * A sample of the kills at every step of making and removing networks, in real namespaces without VMs; BELLJAR_SEED chooses another one,
 * BELLJAR_MODES other kinds than all, and BELLJAR_POINTS how many of each operation (`all`: several minutes for each kind).
 */
import assert from "node:assert/strict";
import { runTool } from "../../src/base/index.ts";
import { killedModes, NetworkKills } from "../fault/network-kills.ts";
import { tempDir, test } from "../support/harness.ts";
import { networkHost } from "../support/network-host.ts";
import { seededRandom } from "../support/random.ts";

const POINTS_EACH = 2;

test(
  "networks: whoever makes or removes one is killed at any step, and the next leaves nothing of it",
  async (t) => {
    const host = await networkHost(t);
    const theirs = `${host.name}-e`;
    await runTool("ip", ["netns", "add", theirs]);
    t.after(() => runTool("ip", ["netns", "delete", theirs]));
    await host.run("ip", "link", "add", "engine0", "type", "veth", "peer", "name", "eth0", "netns", theirs);
    await host.run("ip", "link", "set", "engine0", "up");
    const links = ["link set lo up", "link set eth0 up", "address add 10.77.0.2/24 dev eth0", ""].join("\n");
    await runTool("ip", ["-n", theirs, "-batch", "-"], { input: Buffer.from(links) });
    for (const within of [host.within, ["nsenter", `--net=/run/netns/${theirs}`, "--"]]) {
      const [program = "", ...words] = [...within, "nft", "add", "table", "inet", "others"];
      await runTool(program, words);
    }
    const seed = Number(process.env["BELLJAR_SEED"] ?? 1);
    const wanted = process.env["BELLJAR_POINTS"];
    const count = wanted === "all" ? undefined : Number(wanted ?? POINTS_EACH);
    const random = seededRandom(seed);
    const kills = new NetworkKills({ within: host.within, rootDir: await tempDir(t), theirs });
    t.after(() => kills.abandon());
    await kills.begin();
    const modes = process.env["BELLJAR_MODES"]?.split(",") ?? killedModes;
    for (const mode of killedModes.filter((each) => modes.includes(each))) {
      await kills.kill(mode, random, count);
      const own = kills.kills.filter((each) => each.mode === mode);
      t.diagnostic(
        `${mode}: ${own.filter(({ hit }) => hit).length} kills, ${own.filter(({ hit }) => !hit).length} not reached`,
      );
    }
    await kills.end();
    const failed = kills.kills.filter(({ problems }) => problems.length > 0);
    assert.deepEqual(failed, [], `seed ${seed}`);
    assert.ok(kills.kills.some(({ hit }) => hit));
  },
  { timeoutMs: 1_800_000 },
);
