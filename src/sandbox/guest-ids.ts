/** How the guest calls containers that were given another id since they were made in it. */
export interface GuestNamed {
  readonly id: string;
  /** Absent when it is the container's own. */
  readonly guestId?: string | undefined;
}

export function guestIdOf({ id, guestId = id }: GuestNamed): string {
  return guestId;
}

/** A request to the agent that names a container, as the agent knows it. */
export function inGuestWords<T extends object>(request: T, containers: readonly GuestNamed[]): T {
  if (!("containerId" in request)) return request;
  const container = containers.find(({ id }) => id === request.containerId);
  if (container?.guestId === undefined) return request;
  return { ...request, containerId: container.guestId };
}
