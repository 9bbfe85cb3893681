/** Draws summaries as horizontal bars (median, with a line to the 95th percentile): plain SVG, no library. */
import type { Summary } from "./measure.ts";

const ROW_HEIGHT = 30;
const LABEL_WIDTH = 300;
const BAR_WIDTH = 380;
const WIDTH = LABEL_WIDTH + BAR_WIDTH + 140;

/** One scale per unit, so that bars of one unit can be compared by eye. */
export function drawBars(title: string, summaries: readonly Summary[]): string {
  const largest = new Map<string, number>();
  for (const each of summaries) {
    largest.set(each.unit, Math.max(largest.get(each.unit) ?? 0, each.median, each.p95));
  }
  const rows = summaries.map((each, index) => {
    const y = 50 + index * ROW_HEIGHT;
    const scale = BAR_WIDTH / (largest.get(each.unit) || 1);
    const median = each.median * scale;
    const p95 = each.p95 * scale;
    const middle = y + 9;
    return [
      `<text x="${LABEL_WIDTH - 8}" y="${y + 13}" text-anchor="end">${escapeXml(each.name)}</text>`,
      `<rect x="${LABEL_WIDTH}" y="${y}" width="${median.toFixed(1)}" height="18" fill="#4878a8"/>`,
      `<line x1="${(LABEL_WIDTH + Math.min(median, p95)).toFixed(1)}" x2="${(LABEL_WIDTH + Math.max(median, p95)).toFixed(1)}" y1="${middle}" y2="${middle}" stroke="#333"/>`,
      `<text x="${(LABEL_WIDTH + Math.max(median, p95) + 6).toFixed(1)}" y="${y + 13}">${each.median} ${escapeXml(each.unit)} (n=${each.n})</text>`,
    ].join("\n  ");
  });
  const height = 60 + summaries.length * ROW_HEIGHT;
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" font-family="sans-serif" font-size="13">
  <rect width="100%" height="100%" fill="#ffffff"/>
  <text x="12" y="26" font-size="15" font-weight="bold">${escapeXml(title)}</text>
  ${rows.join("\n  ")}
</svg>
`;
}

function escapeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}
