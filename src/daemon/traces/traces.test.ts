import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import { FakeRuntime } from "../../../test/support/fake-runtime.ts";
import { type TestScope, tempDir, test } from "../../../test/support/harness.ts";
import { createLog, publishStep, runTool, silentLog } from "../../base/index.ts";
import { startDaemon } from "../index.ts";
import { SpanExporter } from "./exporter.ts";

interface Sent {
  readonly name: string;
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId: string;
  readonly startTimeUnixNano: string;
  readonly endTimeUnixNano: string;
  readonly attributes: readonly { readonly key: string; readonly value: { readonly stringValue: string } }[];
  readonly status: { readonly message?: string };
}

/** A collector, and the spans that it was sent. */
async function collector(t: TestScope): Promise<{ readonly endpoint: string; readonly spans: Sent[] }> {
  const spans: Sent[] = [];
  const server = http.createServer(async (request, response) => {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part);
    const body = JSON.parse(Buffer.concat(parts).toString());
    assert.deepEqual([request.url, request.headers["content-type"]], ["/v1/traces", "application/json"]);
    spans.push(...body.resourceSpans[0].scopeSpans[0].spans);
    response.end("{}");
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  return { endpoint: `http://127.0.0.1:${address.port}`, spans };
}

test("an operation is a span in its client's trace, and each of its steps one below it", async (t) => {
  const { endpoint, spans } = await collector(t);
  const dir = await tempDir(t);
  const runtime = new FakeRuntime();
  runtime.holdCreate = undefined;
  const { create } = runtime.sandboxes;
  runtime.sandboxes.create = async (config, options) => {
    await Promise.all(
      ["start", "cont"].map((name) => publishStep("qmp", name, async () => await create(config, options))),
    );
    return await publishStep("agent", "createContainer", () => create(config, options));
  };
  const openRuntime = async (): Promise<FakeRuntime> => runtime;
  const daemon = await startDaemon({ root: dir, runDir: dir, log: silentLog, openRuntime, tracesEndpoint: endpoint });
  const trace = "0af7651916cd43dd8448eb211c80319c";
  const call = async (body: string): Promise<void> => {
    const headers = ["Content-Type: application/json", `traceparent: 00-${trace}-b7ad6b7169203331-01`];
    const words = ["-s", "--unix-socket", daemon.socketPath, ...headers.flatMap((each) => ["-H", each]), "-d", body];
    await runTool("curl", [...words, "http://belljard/belljar.api.v1.SandboxService/CreateSandbox"]);
  };
  await call('{"spec":{"image":"x"}}');
  await call('{"spec":{"image":"missing"}}');
  // Of nobody.
  await publishStep("store", "write", async () => {});
  await daemon.stop();

  const operations = spans.filter(({ name }) => name === "CreateSandbox");
  assert.deepEqual(
    operations.map(({ traceId, parentSpanId, status }) => ({ traceId, parentSpanId, error: status.message })),
    [
      { traceId: trace, parentSpanId: "b7ad6b7169203331", error: undefined },
      { traceId: trace, parentSpanId: "b7ad6b7169203331", error: "IMAGE_NOT_FOUND" },
    ],
  );
  const [first] = operations;
  const steps = spans.filter(({ parentSpanId }) => parentSpanId === first?.spanId);
  assert.deepEqual(steps.map(({ name }) => name).sort(), ["agent createContainer", "qmp cont", "qmp start"]);
  assert.equal(
    spans.some(({ name }) => name === "store write"),
    false,
  );
  for (const { startTimeUnixNano, endTimeUnixNano } of spans) {
    assert.ok(BigInt(startTimeUnixNano) <= BigInt(endTimeUnixNano));
    assert.ok(Math.abs(Number(BigInt(startTimeUnixNano) / 1_000_000n) - Date.now()) < 60_000);
  }
  await publishStep("qmp", "after the daemon", async () => {});
});

test("a collector that is not there is told of once, and costs nothing else", async () => {
  const lines: string[] = [];
  const log = createLog({ level: "warn", json: true, write: (line) => lines.push(line) });
  const exporter = new SpanExporter({ endpoint: "http://127.0.0.1:1", log });
  const span = {
    traceId: "a",
    spanId: "b",
    parentSpanId: undefined,
    name: "x",
    isOperation: true,
    startNs: 1n,
    endNs: 2n,
  };
  for (let round = 0; round < 3; round += 1) {
    exporter.add({ ...span, attributes: {}, error: undefined });
    await exporter.close();
  }
  assert.equal(lines.length, 1);
});
