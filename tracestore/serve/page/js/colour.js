// What a number looks like. Blue raises the prediction, orange lowers it (underlined, so no hue is needed to read a sign), violet is a mass
// without sign; strength is the size over the largest among tokens that are no attention sinks.

export const MEASURES = {
  drive: { name: "Drive", say: "drive, the ranking", signed: true, share: true },
  score: { name: "Signed", say: "signed contribution", signed: true },
  value: { name: "Value", say: "what heads copied from it", signed: false },
  address: { name: "Address", say: "how it drew attention to itself", signed: false },
  total: { name: "Total", say: "value and address together", signed: false },
};
export const SCOPES = {
  direct: { name: "Into this prediction", say: "into the explained position" },
  total: { name: "Everywhere", say: "into all positions" },
};

/** Give the number of a driver row for a measure (drive, score, value, address, total) and a scope (direct, total). */
export function measured(row, measure, scope) {
  if (MEASURES[measure].signed) return row[measure];
  return measure === "total" ? row[scope] : row[`${scope}_${measure}`];
}

/** Give the largest size among the rows that are no sinks. */
export function scaleOf(rows, number) {
  return Math.max(0, ...rows.filter((row) => !row.sink).map((row) => Math.abs(number(row))));
}

/** Paint an element by a number: sets its hue and strength. */
export function paint(element, value, scale, isSigned) {
  const strength = scale > 0 ? Math.min(1, Math.abs(value) / scale) : 0;
  element.style.setProperty("--hue", isSigned ? `var(${value < 0 ? "--lower" : "--raise"})` : "var(--mass)");
  element.style.setProperty("--strength", (0.62 * strength).toFixed(3));
  element.classList.toggle("down", isSigned && value < 0 && strength > 0.02);
}

export function unpaint(element) {
  element.style.removeProperty("--strength");
  element.classList.remove("down");
}

/** Give a colour of the page as a string for a canvas. */
export function pageColour(name, alpha = 1) {
  const value = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return /^\d/.test(value) ? `rgba(${value}, ${alpha})` : value;
}
