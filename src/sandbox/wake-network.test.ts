import assert from "node:assert/strict";
import { test } from "node:test";
import type { EndpointState, NetworkState } from "../network/index.ts";
import {
  addressRequest,
  linkRequest,
  neighbourRequest,
  type PlannedInterface,
  routeRequest,
} from "../protocol/index.ts";
import { networkSteps } from "./wake-network.ts";

const [OLD, NEW, GATEWAY_MAC] = ["02:00:00:00:00:01", "02:11:22:33:44:55", "02:62:6a:00:00:01"];
const gateway = "169.254.1.1";
const index = 2;
const NEIGHBOUR = neighbourRequest("set", { index, address: gateway, macAddress: GATEWAY_MAC });
const DEFAULT = routeRequest("set", { index, destination: "default", gateway });

function own(mode: "bridge" | "user", macAddress: string, address: string): NetworkState {
  return { mode, namespace: "belljar-00000000-0123456789ab", macAddress, address, mtu: 1500, ports: [] };
}

function given(endpoints: readonly EndpointState[], change: Partial<NetworkState> = {}): NetworkState {
  const place = { path: "/run/netns/x", model: "tcfilter", sandboxId: "0123456789ab", namespaceId: "4:1" } as const;
  const none = { routes: [], neighbours: [], nameServers: [], ports: [] } as const;
  return { mode: "netns", ...place, ...none, endpoints, ...change } as NetworkState;
}

const endpoint = (at: number, change: Partial<EndpointState> = {}): EndpointState => ({
  index: at,
  source: `eth${at}`,
  kind: "veth",
  name: `eth${at}`,
  macAddress: `02:00:00:00:00:0${at}`,
  mtu: 1500,
  addresses: [`10.${at}.0.2/24`],
  ...change,
});

const present = (change: Partial<PlannedInterface> = {}): PlannedInterface => ({
  index,
  name: "eth0",
  macAddress: OLD,
  mtu: 1500,
  addresses: ["10.88.0.2/32", "fe80::ff:fe00:1/64"],
  ...change,
});

/** What is removed, and what is set; undefined when the agent has to. */
function asked(...[interfaces, source, copy]: Parameters<typeof networkSteps>): readonly string[][] | undefined {
  return networkSteps(interfaces, source, copy)?.map((step) =>
    step.kind === "network"
      ? step.requests.map((each) => Buffer.from(each).toString("hex"))
      : Object.values(step).map(String),
  );
}

const hex = (...requests: readonly Buffer[]): readonly string[] => requests.map((each) => each.toString("hex"));
const added = (...addresses: readonly string[]): Buffer[] =>
  addresses.map((address) => addressRequest("set", { index, address }));
const removed = (...addresses: readonly string[]): Buffer[] =>
  addresses.map((address) => addressRequest("remove", { index, address }));

test("a copy on a bridge: the old addresses go, and the new ones come with the ways that lead from them", () => {
  const [source, copy] = [own("bridge", OLD, "10.88.0.2"), own("bridge", NEW, "10.88.0.3")];
  assert.deepEqual(asked([present()], source, copy), [
    hex(...removed("10.88.0.2/32", "fe80::ff:fe00:1/64")),
    hex(
      linkRequest({ index, macAddress: NEW }),
      ...added("10.88.0.3/32", "fe80::11:22ff:fe33:4455/64"),
      routeRequest("set", { index, destination: `${gateway}/32` }),
      DEFAULT,
      NEIGHBOUR,
    ),
    ["disconnect", "10.88.0.2", "false"],
  ]);
  // What is not of the kernel's making of the hardware address stays on the link.
  const [gone] = asked([present({ addresses: ["10.88.0.2/32", "fe80::7/64"] })], source, copy) ?? [];
  assert.deepEqual(gone, hex(...removed("10.88.0.2/32")));
  // Nor are other interfaces of the guest any of the host's affair.
  const others = [present({ index: 3, name: "net1" }), present({ index: 4, macAddress: NEW }), present()];
  assert.deepEqual(asked(others, source, copy), asked([present()], source, copy));
});

test("a copy whose address is as before gets another hardware address, and its neighbours, which went with the old one", () => {
  const [source, copy] = [own("user", OLD, "10.0.2.15"), own("user", NEW, "10.0.2.15")];
  const steps = asked([present({ addresses: ["10.0.2.15/32"] })], source, copy);
  assert.deepEqual(steps, [
    hex(linkRequest({ index, macAddress: NEW }), NEIGHBOUR),
    ["disconnect", "10.0.2.15", "true"],
  ]);
});

test("the same network needs no steps, and none at all neither", () => {
  const network = own("bridge", OLD, "10.88.0.2");
  assert.deepEqual(asked(undefined, network, { ...network, ports: [] }), []);
  assert.deepEqual(asked(undefined, undefined, undefined), []);
});

test("another namespace: each device in its order, an address that stays with its routes, and what is stale removed", () => {
  const ways = (...routes: readonly (readonly [string, string?])[]) => ({
    routes: routes.map(([destination, via]) => ({ interfaceName: "eth0", destination, gateway: via })),
  });
  const source = given([endpoint(1), endpoint(0)], {
    ...ways(["10.7.0.0/16", "10.0.0.1"], ["10.8.0.0/16", "10.0.0.1"]),
    neighbours: [{ interfaceName: "eth0", address: "10.0.0.1", macAddress: OLD }],
  });
  const copy = given([endpoint(0, { mtu: 1400 }), endpoint(1, { addresses: ["10.1.0.9/24", "2001:db8::9/64"] })], {
    ...ways(["10.7.0.0/16", "10.0.0.1"], ["10.9.0.0/16", "10.0.0.1"]),
  });
  const [zero, one] = [endpoint(0), endpoint(1)].map(({ name, macAddress, addresses }, at) =>
    present({ index: at + 5, name, macAddress, addresses }),
  );
  assert.ok(zero !== undefined && one !== undefined);
  assert.deepEqual(asked([one, zero], source, copy), [
    hex(
      routeRequest("remove", { index: 5, destination: "10.8.0.0/16", gateway: "10.0.0.1" }),
      neighbourRequest("remove", { index: 5, address: "10.0.0.1", macAddress: OLD }),
      addressRequest("remove", { index: 6, address: "10.1.0.2/24" }),
    ),
    hex(
      linkRequest({ index: 5, mtu: 1400 }),
      routeRequest("set", { index: 5, destination: "10.9.0.0/16", gateway: "10.0.0.1" }),
      addressRequest("set", { index: 6, address: "10.1.0.9/24" }),
      addressRequest("set", { index: 6, address: "2001:db8::9/64" }),
    ),
    ["disconnect", "10.1.0.2", "false"],
    ["disconnect", "10.0.0.2", "true"],
  ]);
});

test("what is not plain is the agent's", () => {
  const [source, copy] = [own("bridge", OLD, "10.88.0.2"), own("bridge", NEW, "10.88.0.3")];
  const cases: Readonly<Record<string, Parameters<typeof networkSteps>>> = {
    "an older guest": [undefined, source, copy],
    "no network before": [[present()], undefined, copy],
    "an interface that is not up": [[], source, copy],
    "another hardware address than it was told": [[present({ macAddress: NEW })], source, copy],
    "another name": [[present({ name: "net0" })], source, copy],
    "two of the name": [[present(), present({ index: 3 })], source, copy],
    "another name in the copy": [[present()], source, given([endpoint(0, { name: "net0" })])],
    "more interfaces than before": [[present()], source, given([endpoint(0), endpoint(1)])],
    "one that is just being plugged": [[present()], source, given([endpoint(0), endpoint(1, { pending: true })])],
    "a route of another interface": [
      [present()],
      { ...source, routes: [{ interfaceName: "eth1", destination: "default", gateway }] } as NetworkState,
      copy,
    ],
  };
  for (const [what, words] of Object.entries(cases)) assert.equal(asked(...words), undefined, what);
});
