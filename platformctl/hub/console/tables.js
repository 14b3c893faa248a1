// The lists as data: what each tab is called, its columns, and what it says when it is empty.
import { bytes, el, span } from "./dom.js";

const TONE = {
  connected: "good", healthy: "good", ready: "good", unused: "good",
  degraded: "warn", ejected: "warn", draining: "warn", pending: "warn",
  offline: "bad", unhealthy: "bad", revoked: "bad",
};
export const toneOf = (state) => TONE[state] || "";

const state = (word, note = "") => el("span", { className: "state", data: { tone: toneOf(word) } }, note ? `${word} ${note}` : word);
const chips = (words) => el("div", { className: "chips" }, ...words.map((word) => el("span", { className: "chip", title: word }, word)));
const mono = (text) => el("span", { className: "mono" }, text);
const rtt = (ms) => (ms === null ? "–" : `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`);
const last = (value) => (value === null ? Infinity : value);
const pairs = (labels) => Object.entries(labels).map(([key, value]) => `${key}=${value}`).sort();
const time = (iso, said) => el("time", { dateTime: iso, title: new Date(iso).toLocaleString() }, said);

// A column: title, cell(item) -> text or node, by(item) -> what it sorts by; `num` puts it to the right, `name` makes it the row's title.
export const TABLES = {
  satellites: {
    title: "Satellites", key: (s) => s.name,
    columns: [
      { title: "Name", name: true, cell: (s) => s.name, by: (s) => s.name },
      { title: "State", cell: (s) => state(s.state), by: (s) => s.state },
      { title: "Connected", num: true, cell: (s) => `${s.connected} / ${s.expected}`, by: (s) => s.connected - s.expected },
      { title: "RTT", num: true, cell: (s) => rtt(s.rtt_ms), by: (s) => last(s.rtt_ms) },
      { title: "Labels", cell: (s) => chips(pairs(s.labels)), by: (s) => pairs(s.labels).join() },
      { title: "Services", cell: (s) => chips(s.services), by: (s) => s.services.length },
      { title: "Version", cell: (s) => s.version || "–", by: (s) => s.version },
    ],
    empty: ["No satellite has joined yet", "Make a join token, and run the command that it shows on the machine or cluster that should join."],
  },
  services: {
    title: "Services", key: (s) => `${s.satellite}/${s.name}`,
    columns: [
      { title: "Service", name: true, cell: (s) => s.name, by: (s) => s.name },
      { title: "Satellite", cell: (s) => s.satellite, by: (s) => s.satellite },
      { title: "Kind", cell: (s) => s.kind || "–", by: (s) => s.kind },
      { title: "State", cell: (s) => state(s.state), by: (s) => s.state },
      { title: "Path", cell: (s) => (s.path ? mono(s.path) : "–"), by: (s) => s.path },
      { title: "In flight", num: true, cell: (s) => (s.waiting ? `${s.in_flight} + ${s.waiting} waiting` : `${s.in_flight}`), by: (s) => s.in_flight },
      { title: "Tunnels", num: true, cell: (s) => `${s.tunnels}`, by: (s) => s.tunnels },
    ],
    empty: ["No service is exported", "Export one with: platformctl export add NAME --satellite SATELLITE --to http://host:port"],
  },
  tunnels: {
    title: "Tunnels", key: (t) => `${t.replica}/${t.id}`,
    columns: [
      { title: "Satellite", name: true, cell: (t) => t.satellite, by: (t) => t.satellite },
      { title: "Replica", cell: (t) => t.replica, by: (t) => t.replica },
      { title: "State", cell: (t) => state(t.draining ? "draining" : "connected"), by: (t) => t.draining },
      { title: "RTT", num: true, cell: (t) => rtt(t.rtt_ms), by: (t) => last(t.rtt_ms) },
      { title: "Streams", num: true, cell: (t) => `${t.streams}`, by: (t) => t.streams },
      { title: "Received", num: true, cell: (t) => bytes(t.bytes_received), by: (t) => t.bytes_received },
      { title: "Sent", num: true, cell: (t) => bytes(t.bytes_sent), by: (t) => t.bytes_sent },
      { title: "Up for", num: true, cell: (t) => time(t.connected_at, span(Date.now() - Date.parse(t.connected_at))), by: (t) => -Date.parse(t.connected_at) },
      { title: "From", cell: (t) => mono(t.remote || "–"), by: (t) => t.remote },
    ],
    empty: ["No tunnel is open", "Satellites dial out to the hub; see that their agents run and reach its tunnel address."],
  },
  replicas: {
    title: "Replicas", key: (r) => r.id,
    columns: [
      { title: "Replica", name: true, cell: (r) => (r.current ? `${r.id} (this one)` : r.id), by: (r) => r.id },
      { title: "State", cell: (r) => state(r.state), by: (r) => r.state },
      { title: "Tunnel address", cell: (r) => mono(r.url), by: (r) => r.url },
      { title: "Tunnels", num: true, cell: (r) => (r.tunnels === null ? "–" : `${r.tunnels}`), by: (r) => last(r.tunnels) },
      { title: "Version", cell: (r) => r.version || "–", by: (r) => r.version },
      { title: "Up for", num: true, cell: (r) => (r.started_at ? time(r.started_at, span(Date.now() - Date.parse(r.started_at))) : "–"), by: (r) => -Date.parse(r.started_at || 0) },
    ],
    empty: ["No replica is known", "The list comes from the hub's store; see /readyz for what is wrong with it."],
  },
  tokens: {
    title: "Join tokens", key: (t) => t.id,
    columns: [
      { title: "Id", name: true, cell: (t) => mono(t.id), by: (t) => t.id },
      { title: "Satellite", cell: (t) => t.satellite, by: (t) => t.satellite },
      { title: "State", cell: (t) => state(t.state), by: (t) => t.state },
      { title: "Labels", cell: (t) => chips(pairs(t.labels)), by: (t) => pairs(t.labels).join() },
      { title: "Expires", cell: (t) => time(t.expires_at, t.state === "unused" ? `in ${span(Date.parse(t.expires_at) - Date.now())}` : new Date(t.expires_at).toLocaleString()), by: (t) => Date.parse(t.expires_at) },
      { title: "", cell: (t) => el("button", { type: "button", className: "quiet", data: { action: "revoke", id: t.id, satellite: t.satellite }, aria: { label: `Revoke join token ${t.id}` } }, "Revoke") },
    ],
    empty: ["No join token", "A join token lets one satellite join, once, within its lifetime."],
  },
};
