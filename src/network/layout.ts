/**
 * What is in the namespace of a sandbox, and how the guest sees it. The link between the two has two ends and nobody else on it: the
 * guest has one address, and a gateway that has the same address and the same hardware address in every sandbox. So a copy of a guest
 * finds its neighbour where it left it, whatever its own address has become, and there is no third party to forge.
 */

/** The VMM's end of the link. */
export const TAP = "tap0";
/** The way out. */
export const UPLINK = "up0";

/** Of the namespace, on the link to the guest. Link-local: no network outside is hidden by it. */
export const GATEWAY = "169.254.1.1";
export const GATEWAY_MAC = "02:62:6a:00:00:01";

/** Of the guest in a user-mode network: nobody outside of the namespace sees it, so all have the same. */
export const USER_ADDRESS = "10.0.2.15";
/** Of the way out of a user-mode network, as slirp4netns divides it: its own end is the second address. */
export const USER_UPLINK = { range: "169.254.77.0/24", address: "169.254.77.100" } as const;

/** What Ethernet carries; a larger one would only be cut outside. */
export const MTU = 1500;

/** Name of the guest's interface in the VMM. */
export const NIC = "nic0";

/** How a namespace is called that `ip netns` has made. */
export function namespacePath(name: string): string {
  return `/run/netns/${name}`;
}

/** Of those that anybody may give: the second lowest bit of the first byte is set. @param bytes five of them */
export function randomMac(bytes: Uint8Array): string {
  return [0x02, ...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join(":");
}
