/** Draws summaries as horizontal bars (median, with a line to the 95th percentile), on a logarithmic scale: plain SVG, no library. */
import type { Summary } from "./measure.ts";

const ROW_HEIGHT = 26;
const TOP = 74;
const LABEL_WIDTH = 520;
const BAR_WIDTH = 420;
const WIDTH = LABEL_WIDTH + BAR_WIDTH + 170;
/** Where the bars begin, and how many powers of ten they have room for: milliseconds and megabytes, from 0.1 to 100,000. */
const FIRST_DECADE = -1;
const DECADES = 6;
const COLORS = new Map([
  ["ms", "#4878a8"],
  ["MB", "#6a9a58"],
]);

/** One scale for all of them: equal lengths are equal factors. */
export function drawBars(title: string, summaries: readonly Summary[]): string {
  const bottom = TOP + summaries.length * ROW_HEIGHT;
  const decades = Array.from({ length: DECADES + 1 }, (_, index) => {
    const x = LABEL_WIDTH + (index * BAR_WIDTH) / DECADES;
    const label = String(Number((10 ** (FIRST_DECADE + index)).toPrecision(1)));
    return [
      `<line x1="${x}" x2="${x}" y1="${TOP - 8}" y2="${bottom}" stroke="#ddd"/>`,
      `<text x="${x}" y="${TOP - 12}" text-anchor="middle" font-size="11" fill="#777">${label}</text>`,
    ].join("\n  ");
  });
  const rows = summaries.map((each, index) => {
    const y = TOP + index * ROW_HEIGHT;
    const [median, p95] = [lengthOf(each.median), lengthOf(each.p95)];
    const middle = y + 9;
    const color = COLORS.get(each.unit) ?? "#a07848";
    const value = `${each.median} (${each.p95}) ${each.unit}, n=${each.n}`;
    return [
      `<text x="${LABEL_WIDTH - 8}" y="${y + 13}" text-anchor="end">${escapeXml(each.name)}</text>`,
      `<rect x="${LABEL_WIDTH}" y="${y}" width="${median.toFixed(1)}" height="18" fill="${color}"/>`,
      `<line x1="${(LABEL_WIDTH + Math.min(median, p95)).toFixed(1)}" x2="${(LABEL_WIDTH + Math.max(median, p95)).toFixed(1)}" y1="${middle}" y2="${middle}" stroke="#333"/>`,
      `<text x="${(LABEL_WIDTH + Math.max(median, p95) + 6).toFixed(1)}" y="${y + 13}">${escapeXml(value)}</text>`,
    ].join("\n  ");
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${bottom + 10}" font-family="sans-serif" font-size="13">
  <title>${escapeXml(title)}</title>
  <rect width="100%" height="100%" fill="#ffffff"/>
  <text x="12" y="26" font-size="15" font-weight="bold">${escapeXml(title)}</text>
  <text x="12" y="46" font-size="12" fill="#777">median (95th percentile); logarithmic scale, each step ten times the one before</text>
  ${[...decades, ...rows].join("\n  ")}
</svg>
`;
}

function lengthOf(value: number): number {
  const decades = Math.log10(Math.max(value, 10 ** FIRST_DECADE)) - FIRST_DECADE;
  return (Math.min(decades, DECADES) * BAR_WIDTH) / DECADES;
}

function escapeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}
