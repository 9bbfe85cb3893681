import assert from "node:assert/strict";
import { test } from "../../test/support/harness.ts";
import { AheadNetworks } from "./ahead.ts";
import type { NetworkSettings } from "./config.ts";
import type { OwnNetworkState } from "./state.ts";

const SETTINGS: NetworkSettings = { mode: "bridge", ports: [], policy: { allow: [], deny: [], default: "open" } };
const PLACE = { macAddress: "02:00:00:00:00:01", address: "10.88.0.2", mtu: 1500, ports: [] } as const;

interface World {
  readonly ahead: AheadNetworks;
  /** What was done, with its namespace. */
  readonly done: string[];
  /** The next step of this name fails. */
  failing: string | undefined;
}

function open(): World {
  const done: string[] = [];
  const enter = (step: string, namespace: string): void => {
    done.push(`${step} ${namespace}`);
    if (world.failing === step) throw new Error(step);
  };
  const ahead = new AheadNetworks({
    plan: async (namespace): Promise<OwnNetworkState> => {
      enter("plan", namespace);
      return { mode: "bridge", namespace, ...PLACE };
    },
    make: async ({ namespace }) => enter("make", namespace),
    remove: async ({ namespace }) => enter("remove", namespace),
  });
  const world: World = { ahead, done, failing: undefined };
  return world;
}

test("what was begun is found done, once, by whoever asks with the same settings", async () => {
  const { ahead, done } = open();
  ahead.begin("one", SETTINGS);
  assert.equal(await ahead.planned("two", SETTINGS), undefined);
  // As it comes back from a state: an option that is not there may be there as undefined.
  const state = await ahead.planned("one", { ...SETTINGS, rates: undefined });
  assert.equal(state?.namespace, "one");
  if (state === undefined) return;
  assert.deepEqual(ahead.namespaces, ["one"]);
  assert.equal(await ahead.made(state), true);
  assert.equal(await ahead.made(state), false);
  await ahead.giveUp("one");
  assert.deepEqual([done, ahead.namespaces], [["plan one", "make one"], []]);
});

test("what was begun with other settings, or for nobody, is removed", async () => {
  const { ahead, done } = open();
  ahead.begin("one", SETTINGS);
  ahead.begin("two", SETTINGS);
  assert.equal(await ahead.planned("one", { ...SETTINGS, mode: "user" }), undefined);
  await ahead.giveUp("two");
  await ahead.giveUp("three");
  assert.deepEqual(done.slice(-2), ["remove one", "remove two"]);
  assert.deepEqual(ahead.namespaces, []);
});

test("what goes wrong is told to whoever asks, and leaves nothing to be found", async () => {
  for (const failing of ["plan", "make"]) {
    const world = open();
    const { ahead, done } = world;
    world.failing = failing;
    ahead.begin("one", SETTINGS);
    if (failing === "plan") await assert.rejects(ahead.planned("one", SETTINGS), { message: failing });
    else {
      const state = await ahead.planned("one", SETTINGS);
      if (state !== undefined) await assert.rejects(ahead.made(state), { message: failing });
    }
    assert.deepEqual(ahead.namespaces, []);
    // Whoever removes it as its own waits for what is under way, and hears nothing of its failure.
    ahead.begin("two", SETTINGS);
    await ahead.forget("two");
    ahead.begin("three", SETTINGS);
    await ahead.giveUp("three");
    assert.deepEqual(
      done.filter((each) => each.startsWith("remove")),
      failing === "plan" ? [] : ["remove three"],
    );
  }
});
