// Everything on the page is made here, from text: names and labels come from satellites, and are never HTML.

export const byId = (id) => document.getElementById(id);

/** An element with properties (`data` and `aria` as objects) and children; strings become text nodes. */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === "data") Object.assign(node.dataset, value);
    else if (name === "aria") for (const [key, said] of Object.entries(value)) node.setAttribute(`aria-${key}`, said);
    else if (name === "role") node.setAttribute("role", value);
    else node[name] = value;
  }
  node.append(...children);
  return node;
}

/** Text of an element, written only when it differs, so that a screen reader and a selection are left alone. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Make `parent` hold one child for each item, in order. A child that looks the same stays the same node, so focus, selection
 * and scroll survive a refresh; a changed one is replaced, and focus within it moves to the same control of its successor.
 */
export function sync(parent, items, keyOf, render) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    const before = old.get(key);
    old.delete(key);
    let node = render(item);
    node.dataset.key = key;
    // Compared as it looks, not as its item: "3 min ago" changes while the item stays.
    if (before?.isEqualNode(node)) node = before;
    else if (before) {
      if (before === at) at = node;
      const focused = before.contains(document.activeElement) ? document.activeElement.dataset.action : undefined;
      before.replaceWith(node);
      if (focused) node.querySelector(`[data-action="${CSS.escape(focused)}"]`)?.focus();
    }
    if (node === at) at = at.nextElementSibling;
    else parent.insertBefore(node, at);
  }
  for (const gone of old.values()) gone.remove();
}

/** How long ago, or how far ahead, a time is: "3 min", "2 h". */
export function span(ms) {
  const s = Math.max(0, Math.round(Math.abs(ms) / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}

export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (n >= 1024 && at < units.length - 1) { n /= 1024; at += 1; }
  return `${at && n < 100 ? n.toFixed(1) : Math.round(n)} ${units[at]}`;
}
