/**
 * Random sequences of operations against a model that is a page long. After each step the runtime must say what the model says:
 * the same answer or the same kind of refusal, and the same states of everything. From time to time the owner changes, VMs die and
 * processes end by themselves.
 */
import assert from "node:assert/strict";
import { test } from "../../test/support/harness.ts";
import { MemoryRuntime } from "../../test/support/memory-runtime.ts";
import { type Random, seededRandom } from "../../test/support/random.ts";
import { until } from "../../test/support/until.ts";
import { BelljarError, type LifecycleState } from "../base/index.ts";
import type { SandboxHandle } from "./interface.ts";

const STEPS = Number(process.env["BELLJAR_WALK_STEPS"] ?? 10_000);
const SANDBOXES_MAX = 3;
const CONTAINERS_MAX = 3;

interface ContainerModel {
  state: LifecycleState;
  frozen: boolean;
}

interface SandboxModel {
  state: LifecycleState;
  readonly containers: Map<string, ContainerModel>;
}

type Refusal = "INVALID_TRANSITION" | undefined;

class Walk {
  readonly #world: MemoryRuntime;
  readonly #random: Random;
  readonly #model = new Map<string, SandboxModel>();
  readonly counts = new Map<string, number>();

  constructor(world: MemoryRuntime, random: Random) {
    this.#world = world;
    this.#random = random;
  }

  async step(): Promise<string> {
    const ids = [...this.#model.keys()];
    const [first, ...rest] = ids;
    if (first === undefined || (ids.length < SANDBOXES_MAX && this.#random.below(20) === 0))
      return await this.#create();
    if (this.#random.below(300) === 0) return await this.#reopen();
    const id = this.#random.pick([first, ...rest]);
    const sandbox = await this.#world.core.sandboxes.get(this.#random.below(2) === 0 ? id : id.slice(0, 9));
    const model = this.#sandboxModel(id);
    const [container, ...others] = model.containers.keys();
    if (container === undefined || this.#random.below(3) === 0) return await this.#sandboxStep(sandbox, model);
    return await this.#containerStep(sandbox, model, this.#random.pick([container, ...others]));
  }

  /** Everything is as the model has it. */
  async check(): Promise<void> {
    const infos = await this.#world.core.sandboxes.list();
    const found = infos.map((info) => [info.id, info.state, info.containers.map(({ id, state }) => [id, state])]);
    const wanted = [...this.#model].map(([id, { state, containers }]) => [
      id,
      state,
      [...containers].map(([containerId, container]) => [containerId, container.state]),
    ]);
    assert.deepEqual(sorted(found), sorted(wanted));
  }

  async #create(): Promise<string> {
    const start = this.#random.below(2) === 0;
    const sandbox = await this.#world.core.sandboxes.create({ image: "busybox" }, { start });
    const state = start ? "running" : "ready";
    this.#model.set(sandbox.id, { state, containers: new Map([[sandbox.main.id, { state, frozen: false }]]) });
    return this.#count(`create ${state}`);
  }

  async #reopen(): Promise<string> {
    await this.#world.reopen();
    return this.#count("another owner");
  }

  async #sandboxStep(sandbox: SandboxHandle, model: SandboxModel): Promise<string> {
    const { state } = model;
    const running = state === "running";
    switch (this.#random.below(9)) {
      case 0:
        return await this.#expect(
          "start",
          running || state === "paused",
          () => sandbox.start(),
          () => {
            model.state = "running";
            for (const each of model.containers.values()) Object.assign(each, { state: "running", frozen: false });
          },
        );
      case 1: {
        const force = this.#random.below(2) === 0;
        return await this.#expect(
          "stop",
          false,
          () => sandbox.stop({ force, timeoutMs: 2 }),
          () => stopAll(model),
        );
      }
      case 2:
        return await this.#expect(
          "pause",
          !running,
          () => sandbox.pause(),
          () => {
            model.state = "paused";
            for (const each of model.containers.values()) if (each.state === "running") each.state = "paused";
          },
        );
      case 3:
      case 4:
        return await this.#expect(
          "resume",
          state !== "paused",
          () => sandbox.resume(),
          () => {
            model.state = "running";
            for (const each of model.containers.values()) {
              if (each.state === "paused" && !each.frozen) each.state = "running";
            }
          },
        );
      case 5: {
        const force = this.#random.below(3) === 0;
        if (this.#random.below(3) !== 0) return this.#count("nothing");
        return await this.#expect(
          "delete",
          running && !force,
          () => sandbox.delete({ force }),
          () => {
            this.#model.delete(sandbox.id);
          },
        );
      }
      case 6: {
        if (model.containers.size >= CONTAINERS_MAX) return this.#count("nothing");
        const isRefused = state !== "ready" && !running;
        let id = "";
        const create = async (): Promise<void> => {
          id = (
            await sandbox.containers.create({ image: "busybox", command: [this.#random.pick(["run", "stubborn"])] })
          ).id;
        };
        return await this.#expect("create container", isRefused, create, () => {
          model.containers.set(id, { state: "ready", frozen: false });
        });
      }
      case 7:
        return await this.#expect(
          "annotate",
          false,
          () => sandbox.setAnnotations({ step: "one" }),
          () => {},
        );
      default: {
        if (state === "stopped" || this.#random.below(4) !== 0) return this.#count("nothing");
        this.#world.guests.guest(sandbox.id).vm.end({ cause: "died", detail: "killed by the test" });
        await until(async () => (await sandbox.info()).state === "stopped");
        stopAll(model);
        return this.#count("the VM died");
      }
    }
  }

  async #containerStep(sandbox: SandboxHandle, model: SandboxModel, id: string): Promise<string> {
    const container = await sandbox.containers.get(id);
    const own = model.containers.get(id);
    assert.ok(own);
    const running = model.state === "running";
    const { state } = own;
    switch (this.#random.below(10)) {
      case 0:
        return await this.#expect(
          "start container",
          !running || (state !== "ready" && state !== "stopped"),
          () => container.start(),
          () => {
            Object.assign(own, { state: "running", frozen: false });
          },
        );
      case 1: {
        const isRefused = state !== "stopped" && model.state === "paused";
        const force = this.#random.below(2) === 0;
        return await this.#expect(
          "stop container",
          isRefused,
          () => container.stop({ timeoutMs: 2, force }),
          () => {
            Object.assign(own, { state: "stopped", frozen: false });
          },
        );
      }
      case 2:
        return await this.#expect(
          "pause container",
          !running || state !== "running",
          () => container.pause(),
          () => {
            Object.assign(own, { state: "paused", frozen: true });
          },
        );
      case 3:
        return await this.#expect(
          "resume container",
          !running || state !== "paused",
          () => container.resume(),
          () => {
            Object.assign(own, { state: "running", frozen: false });
          },
        );
      case 4: {
        const isRefused = model.state === "paused" || (state !== "ready" && state !== "stopped");
        if (this.#random.below(3) !== 0) return this.#count("nothing");
        return await this.#expect(
          "delete container",
          isRefused,
          () => container.delete(),
          () => {
            model.containers.delete(id);
          },
        );
      }
      case 5: {
        const isRefused = state !== "stopped" && model.state !== "ready" && !running;
        return await this.#expect(
          "kill",
          isRefused,
          () => container.kill({ number: 9, all: true }),
          async () => {
            if (state !== "running" && state !== "paused") return;
            await until(async () => (await container.info()).state === "stopped");
            Object.assign(own, { state: "stopped", frozen: false });
          },
        );
      }
      case 6: {
        // A container that is ready may be asked by the rules; its agent refuses, since nothing runs in it.
        const exec = async (): Promise<void> => {
          assert.equal((await container.exec(["echo", "hello"])).stdout, "hello\n");
        };
        return await this.#expect("exec", !running || state !== "running", exec, () => {});
      }
      case 7:
        return await this.#expect(
          "update",
          !running || (state !== "running" && state !== "ready"),
          () => container.update({ pids: 7 }),
          () => {},
        );
      case 8: {
        const process = this.#world.guests.guest(sandbox.id).containers.get(id)?.init;
        if (!running || state !== "running" || process === undefined) return this.#count("nothing");
        process.exit(3);
        assert.equal((await container.wait()).exitCode, 3);
        own.state = "stopped";
        return this.#count("a process ended");
      }
      default:
        return await this.#expect(
          "stats",
          !running || state === "stopped",
          () => container.stats(),
          () => {},
        );
    }
  }

  async #expect(what: string, isRefused: boolean, act: () => Promise<unknown>, then: () => unknown): Promise<string> {
    const expected: Refusal = isRefused ? "INVALID_TRANSITION" : undefined;
    const refusal = await act().then(
      () => undefined,
      (thrown: unknown) => BelljarError.from(thrown),
    );
    if (refusal?.reason !== expected) throw new Error(`${what}: expected ${expected ?? "success"}`, { cause: refusal });
    if (!isRefused) await then();
    return this.#count(isRefused ? `${what} refused` : what);
  }

  #sandboxModel(id: string): SandboxModel {
    const model = this.#model.get(id);
    assert.ok(model);
    return model;
  }

  #count(what: string): string {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
    return what;
  }
}

function stopAll(model: SandboxModel): void {
  model.state = "stopped";
  for (const each of model.containers.values()) Object.assign(each, { state: "stopped", frozen: false });
}

function sorted(rows: readonly unknown[]): string[] {
  return rows.map((row) => JSON.stringify(row)).sort();
}

test("runtime: random sequences of operations follow the model", async (t) => {
  const seed = Number(process.env["BELLJAR_WALK_SEED"] ?? Math.trunc(Math.random() * 2 ** 32));
  t.diagnostic(`seed ${seed} (BELLJAR_WALK_SEED), ${STEPS} steps`);
  const walk = new Walk(await MemoryRuntime.open(t), seededRandom(seed));
  const trace: string[] = [];
  for (let step = 0; step < STEPS; step += 1) {
    try {
      trace.push(await walk.step());
      await walk.check();
    } catch (error) {
      throw new Error(`seed ${seed}, step ${step}, after ${trace.slice(-8).join(", ")}`, { cause: error });
    }
  }
  t.diagnostic([...walk.counts].map(([what, count]) => `${what} ${count}`).join(", "));
});
