// Rows as a table: numbers to the right, shares with a bar behind them, ids as links.

import { h } from "../dom.js";
import { bare, cut, isNumber, percent, plain, shown, signed, whole } from "../format.js";
import { link, traceOf } from "../route.js";

const SHARES = /(^|_)(share|prob|rate|kept|mass|mean_share|cosine)(_|$)/;
const SIGNED = /(^|_)(score|relevance|weight|difference|effect|estimate)(_|$)/;
const LONG = /(^|_)(trace_text|motif|question|hops)$/;

/** `columns`: [{name, type, doc}] as the catalogue gives them; `titles` may rename; `caption` says what the rows are. */
export function resultTable(columns, rows, caption) {
  const shown_ = columns.filter(({ name }) => !["output_uid", "foil_token_id"].includes(name));
  const largest = Object.fromEntries(columns.map(({ name }) => [name, Math.max(0, ...rows.map((row) => (isNumber(row[name]) ? Math.abs(row[name]) : 0)))]));
  return h("div.scroll", { tabIndex: 0, role: "region", "aria-label": caption },
    h("table", {},
      h("caption", {}, caption),
      h("thead", {}, h("tr", {}, shown_.map(({ name, type, doc }) =>
        h("th", { class: numeric(type, name) ? "number" : "", scope: "col", title: doc ?? "" }, title(name))))),
      h("tbody", {}, rows.map((row) => h("tr", {}, shown_.map((column) => cell(column, row, largest[column.name])))))));
}

const numeric = (type, name) => (type === "int" || type === "float") && name !== "token_id";
const title = (name) => name.replaceAll("_", " ");

function cell({ name, type }, row, largest) {
  const value = row[name];
  if (value === null || value === undefined) return h("td", { class: numeric(type, name) ? "number" : "" }, "–");
  if (name === "output_id" || name === "example") return h("td", {}, h("a", { href: link("trace", traceOf(value), { output: value }) }, "look"));
  if (name === "trace_id") return h("td", {}, h("a", { href: link("trace", value), title: value }, value.slice(0, 8)));
  if (type === "bool") return h("td", {}, value ? "yes" : "no");
  if (type === "float" && SHARES.test(name)) return barCell(value, largest, percent(value), false);
  if (type === "float" && SIGNED.test(name)) return barCell(value, largest, signed(value), true);
  if (type === "float") return h("td.number", {}, Math.abs(value) > 0 && Math.abs(value) < 1e-3 ? value.toExponential(1) : plain(value));
  if (type === "int") return h("td", { class: numeric(type, name) ? "number" : "" }, name === "created_at" ? new Date(value).toISOString().slice(0, 10) : whole(value));
  if (/text$/.test(name) && name !== "trace_text" && String(value).length < 40) return h("td", {}, h("span.piece", {}, bare(value)));
  return h("td.long", { title: value }, LONG.test(name) ? cut(value, 110) : cut(value, 70));
}

/** A number with a bar behind it, as long as it is large. */
export function barCell(value, largest, text, isSigned) {
  const width = largest > 0 ? (100 * Math.abs(value)) / largest : 0;
  return h("td.number", {}, h("span.bar-cell", {},
    h("i", { class: isSigned ? (value < 0 ? "down" : "up") : "", style: { width: `${width.toFixed(1)}%` } }), h("b", {}, text)));
}
