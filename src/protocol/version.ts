/** Version of the protocol between host and agent: raised by every change that the other side must know of. */
export const PROTOCOL_VERSION = 1;

/** Version of the daemon's API: raised by every change that breaks a client; what is only added needs none. */
export const API_VERSION = 1;
/** In which header a client says the one that it speaks. */
export const API_VERSION_HEADER = "belljar-api-version";
