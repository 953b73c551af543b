// The address of a screen: #/screen/id?name=value. Everything that a reader chose is in it, so a link shows what they saw.

export function parse(hash = location.hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [screen = "", ...rest] = path.split("/").map(decodeURIComponent);
  return { screen, id: rest.join("/"), params: Object.fromEntries(new URLSearchParams(query)) };
}

export function link(screen = "", id = "", params = {}) {
  const given = Object.entries(params).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const query = new URLSearchParams(given).toString();
  return `#/${[screen, id].filter(Boolean).map(encodeURIComponent).join("/")}${query ? `?${query}` : ""}`;
}

/** Note a choice in the address without leaving the screen. */
export function note(params) {
  const now = parse();
  history.replaceState(null, "", link(now.screen, now.id, { ...now.params, ...params }));
  window.dispatchEvent(new CustomEvent("noted"));
}

export const traceOf = (outputId) => outputId.split(":")[0];
