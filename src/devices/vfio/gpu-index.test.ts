import assert from "node:assert/strict";
import { test } from "node:test";
import { gpuAnnotations, type PluggedFunction } from "./gpu-index.ts";

function gpu(group: number, port: number, change: Partial<PluggedFunction> = {}): PluggedFunction {
  return { group, vendor: "0x10de", class: "0x030200", portKind: "root-port", port, function: 0, ...change };
}

test("GPUs are numbered by their bus, those on root ports before those behind a switch", () => {
  const plugged = [gpu(30, 0, { portKind: "switch-port" }), gpu(20, 10), gpu(10, 2, { class: "0x030000" })];
  assert.deepEqual(gpuAnnotations(plugged, [10, 20, 30]), {
    "cdi.k8s.io/vfio10": "nvidia.com/gpu=0",
    "cdi.k8s.io/vfio20": "nvidia.com/gpu=1",
    "cdi.k8s.io/vfio30": "nvidia.com/gpu=2",
  });
});

test("a container is told of those that it asked for, numbered among all", () => {
  assert.deepEqual(gpuAnnotations([gpu(10, 0), gpu(20, 1)], [20, 99]), { "cdi.k8s.io/vfio20": "nvidia.com/gpu=1" });
});

test("only NVIDIA's display controllers count: not their sound, not other makers'", () => {
  const others = [gpu(10, 0, { class: "0x040300", function: 1 }), gpu(11, 1, { vendor: "0x1002" }), gpu(12, 2)];
  assert.deepEqual(gpuAnnotations(others, [10, 11, 12]), { "cdi.k8s.io/vfio12": "nvidia.com/gpu=0" });
  assert.deepEqual(gpuAnnotations([], [1]), {});
});
