/**
 * From HTTP requests to handlers of the API and back. What goes wrong on the way out, such as a client that has gone, is logged
 * and ends its own request only; what is no call of the API is refused.
 */
import { type ConnectRouter, type ConnectRouterOptions, createConnectRouter } from "@connectrpc/connect";
import { universalRequestFromNodeRequest, universalResponseToNodeResponse } from "@connectrpc/connect-node";
import { BelljarError, type Log } from "../base/index.ts";
import type { RequestHandler } from "./listener.ts";

export interface RequestDeps extends ConnectRouterOptions {
  readonly routes: (router: ConnectRouter) => void;
  readonly log: Log;
  /** What is read with a plain GET, by path. */
  readonly pages: ReadonlyMap<string, Page>;
}

export interface Page {
  readonly contentType: string;
  readonly render: () => Promise<string>;
}

export function handleRequests({ routes, log, pages, ...options }: RequestDeps): RequestHandler {
  const router = createConnectRouter(options);
  routes(router);
  const handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));

  const answer = async (
    request: Parameters<RequestHandler>[0],
    response: Parameters<typeof universalResponseToNodeResponse>[1],
  ): Promise<void> => {
    const path = request.url?.split("?", 1)[0] ?? "";
    const page = request.method === "GET" ? pages.get(path) : undefined;
    if (page !== undefined) {
      const text = await page.render();
      response.writeHead(200, { "content-type": page.contentType });
      response.end(text);
      return;
    }
    const handler = handlers.get(path);
    // HTTP/1.0 may come without a host, which the conversion cannot bear.
    if (handler === undefined || (request.headers.host ?? request.headers[":authority"]) === undefined) {
      response.writeHead(handler === undefined ? 404 : 400);
      response.end();
      return;
    }
    const result = await handler(universalRequestFromNodeRequest(request, response, undefined, undefined));
    await universalResponseToNodeResponse(result, response);
  };
  return (request, response) => {
    // Errors of the streams themselves; the calls behind them end by their signal.
    const onError = (error: Error): void => log.debug("request failed", { path: request.url, error: error.message });
    request.on("error", onError);
    response.on("error", onError);
    answer(request, response)
      .catch((thrown: unknown) => onError(BelljarError.from(thrown)))
      // A stream whose rest nobody reads stays open.
      .finally(() => request.resume());
  };
}
