/** Version of the protocol between host and agent: raised by every change that the other side must know of. */
export const PROTOCOL_VERSION = 1;
