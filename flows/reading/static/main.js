// Entry: the session of a reader, and which part of the page is shown.

import { get, post, Refused, remove } from "./api.js";
import { List } from "./list.js";
import { say } from "./page.js";
import { Stage } from "./stage.js";
import { Study } from "./study.js";

const at = (id) => document.querySelector(`#${id}`);
const token = new URLSearchParams(location.hash.slice(1)).get("token");
// Neither the history nor the address line keeps the token.
history.replaceState(null, "", location.pathname);
let list; let study;

function show(part) {
  for (const id of ["enter", "list", "viewer"]) at(id).hidden = id !== part;
}

async function open(key) {
  show("viewer");
  at("image").focus();
  try {
    await study.open(key);
    const next = list.upcoming(key);
    if (next) post(`studies/${next}/prefetch`).catch(() => {});
  } catch (error) {
    say(error.message);
    back();
  }
}

async function back() {
  if (study.score?.corrections) say("What you corrected is kept until the review is ended; it is not signed.");
  study.token = null;
  show("list");
  await list.load();
}

async function following() {
  const next = await list.following(study.key);
  if (next) await open(next); else await back();
}

/** After a signature the next study is opened, or the list after the last. */
async function signed(key) {
  const next = await list.following(key);
  await list.load();
  if (next) await open(next); else { study.score = null; await back(); }
}

async function begin() {
  const session = await get("session");
  at("who").textContent = `Reader: ${session.reader}; model ${session.model}`;
  at("leave").hidden = false;
  const stage = new Stage(at("image"));
  study = new Study(session, stage, signed);
  list = new List(session, open);
  window.review = { stage, study, list };
  show("list");
  await list.load();
  document.body.dataset.ready = "true";
}

async function start() {
  try { await begin(); } catch (error) {
    if (!(error instanceof Refused) || error.status !== 401) { say(error.message); return; }
    if (!token) { say("Open the link that cac review printed in the terminal."); return; }
    show("enter");
    at("reader").focus();
  }
}

at("enter-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await post("session", { token, reader: at("reader").value });
    await begin();
  } catch (error) { say(error.message); }
});
at("leave").onclick = async () => { await remove("session"); location.reload(); };
at("back").onclick = back;
at("following").onclick = following;
document.addEventListener("pointerdown", () => { if (study) study.active = Date.now(); });
document.addEventListener("keydown", (event) => {
  const field = event.target.closest("input:not([type=range]):not([type=checkbox]), select, textarea");
  if (event.key === "Escape" && field) { field.blur(); return; }
  if (field || event.ctrlKey || event.metaKey || event.altKey || !study) return;
  if (event.key === "Enter" && event.target.closest("button, summary")) return;
  let used = false;
  if (!at("viewer").hidden) {
    if (event.key === "Escape") { back(); used = true; } else if (event.key === "N") { following(); used = true; } else if (study.score) used = study.press(event);
  } else if (!at("list").hidden) used = list.key(event);
  if (used) event.preventDefault();
});
start();
