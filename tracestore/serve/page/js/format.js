// How numbers and tokens are written, once for the whole page.

/** A number of logits, with its sign. */
export const signed = (value, digits = 3) => (isNumber(value) ? `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}` : "–");
export const plain = (value, digits = 3) => (isNumber(value) ? value.toFixed(digits).replace("-", "−") : "–");
export const percent = (value, digits = 1) => (isNumber(value) ? `${(100 * value).toFixed(digits)} %` : "–");
export const signedPercent = (value, digits = 1) => (isNumber(value) ? `${value < 0 ? "−" : "+"}${percent(Math.abs(value), digits)}` : "–");
export const whole = (value) => (isNumber(value) ? value.toLocaleString("en") : "–");
export const tiny = (value) => (isNumber(value) ? value.toExponential(1).replace("-", "−") : "–");
export const day = (ms) => new Date(ms).toISOString().slice(0, 16).replace("T", " ");

export function isNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}

const MARKS = { "\n": "↵", "\r": "␍", "\t": "⇥", "\ufffd": "▯" };

/** A token's text with all of it seen and none of it acting: line ends, controls and fragments as marks; without text its id. */
export function shown(text, tokenId) {
  if (!text) return tokenId === undefined || tokenId === null ? "⟨?⟩" : `⟨${tokenId}⟩`;
  if (!text.trim()) return [...text].map((char) => MARKS[char] ?? "·").join("");
  return [...text].map((char) => MARKS[char] ?? (/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u.test(char) && !/[\u200c\u200d]/.test(char) ? "▯" : char)).join("");
}

/** The same for a sentence: quoted, blanks at its ends trimmed. */
export const quoted = (text, tokenId) => `‘${shown(text, tokenId).trim() || "·"}’`;

/** A long text cut to a number of characters, its line ends as blanks. */
export function cut(text, most = 90) {
  const flat = (text ?? "").replace(/\s+/g, " ").trim();
  return flat.length > most ? `${flat.slice(0, most - 1)}…` : flat;
}

export const headName = (layer, head) => `L${layer}.H${head}`;

/** A token in a table or a list: blanks at its ends left out, unless there is nothing else. */
export const bare = (text, tokenId) => shown(text, tokenId).trim() || shown(text, tokenId);
