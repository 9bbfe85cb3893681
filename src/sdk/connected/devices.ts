/** Devices of a sandbox behind the daemon. */
import { fromDeviceInfo, toDeviceSpec } from "../../daemon/index.ts";
import type { DeviceRequest } from "../../devices/index.ts";
import type { CallOptions, DeviceInfo, Devices, SandboxInfo } from "../../runtime/index.ts";
import type { DaemonLink } from "./daemon-link.ts";

export class ConnectedDevices implements Devices {
  readonly #link: DaemonLink;
  readonly #sandbox: string;
  readonly #info: () => Promise<SandboxInfo>;

  constructor(link: DaemonLink, sandbox: string, info: () => Promise<SandboxInfo>) {
    this.#link = link;
    this.#sandbox = sandbox;
    this.#info = info;
  }

  async add(config: DeviceRequest, { signal }: CallOptions = {}): Promise<DeviceInfo> {
    const what = `a device was being added to sandbox ${this.#sandbox}`;
    const answer = await this.#link.call({ what, repeatable: false, signal, timeoutMs: 0 }, (clients, call) =>
      clients.sandbox.addDevice({ sandbox: this.#sandbox, device: toDeviceSpec(config) }, call),
    );
    return fromDeviceInfo(answer.device);
  }

  async remove(device: string, { signal }: CallOptions = {}): Promise<void> {
    const what = `a device was being removed from sandbox ${this.#sandbox}`;
    await this.#link.call({ what, repeatable: false, signal, timeoutMs: 0 }, (clients, call) =>
      clients.sandbox.removeDevice({ sandbox: this.#sandbox, device }, call),
    );
  }

  async list(): Promise<readonly DeviceInfo[]> {
    return (await this.#info()).devices;
  }
}
