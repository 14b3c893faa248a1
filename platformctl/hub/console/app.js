// The console: sign in, refresh every two seconds while it is looked at, and show one of five lists.
import { ApiError, call, hasToken, list, setToken } from "./api.js";
import { byId, el, say, span, sync } from "./dom.js";
import { TABLES, toneOf } from "./tables.js";
import { askToRevoke, closeDialogs, openTokenDialog, setUpTokens } from "./tokens.js";

const REFRESH_MS = 2000;
const LONGEST_WAIT_MS = 15000;
const FIRST_ROWS = 200;
const THEME = "platformctl.theme";

const data = {}; // list -> {items} or {error}, once it was read
let tab = "satellites";
let order = { column: 0, down: false };
let all = false; // every row, not the first FIRST_ROWS alone
let signedIn = false;
let failures = 0;
let fresh = 0; // when the last refresh succeeded
let timer = 0;
let turn = 0; // counts sign-ins and outs: an answer to an earlier one is dropped

// --- signing in -------------------------------------------------------------------------------------------------

async function enter(error = "") {
  const mine = ++turn;
  try {
    const [who, version] = await Promise.all([call("whoami"), call("version").catch(() => null)]);
    if (mine !== turn) return;
    signedIn = true;
    byId("token").value = "";
    say(byId("who"), who.name || who.kind);
    byId("who").title = [`${who.kind}:${who.name}`, ...who.groups.map((group) => `group ${group}`)].join("\n");
    say(byId("version"), version ? version.version : "");
    byId("version").title = version ? `answered by replica ${version.replica}` : "";
    for (const id of ["who", "console"]) byId(id).hidden = false;
    byId("sign-in").hidden = true;
    byId("sign-out").hidden = !hasToken();
    draw();
    await refresh();
  } catch (e) {
    if (mine !== turn) return;
    if (!(e instanceof ApiError)) leave("The hub does not answer. Check its address, and try again.");
    else if (hasToken()) leave(e.status === 401 ? "The hub does not know this token: it is wrong, expired or revoked." : e.whole);
    else leave(error);
  }
}

function leave(error = "") {
  turn += 1;
  signedIn = false;
  setToken("");
  closeDialogs();
  clearTimeout(timer);
  for (const name of Object.keys(data)) delete data[name];
  for (const id of ["tiles", "panel"]) byId(id).replaceChildren();
  for (const id of ["console", "who", "sign-out", "banner"]) byId(id).hidden = true;
  byId("live").dataset.state = "idle";
  say(byId("live-text"), "");
  byId("sign-in").hidden = false;
  say(byId("sign-in-error"), error);
  byId("token").value = "";
  byId("token").focus();
}

// --- refreshing -------------------------------------------------------------------------------------------------

async function read(name) {
  try {
    return { items: await list(name) };
  } catch (e) {
    if (e instanceof ApiError && e.status === 403) return { error: e };
    throw e;
  }
}

async function refresh() {
  clearTimeout(timer);
  const mine = turn;
  const names = Object.keys(TABLES);
  try {
    const read_ = await Promise.all(names.map(read));
    if (mine !== turn) return;
    names.forEach((name, i) => { data[name] = read_[i]; });
    failures = 0;
    fresh = Date.now();
    byId("banner").hidden = true;
  } catch (e) {
    if (mine !== turn) return;
    if (e instanceof ApiError && e.status === 401) { leave("Your session ended: the token expired or was revoked."); return; }
    failures += 1;
    say(byId("banner"), e instanceof ApiError ? `${e.whole} Trying again.` : "The hub does not answer. What you see is old; trying again.");
    byId("banner").hidden = false;
  }
  document.body.classList.toggle("stale", failures > 0);
  draw();
  plan();
}

function plan() {
  clearTimeout(timer);
  if (signedIn && !document.hidden) timer = setTimeout(refresh, Math.min(REFRESH_MS * 2 ** Math.min(failures, 4), LONGEST_WAIT_MS));
}

function tick() {
  if (!signedIn) return;
  byId("live").dataset.state = failures ? "lost" : "ok";
  say(byId("live-text"), !failures ? "Live" : fresh ? `Last answer ${span(Date.now() - fresh)} ago` : "No answer");
}

// --- drawing ----------------------------------------------------------------------------------------------------

const itemsOf = (name) => data[name]?.items ?? [];

function tilesOf() {
  const share = (name, good) => {
    const items = itemsOf(name);
    const fine = items.filter((item) => toneOf(item.state) === "good").length;
    const tone = fine === items.length ? "" : items.some((item) => toneOf(item.state) === "bad") ? "bad" : "warn";
    return { name, value: items.length ? `${fine} / ${items.length}` : "0", label: `${TABLES[name].title.toLowerCase()} ${good}`, tone };
  };
  const rtts = itemsOf("tunnels").map((t) => t.rtt_ms).filter((ms) => ms !== null).sort((a, b) => a - b);
  const median = rtts.length ? rtts[rtts.length >> 1] : null;
  return [
    share("satellites", "connected"), share("services", "healthy"), share("replicas", "ready"),
    { name: "tunnels", value: `${itemsOf("tunnels").length}`, label: "tunnels to this replica", tone: "" },
    { name: "rtt", value: median === null ? "–" : `${median < 10 ? median.toFixed(1) : Math.round(median)} ms`, label: "median round trip", tone: "" },
  ];
}

function draw() {
  if (!signedIn) return;
  tick();
  sync(byId("tiles"), tilesOf(), (tile) => tile.name, (tile) => el("li", { data: { tone: tile.tone } }, el("b", {}, tile.value), el("small", {}, tile.label)));
  for (const [name, table] of Object.entries(TABLES)) {
    const button = byId(`tab-${name}`);
    button.setAttribute("aria-selected", String(name === tab));
    button.tabIndex = name === tab ? 0 : -1;
    say(button.lastElementChild, data[name]?.items ? `${data[name].items.length}` : "");
    if (name === tab) document.title = `${table.title} · hub console`;
  }
  byId("panel").setAttribute("aria-labelledby", `tab-${tab}`);
  byId("new-token").hidden = !["satellites", "tokens"].includes(tab) || !data.tokens?.items;
  drawPanel();
}

function drawPanel() {
  const { items, error } = data[tab] ?? {};
  const rows = items ? chosen(items) : [];
  if (error) notice("Not for you", error.whole);
  else if (!items) notice("Loading…", failures ? "The hub has not answered yet." : "");
  else if (!items.length) notice(...TABLES[tab].empty);
  else if (!rows.length) notice("Nothing matches", `None of the ${items.length} rows contains “${byId("filter").value.trim()}”.`);
  else drawTable(rows);
}

function notice(title, text) {
  const box = el("div", { className: "empty" }, el("h2", {}, title), el("p", {}, text));
  if (byId("panel").textContent !== title + text) byId("panel").replaceChildren(box);
}

function chosen(items) {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const texts = (item) => Object.entries(item).map(([name, value]) =>
    (name === "labels" ? Object.entries(value).map((pair) => pair.join("=")).join(" ") : String(value))).join(" ").toLowerCase();
  const rows = words.length ? items.filter((item) => { const text = texts(item); return words.every((word) => text.includes(word)); }) : [...items];
  const by = TABLES[tab].columns[order.column].by;
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a < b ? -1 : Number(a > b));
  return rows.sort((a, b) => compare(by(a), by(b)) * (order.down ? -1 : 1));
}

function drawTable(rows) {
  const panel = byId("panel");
  const columns = TABLES[tab].columns;
  if (panel.firstElementChild?.dataset.tab !== tab) {
    const head = columns.map((column, i) => el("th", { scope: "col", className: column.num ? "num" : "" },
      column.by ? el("button", { type: "button", data: { sort: i } }, column.title) : el("span", { className: "hidden" }, "Actions")));
    panel.replaceChildren(
      el("table", { data: { tab } }, el("caption", { className: "hidden" }, TABLES[tab].title), el("thead", {}, el("tr", {}, ...head)), el("tbody")),
      el("div", { className: "more" }, el("button", { type: "button", data: { action: "all" } })));
  }
  [...panel.querySelectorAll("th")].forEach((th, i) => {
    if (i === order.column) th.setAttribute("aria-sort", order.down ? "descending" : "ascending");
    else th.removeAttribute("aria-sort");
  });
  const shown = all ? rows : rows.slice(0, FIRST_ROWS);
  sync(panel.querySelector("tbody"), shown, TABLES[tab].key, (item) => el("tr", {}, ...columns.map((column) =>
    el("td", { className: column.num ? "num" : column.name ? "name" : "" }, column.cell(item)))));
  panel.querySelector(".more").hidden = shown.length === rows.length;
  say(panel.querySelector(".more button"), `Show all ${rows.length}`);
}

// --- set-up -----------------------------------------------------------------------------------------------------

function go(name, focus = false) {
  if (!Object.hasOwn(TABLES, name)) name = "satellites";
  if (name !== tab) { tab = name; order = { column: 0, down: false }; all = false; byId("filter").value = ""; }
  if (location.hash !== `#${name}`) history.replaceState(null, "", `#${name}`);
  if (focus) byId(`tab-${name}`).focus();
  draw();
}

function tabKeys(event) {
  const names = Object.keys(TABLES);
  const at = names.indexOf(tab);
  const to = { ArrowRight: (at + 1) % names.length, ArrowLeft: (at + names.length - 1) % names.length, Home: 0, End: names.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  go(names[to], true);
}

function panelClick({ target }) {
  const button = target.closest("button");
  if (!button) return;
  if (button.dataset.sort !== undefined) {
    const column = Number(button.dataset.sort);
    order = { column, down: column === order.column && !order.down };
  } else if (button.dataset.action === "all") all = true;
  else if (button.dataset.action === "revoke") askToRevoke(button.dataset.id, button.dataset.satellite);
  drawPanel();
}

function setUpTheme() {
  // A preference, not a secret: it may outlive the tab.
  const apply = (theme) => { document.documentElement.dataset.theme = theme; byId("theme").value = theme; };
  apply(localStorage.getItem(THEME) ?? "");
  byId("theme").addEventListener("change", () => { localStorage.setItem(THEME, byId("theme").value); apply(byId("theme").value); });
}

function setUp() {
  setUpTheme();
  setUpTokens(refresh);
  byId("tabs").append(...Object.entries(TABLES).map(([name, table]) =>
    el("button", { type: "button", id: `tab-${name}`, role: "tab", aria: { controls: "panel" }, onclick: () => go(name) }, table.title, el("b"))));
  byId("tabs").addEventListener("keydown", tabKeys);
  byId("panel").addEventListener("click", panelClick);
  byId("filter").addEventListener("input", drawPanel);
  byId("new-token").addEventListener("click", openTokenDialog);
  byId("sign-out").addEventListener("click", () => leave());
  byId("sign-in-form").addEventListener("submit", (event) => {
    event.preventDefault();
    setToken(byId("token").value.trim());
    enter();
  });
  addEventListener("hashchange", () => go(location.hash.slice(1)));
  document.addEventListener("visibilitychange", () => { if (signedIn && !document.hidden) refresh(); });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && signedIn && !event.target.closest("input, select, textarea, dialog")) { event.preventDefault(); byId("filter").focus(); }
  });
  setInterval(tick, 1000);
  go(location.hash.slice(1));
  enter(); // a client certificate, or a policy for everybody, needs no token
}

setUp();
