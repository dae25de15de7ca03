// Numbers for people. What is not known is a dash.

const DASH = "–";
const plain = (digits) => digits.replace(/\.0+$/, ""); // 10.0 says no more than 10
const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

/** Three significant digits at most: 1234 is "1,234", 12345 "12.3k". */
export function count(value) {
  if (!known(value)) return DASH;
  if (value < 10000) return value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });
  const units = ["", "k", "M", "G", "T"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) { value /= 1000; unit += 1; }
  return `${value.toPrecision(3)}${units[unit]}`;
}

export const whole = (value) => (known(value) ? Math.round(value).toLocaleString("en") : DASH);

export function percent(share) {
  if (!known(share)) return DASH;
  const digits = (share > 0.995 && share < 1) || (share > 0 && share < 0.005) ? 2 : 1;
  return `${plain((share * 100).toFixed(digits))} %`;
}

/** Seconds as µs, ms or s. */
export function time(seconds) {
  if (!known(seconds)) return DASH;
  if (seconds < 0.00095) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 0.095) return `${plain((seconds * 1e3).toPrecision(2))} ms`;
  if (seconds < 0.95) return `${Math.round(seconds * 1e3)} ms`;
  return `${plain(seconds.toPrecision(seconds < 10 ? 2 : 3))} s`;
}

/** Long spans in their two largest units. */
export function span(seconds) {
  if (!known(seconds)) return DASH;
  if (seconds < 60) return `${seconds < 10 ? plain(seconds.toFixed(1)) : Math.round(seconds)} s`;
  const parts = [];
  let left = Math.floor(seconds);
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]]) {
    if (left >= size || parts.length) parts.push(`${Math.floor(left / size)} ${unit}`);
    left %= size;
  }
  return parts.slice(0, 2).filter((part, index) => index === 0 || !part.startsWith("0 ")).join(" ");
}

export function octets(value) {
  if (!known(value)) return DASH;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1; }
  return `${unit ? value.toPrecision(value < 1000 ? 3 : 4) : Math.round(value)} ${units[unit]}`;
}

export function ago(seconds) {
  if (!known(seconds)) return DASH;
  if (seconds < 2) return "now";
  if (seconds < 60) return `${Math.round(seconds)} s ago`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min ago`;
  return `${Math.round(seconds / 3600)} h ago`;
}

export const clock = (at, precise) =>
  new Date(at * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: precise ? "2-digit" : undefined });
