/** Sandboxes over the API: each call is one of the runtime. */
import type { ServiceImpl } from "@connectrpc/connect";
import type { api } from "../../protocol/index.ts";
import type { Sandboxes } from "../../runtime/index.ts";
import type { Calls } from "../calls.ts";
import { fromSandboxSpec } from "../wire/config.ts";
import { fromDeviceSpec, toDeviceInfo } from "../wire/devices.ts";
import { toEvent, toRuntimeEvent, toSandboxInfo } from "../wire/info.ts";
import { fromRouteSpec, toInterfaceInfo, toRouteSpec } from "../wire/network.ts";
import { toSandboxStats } from "../wire/stats.ts";

export function sandboxService(sandboxes: Sandboxes, calls: Calls): ServiceImpl<typeof api.SandboxService> {
  return {
    createSandbox: async ({ spec, createOnly }, { signal }) => {
      const sandbox = await sandboxes.create(fromSandboxSpec(spec), { signal, start: !createOnly });
      return { sandbox: toSandboxInfo(await sandbox.info()) };
    },
    getSandbox: async ({ sandbox }) => {
      const found = await sandboxes.get(sandbox);
      return { sandbox: toSandboxInfo(await found.info()) };
    },
    listSandboxes: async () => ({ sandboxes: (await sandboxes.list()).map(toSandboxInfo) }),
    startSandbox: async ({ sandbox }, { signal }) => {
      await (await sandboxes.get(sandbox)).start({ signal });
      return {};
    },
    stopSandbox: async ({ sandbox, timeoutMs, force }, { signal }) => {
      await (await sandboxes.get(sandbox)).stop({ signal, timeoutMs, force });
      return {};
    },
    pauseSandbox: async ({ sandbox }) => {
      await (await sandboxes.get(sandbox)).pause();
      return {};
    },
    resumeSandbox: async ({ sandbox }) => {
      await (await sandboxes.get(sandbox)).resume();
      return {};
    },
    hibernateSandbox: async ({ sandbox }, { signal }) => {
      await (await sandboxes.get(sandbox)).hibernate({ signal });
      return {};
    },
    wakeSandbox: async ({ sandbox }, { signal }) => {
      await (await sandboxes.get(sandbox)).wake({ signal });
      return {};
    },
    deleteSandbox: async ({ sandbox, force }, { signal }) => {
      await (await sandboxes.get(sandbox)).delete({ signal, force });
      return {};
    },
    setAnnotations: async ({ sandbox, annotations }) => {
      await (await sandboxes.get(sandbox)).setAnnotations(annotations);
      return {};
    },
    addDevice: async ({ sandbox, device }, { signal }) => {
      const { devices } = await sandboxes.get(sandbox);
      return { device: toDeviceInfo(await devices.add(fromDeviceSpec(device), { signal })) };
    },
    removeDevice: async ({ sandbox, device }, { signal }) => {
      await (await sandboxes.get(sandbox)).devices.remove(device, { signal });
      return {};
    },
    getNetwork: async ({ sandbox }, { signal }) => {
      const { network } = await sandboxes.get(sandbox);
      const [interfaces, routes] = [await network.interfaces({ signal }), await network.routes({ signal })];
      return { interfaces: interfaces.map(toInterfaceInfo), routes: routes.map(toRouteSpec) };
    },
    addInterface: async ({ sandbox, source }, { signal }) => {
      await (await sandboxes.get(sandbox)).network.addInterface(source, { signal });
      return {};
    },
    removeInterface: async ({ sandbox, name }, { signal }) => {
      await (await sandboxes.get(sandbox)).network.removeInterface(name, { signal });
      return {};
    },
    setRoutes: async ({ sandbox, routes }, { signal }) => {
      await (await sandboxes.get(sandbox)).network.setRoutes(routes.map(fromRouteSpec), { signal });
      return {};
    },
    refreshNetwork: async ({ sandbox }, { signal }) => ({
      changed: await (await sandboxes.get(sandbox)).network.refresh({ signal }),
    }),
    updateSandbox: async ({ sandbox, memoryMib, cpus, sharedMemoryBytes }, { signal }) => {
      await (await sandboxes.get(sandbox)).update({ memoryMib, cpus, sharedMemoryBytes }, { signal });
      return {};
    },
    getSandboxStats: async ({ sandbox }) => {
      const found = await sandboxes.get(sandbox);
      return { stats: toSandboxStats(await found.stats()) };
    },
    watchSandbox: async function* ({ sandbox }, context) {
      const found = await sandboxes.get(sandbox);
      for await (const event of found.watch({ signal: calls.waiting(context) })) yield toEvent(event);
    },
    watchEvents: async function* ({ after, noFollow }, context) {
      let begin = after ?? 0;
      const onBegin = (number: number): void => {
        begin = number;
      };
      const events = sandboxes.events({ after, follow: !noFollow, onBegin, signal: calls.waiting(context) });
      yield { number: begin };
      for await (const event of events) yield toRuntimeEvent(event);
    },
    renameSandbox: async ({ sandbox, name }) => {
      await (await sandboxes.get(sandbox)).rename(name);
      return {};
    },
  };
}
