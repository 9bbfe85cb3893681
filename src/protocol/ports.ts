/** Names of the virtio-serial ports between host and guest. */

/** On which the agent listens. */
export const AGENT_PORT = "org.belljar.agent";

/** On which the guest's wake program does; see guest-image/programs/wake.c. */
export const WAKE_PORT = "org.belljar.wake";
