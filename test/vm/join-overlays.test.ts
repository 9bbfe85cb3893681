/** A trail of checkpoints of a real VM that never ends: its disks do not become deeper and deeper, and nothing on them is lost. */
import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { checkpointLimits } from "../../src/base/index.ts";
import { openEmbedded } from "../support/embedded.ts";
import { test } from "../support/harness.ts";

const KEPT = 2;

test(
  "a trail of checkpoints: files of the disk are joined while it is written to; every state that is kept comes back",
  async (t) => {
    const runtime = await openEmbedded(t);
    const source = await runtime.sandboxes.create({ image: "busybox", container: { command: ["sleep", "100000"] } });
    const files = async (): Promise<string[]> =>
      (await readdir(join(runtime.paths.root, "sandboxes", source.id, "disks"))).filter((name) =>
        name.endsWith(".qcow2"),
      );
    // Some of it is written again and again, some once, some is removed.
    const write = (number: number): string =>
      `echo ${number} > /last; head -c 150000 /dev/urandom > /f${number % 7}; echo ${number} >> /all; rm -f /f${(number + 3) % 7}; ` +
      "sync; cat /all /last /f? | md5sum";
    const kept: { readonly id: string; readonly sum: string }[] = [];
    let most = 0;
    for (let number = 1; number <= checkpointLimits.overlaysJoined + 4; number += 1) {
      const { stdout: sum } = await source.exec(["sh", "-c", write(number)]);
      kept.push({ id: (await source.checkpoint()).id, sum });
      if (kept.length > KEPT) await runtime.checkpoints.remove(kept.shift()?.id ?? "");
      most = Math.max(most, (await files()).length);
    }
    for (let tries = 0; (await files()).length > 10 && tries < 100; tries += 1) await sleep(100);
    assert.ok(most > checkpointLimits.overlaysJoined && (await files()).length <= 10, `${most}, ${await files()}`);
    const sums = "cat /all /last /f? | md5sum";
    const drop = "echo 3 > /proc/sys/vm/drop_caches 2>/dev/null;";
    for (const { id, sum } of kept) {
      await using copy = await runtime.checkpoints.restore(id);
      assert.equal((await copy.exec(["sh", "-c", sums])).stdout, sum);
      // From its disk, and not from its memory.
      await copy.stop();
      await copy.start();
      assert.equal((await copy.exec(["sh", "-c", sums])).stdout, sum);
    }
    const last = kept.at(-1)?.sum;
    assert.equal((await source.exec(["sh", "-c", `${drop} ${sums}`])).stdout, last);
    await source.stop();
    await source.start();
    assert.equal((await source.exec(["sh", "-c", sums])).stdout, last);
  },
  { timeoutMs: 600_000 },
);
