// A trace's text as tokens: a button each, in blocks by the spans they lie in.
//
// 1. Spans that hold whole passages (roles, documents, steps, ...) are nested; wherever one begins or ends a block begins.
// 2. A block shows a rail for every span that it lies in, and the name of those that begin there.
// 3. Evidence and answers may lie inside a sentence: their tokens are underlined instead.

import { h, rove } from "../dom.js";
import { shown } from "../format.js";

const PASSAGES = ["role", "turn", "document", "tool_call", "tool_result", "step"];

/** Give {element, tokens}: the text, and its buttons by position. `onToken(pos)` is called when one is chosen. */
export function textView(data, { onToken, label }) {
  const buttons = new Map(data.tokens.map((token) => [token.pos, tokenButton(token, onToken)]));
  for (const span of data.spans) {
    if (PASSAGES.includes(span.kind)) continue;
    for (let pos = span.first_pos; pos <= span.last_pos; pos += 1) buttons.get(pos)?.classList.add(`inside-${span.kind}`);
  }
  const passages = data.spans.filter((span) => PASSAGES.includes(span.kind)).sort(outerFirst);
  const element = h("div.text", { role: "group", "aria-label": label, class: passages.length ? "" : "bare" }, blocks(data.tokens, passages, buttons));
  rove(element, ".token");
  return { element, tokens: buttons };
}

const outerFirst = (a, b) => a.first_pos - b.first_pos || b.last_pos - a.last_pos;

function blocks(tokens, passages, buttons) {
  const edges = new Set(passages.flatMap((span) => [span.first_pos, span.last_pos + 1]));
  const found = [];
  let begins = true;
  for (const token of tokens) {
    begins ||= edges.has(token.pos);
    const lineEnd = token.text?.includes("\n") && !token.text.trim(); // it ends the line that it stands on; the new block begins behind it
    if (!found.length || (begins && !lineEnd)) {
      found.push([]);
      begins = false;
    }
    found.at(-1).push(token);
  }
  let before = [];
  return found.map((own) => {
    const over = passages.filter((span) => span.first_pos <= own[0].pos && own[0].pos <= span.last_pos);
    const beginning = over.filter((span) => !before.includes(span));
    before = over;
    return h("div.block", {},
      h("div.margin", {}, beginning.length ? h("div.name", {}, beginning.map(spanName).join(" · ")) : null, over.map((span) => h(`div.rail.${span.kind}`, { title: spanName(span) }))),
      h("div.run", {}, own.map((token) => [buttons.get(token.pos), token.text?.includes("\n") && token !== tokens.at(-1) ? h("br") : null])));
  });
}

export function spanName(span) {
  if (span.kind === "step") return `step ${span.ordinal + 1}`;
  return span.ref ? (span.kind === "role" ? span.ref : `${span.kind.replace("_", " ")} ${span.ref}`) : span.kind.replace("_", " ");
}

function tokenButton(token, onToken) {
  const marks = shown(token.text, token.token_id);
  return h("button.token", {
    type: "button",
    class: `${token.sink ? "sink" : ""} ${token.origin === "prompt" ? "" : token.origin}`,
    dataset: { pos: token.pos },
    on: { click: () => onToken(token.pos) },
  }, marks === token.text ? marks : markedParts(marks));
}

/** The marks that stand for what cannot be seen are fainter than the text. */
function markedParts(text) {
  return text.split(/([↵␍⇥▯·⟨⟩])/).filter(Boolean).map((part) => (/[↵␍⇥▯·⟨⟩]/.test(part) ? h("span.mark", {}, part) : part));
}
