/** A snapshot whose containers have other ids from now on: the guest knows them by those that they had. */
import type { Snapshot } from "./snapshot.ts";

/** @param ids by the id that a container has in the snapshot; one that is not named keeps its own */
export function renameContainers(snapshot: Snapshot, ids: ReadonlyMap<string, string>): Snapshot {
  if (ids.size === 0) return snapshot;
  const { state, logs } = snapshot;
  const renamed = (id: string): string => ids.get(id) ?? id;
  return {
    ...snapshot,
    state: {
      ...state,
      containers: state.containers.map((container) => {
        const id = renamed(container.id);
        const { guestId = container.id } = container;
        return { ...container, id, guestId: guestId === id ? undefined : guestId };
      }),
      devices: state.devices?.map((device) => ({
        ...device,
        references: device.references.map(renamed),
        attachments: device.attachments.map(renamed),
      })),
    },
    logs: logs.map((log) => ({ ...log, containerId: renamed(log.containerId) })),
  };
}
