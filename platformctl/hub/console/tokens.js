// Join tokens: the dialog that makes one and shows its command this once, and the one that asks before revoking.
import { ApiError, call } from "./api.js";
import { byId } from "./dom.js";

const dialog = byId("token-dialog");
const confirmation = byId("confirm");
const reason = (error) => (error instanceof ApiError ? error.whole : "The hub does not answer.");

/** "region=eu, role=gpu" -> {region: "eu", role: "gpu"}; raises Error for anything else. */
export function labelsOf(text) {
  const labels = Object.create(null);
  for (const part of text.split(/[\s,]+/).filter(Boolean)) {
    const at = part.indexOf("=");
    if (at < 1) throw new Error(`“${part}” is not a label: write key=value`);
    labels[part.slice(0, at)] = part.slice(at + 1);
  }
  return labels;
}

function forget() {
  // The secret leaves the page with the dialog, not with the next token.
  byId("made-command").textContent = "";
  byId("token-made").hidden = true;
  byId("token-form").hidden = false;
  byId("token-form").reset();
  byId("token-error").textContent = "";
  byId("copy").textContent = "Copy command";
}

export function openTokenDialog() {
  forget();
  dialog.showModal();
  byId("t-satellite").focus();
}

function show(made) {
  byId("made-satellite").textContent = made.satellite;
  byId("made-command").textContent = made.join_command;
  byId("made-expires").textContent = new Date(made.expires_at).toLocaleTimeString();
  byId("made-expires").dateTime = made.expires_at;
  byId("token-form").hidden = true;
  byId("token-made").hidden = false;
  byId("copy").focus();
}

async function create(event, changed) {
  event.preventDefault();
  const button = event.submitter ?? byId("token-form").querySelector("[type=submit]");
  const error = byId("token-error");
  error.textContent = "";
  button.disabled = true;
  try {
    const body = { satellite: byId("t-satellite").value, labels: labelsOf(byId("t-labels").value), ttl_seconds: Number(byId("t-ttl").value) };
    const made = await call("tokens", { method: "POST", body });
    if (dialog.open) show(made);
    changed();
  } catch (e) {
    error.textContent = e instanceof ApiError || e.name === "Error" ? e.whole ?? e.message : reason(e);
  } finally {
    button.disabled = false;
  }
}

async function copy() {
  const command = byId("made-command");
  try {
    await navigator.clipboard.writeText(command.textContent);
    byId("copy").textContent = "Copied";
  } catch {
    // No clipboard on plain HTTP, or not permitted: select the text, so that the keyboard can copy it.
    getSelection().selectAllChildren(command);
    byId("copy").textContent = "Selected: press Ctrl+C";
  }
}

export function askToRevoke(id, satellite) {
  confirmation.dataset.id = id;
  byId("confirm-text").textContent = `${id}, for satellite ${satellite}. A satellite that has already joined with it stays joined.`;
  byId("confirm-error").textContent = "";
  confirmation.showModal();
}

async function revoke(changed) {
  byId("confirm-yes").disabled = true;
  try {
    await call(`tokens/${encodeURIComponent(confirmation.dataset.id)}`, { method: "DELETE" });
    confirmation.close();
    changed();
  } catch (e) {
    byId("confirm-error").textContent = reason(e);
  } finally {
    byId("confirm-yes").disabled = false;
  }
}

export function closeDialogs() {
  for (const each of [dialog, confirmation]) if (each.open) each.close();
}

/** Wire the dialogs; `changed` is called after every change, to refresh the list. */
export function setUpTokens(changed) {
  dialog.addEventListener("close", forget);
  byId("token-form").addEventListener("submit", (event) => create(event, changed));
  byId("copy").addEventListener("click", copy);
  byId("confirm-yes").addEventListener("click", () => revoke(changed));
  for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
}
