/** Devices of one sandbox, as callers add and remove them. */
import { BelljarError, checkSandboxOperation } from "../base/index.ts";
import { type DeviceRequest, type DeviceState, titleOf } from "../devices/index.ts";
import { noPort } from "../sandbox/index.ts";
import { deviceInfo } from "./info.ts";
import type { CallOptions, DeviceInfo, Devices } from "./interface.ts";
import type { ManagedSandbox } from "./managed-sandbox.ts";

export class RuntimeDevices implements Devices {
  readonly #managed: ManagedSandbox;

  constructor(managed: ManagedSandbox) {
    this.#managed = managed;
  }

  add(config: DeviceRequest, { signal }: CallOptions = {}): Promise<DeviceInfo> {
    const { sandbox } = this.#managed;
    const work = async (): Promise<DeviceInfo> => {
      checkSandboxOperation("addDevice", sandbox.state.state, sandbox.id);
      if (config.kind === "vfio" && sandbox.vfioSettings.hotPlug === "no-port") throw noPort();
      return deviceInfo(await sandbox.devices.add(config, { signal }));
    };
    return this.#managed.awake(() => this.#managed.exclusive("add a device to", work, signal), signal);
  }

  remove(device: string, { signal }: CallOptions = {}): Promise<void> {
    const { sandbox } = this.#managed;
    const work = async (): Promise<void> => {
      checkSandboxOperation("removeDevice", sandbox.state.state, sandbox.id);
      await sandbox.devices.remove(this.#find(device).id);
    };
    return this.#managed.awake(() => this.#managed.exclusive("remove a device from", work, signal), signal);
  }

  async list(): Promise<readonly DeviceInfo[]> {
    return this.#managed.sandbox.devices.save().map(deviceInfo);
  }

  #find(text: string): DeviceState {
    const devices = this.#managed.sandbox.devices.save();
    const found = devices.find(({ id }) => id === text) ?? devices.find(({ config }) => titleOf(config) === text);
    if (found !== undefined) return found;
    throw new BelljarError(
      "DEVICE_NOT_FOUND",
      `sandbox ${this.#managed.sandbox.id} has no device ${text.slice(0, 200)}`,
      {
        remedy: "See `belljar device ls`.",
      },
    );
  }
}
