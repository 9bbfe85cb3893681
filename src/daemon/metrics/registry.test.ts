import assert from "node:assert/strict";
import { test } from "node:test";
import { Counter, Histogram, renderGauge } from "./registry.ts";

test("counters count for each set of labels", () => {
  const counter = new Counter("c_total", "Help.");
  counter.add({ method: "A" });
  counter.add({ method: "B" }, 2);
  counter.add({ method: "A" });
  assert.equal(
    counter.render(),
    '# HELP c_total Help.\n# TYPE c_total counter\nc_total{method="A"} 2\nc_total{method="B"} 2\n',
  );
});

test("buckets of a histogram are cumulative, and the last one has everything", () => {
  const histogram = new Histogram("h_seconds", "Help.");
  for (const seconds of [0.001, 0.005, 0.3, 100]) histogram.observe({ method: "A" }, seconds);
  const lines = histogram.render().split("\n");
  const bucket = (le: string): string | undefined => lines.find((line) => line.includes(`le="${le}"`));
  assert.equal(bucket("0.005"), 'h_seconds_bucket{method="A",le="0.005"} 2');
  assert.equal(bucket("0.25"), 'h_seconds_bucket{method="A",le="0.25"} 2');
  assert.equal(bucket("60"), 'h_seconds_bucket{method="A",le="60"} 3');
  assert.equal(bucket("+Inf"), 'h_seconds_bucket{method="A",le="+Inf"} 4');
  assert.ok(lines.includes('h_seconds_count{method="A"} 4'));
  assert.match(lines.find((line) => line.startsWith("h_seconds_sum")) ?? "", /} 100\.306$/);
});

test("values of labels are escaped", () => {
  assert.match(renderGauge("g", "Help.", [{ labels: { a: 'x"\\\n' }, value: 1 }]), /g\{a="x\\"\\\\\\n"\} 1/);
});
