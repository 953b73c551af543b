// Fields that several screens use.

import { h } from "../dom.js";

let count = 0;

/** A choice of one among few. `choices`: [[value, name, reason why it cannot be chosen]]. */
export function switcher(legend, choices, value, onChange) {
  const name = `switch-${(count += 1)}`;
  return h("fieldset.switch", {},
    h("legend", {}, legend),
    h("div.choices", {}, choices.map(([key, text, why]) =>
      h("label", { title: why ?? "" },
        h("input", { type: "radio", name, value: key, checked: key === value, disabled: Boolean(why), on: { change: () => onChange(key) } }),
        h("span", {}, text)))));
}

export function field(label, input) {
  return h("label.field", {}, label, input);
}

export function choice(label, options, value, onChange) {
  const select = h("select", { on: { change: () => onChange(select.value) } },
    options.map(([key, text]) => h("option", { value: key, selected: key === value }, text)));
  return field(label, select);
}

export function textField(label, value, onChange, more = {}) {
  const input = h("input", { type: "text", value: value ?? "", spellcheck: false, ...more, on: { change: () => onChange(input.value) } });
  return field(label, input);
}

/** What the colours mean. */
export function key(isSigned) {
  const own = isSigned
    ? [h("span", {}, h("i.swatch.up"), "raises the prediction"), h("span", {}, h("i.swatch.down"), "lowers it")]
    : [h("span", {}, h("i.swatch.mass"), "size, without sign")];
  return h("div.key", {}, own, h("span", {}, h("i.swatch.sunk"), "attention sink, left uncoloured"));
}
