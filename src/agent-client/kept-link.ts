/** A link that was made before there was anybody to ask for one: the first connection is that, unless it is no more. */
import type { AgentLink, ConnectAgent } from "./connect.ts";

export function keptLink(link: AgentLink | undefined, connect: ConnectAgent): ConnectAgent {
  if (link === undefined) return connect;
  let kept: AgentLink | undefined = link;
  void link.closed.then(() => {
    kept = undefined;
  });
  return async (options) => {
    const found = kept;
    kept = undefined;
    return found ?? (await connect(options));
  };
}
