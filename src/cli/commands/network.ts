/** `belljar network`: interfaces and routes of a running sandbox. */
import type { Command } from "commander";
import { BelljarError } from "../../base/index.ts";
import type { RouteInfo, SandboxHandle } from "../../sdk/index.ts";
import { type CommonOptions, type Context, type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { SignalRelay } from "../signals.ts";
import { splitTarget } from "../target.ts";

export function addNetworkCommand(program: Command, holder: ContextHolder): void {
  const network = program.command("network").summary("interfaces and routes of running sandboxes");
  const own = network.command("interface").summary("add, remove and list interfaces");
  addAdd(own, holder);
  addRemove(own, holder);
  addList(own, holder);
  const route = network.command("route").summary("list and set routes");
  addRoutes(route, holder);
  addSetRoutes(route, holder);
  addRefresh(network, holder);
}

function addAdd(network: Command, holder: ContextHolder): void {
  withCommonOptions(
    network
      .command("add")
      .summary("give a sandbox an interface that its namespace has")
      .argument("<sandbox>", "started with --network netns:PATH")
      .argument("<interface...>", "name in the namespace"),
  ).action(async (sandboxName: string, names: string[], options: CommonOptions) => {
    await within(sandboxName, options, holder, async (sandbox, { output }, signal) => {
      for (const name of names) {
        await sandbox.network.addInterface(name, { signal });
        if (output.json) output.object({ added: name });
        else output.line(name);
      }
    });
  });
}

function addRemove(network: Command, holder: ContextHolder): void {
  withCommonOptions(
    network
      .command("rm")
      .summary("take interfaces from a sandbox; its namespace keeps them")
      .argument("<sandbox>")
      .argument("<interface...>", "name in the guest, or in the namespace"),
  ).action(async (sandboxName: string, names: string[], options: CommonOptions) => {
    await within(sandboxName, options, holder, async (sandbox, { output }, signal) => {
      for (const name of names) {
        await sandbox.network.removeInterface(name, { signal });
        if (output.json) output.object({ removed: name });
        else output.line(name);
      }
    });
  });
}

function addList(network: Command, holder: ContextHolder): void {
  withCommonOptions(
    network.command("ls").summary("list interfaces, as the guest has them").argument("<sandbox>"),
  ).action(async (sandboxName: string, options: CommonOptions) => {
    await within(sandboxName, options, holder, async (sandbox, { output }, signal) => {
      const interfaces = await sandbox.network.interfaces({ signal });
      output.table(
        ["NAME", "SOURCE", "STATE", "MAC", "MTU", "ADDRESSES"],
        interfaces.map(({ name, source = "", up, macAddress, mtu, addresses }) => [
          name,
          source,
          up ? "up" : "down",
          macAddress,
          String(mtu),
          addresses.join(" "),
        ]),
        interfaces,
      );
    });
  });
}

function addRoutes(network: Command, holder: ContextHolder): void {
  withCommonOptions(network.command("ls").summary("list routes, as the guest has them").argument("<sandbox>")).action(
    async (sandboxName: string, options: CommonOptions) => {
      await within(sandboxName, options, holder, async (sandbox, { output }, signal) => {
        const routes = await sandbox.network.routes({ signal });
        output.table(
          ["DESTINATION", "GATEWAY", "INTERFACE"],
          routes.map(({ destination, gateway = "", interfaceName }) => [destination, gateway, interfaceName]),
          routes,
        );
      });
    },
  );
}

function addSetRoutes(network: Command, holder: ContextHolder): void {
  withCommonOptions(
    network
      .command("set")
      .summary("set routes, in place of those that there are")
      .argument("<sandbox>")
      .argument("<route...>", "DESTINATION[@GATEWAY]%INTERFACE, such as default@10.0.0.1%eth0 or 10.1.0.0/16%eth1"),
  ).action(async (sandboxName: string, routes: string[], options: CommonOptions) => {
    const parsed = routes.map(parseRoute);
    await within(sandboxName, options, holder, async (sandbox, { output }, signal) => {
      await sandbox.network.setRoutes(parsed, { signal });
      if (output.json) for (const route of parsed) output.object(route);
    });
  });
}

function addRefresh(network: Command, holder: ContextHolder): void {
  withCommonOptions(
    network.command("refresh").summary("look now what has changed in a sandbox's namespace").argument("<sandbox>"),
  ).action(async (sandboxName: string, options: CommonOptions) => {
    await within(sandboxName, options, holder, async (sandbox, { output }, signal) => {
      const changed = await sandbox.network.refresh({ signal });
      if (output.json) output.object({ changed });
      else output.line(changed ? "changed" : "as before");
    });
  });
}

export function parseRoute(text: string): RouteInfo {
  const [, destination, gateway, interfaceName] = /^([^@%]+)(?:@([^@%]+))?%([^@%]+)$/.exec(text) ?? [];
  if (destination === undefined || interfaceName === undefined) {
    throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(text.slice(0, 80))} is no route`, {
      remedy: "Write DESTINATION[@GATEWAY]%INTERFACE, such as default@10.0.0.1%eth0.",
    });
  }
  return { destination, interfaceName, ...(gateway === undefined ? {} : { gateway }) };
}

async function within(
  sandboxName: string,
  options: CommonOptions,
  holder: ContextHolder,
  work: (sandbox: SandboxHandle, context: Context, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const context = createContext(options, holder);
  using relay = new SignalRelay();
  await using runtime = await context.connect(relay.signal);
  await work(await runtime.sandboxes.get(splitTarget(sandboxName).sandboxName), context, relay.signal);
}
