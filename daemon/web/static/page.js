"use strict";
// The page of the night, made new part by part. It works without this script, too: the server sends it whole.
// The server says which parts have changed; their HTML is fetched and put in place. Nothing is decided here.

const $ = (id) => document.getElementById(id);
const live = document.body.hasAttribute("data-live");
const SILENT = 12000, LOST = 16000; // ms without a word of the server: late, lost

// -- what is new ----------------------------------------------------------------------------

let stream = null, opened = 0, last = 0, seen = "", away = 0, retry = 0, skew = 0, connected = false, wanted = new Set(), busy = false;

function follow() {
  if (stream || document.hidden) return;
  stream = new EventSource("/api/v1/stream" + (seen ? `?after=${seen}` : ""));
  opened = Date.now();
  for (const kind of ["frame", "look", "product", "job", "group", "missing", "alert", "note"])
    stream.addEventListener(kind, (event) => { heard(); if (event.lastEventId) seen = event.lastEventId; });
  stream.addEventListener("beat", (event) => { heard(); skew = JSON.parse(event.data).at * 1000 - Date.now(); });
  stream.addEventListener("reset", () => { seen = ""; });
  stream.addEventListener("parts", (event) => { heard(); differ(JSON.parse(event.data).keys); });
  stream.onerror = () => { if (!stream || stream.readyState !== 2) return; leave(); clearTimeout(retry); retry = setTimeout(follow, 3000); };
}
function leave() { if (stream) stream.close(); stream = null; }
function heard() { last = Date.now(); away = 0; connected = true; }

function differ(keys) {
  for (const [name, key] of Object.entries(keys)) { const part = $(name); if (part && part.dataset.key !== key) wanted.add(name); }
  fetchParts();
}
async function fetchParts() {
  if (busy || !wanted.size) return;
  busy = true;
  const names = [...wanted]; wanted.clear();
  try {
    const answer = await fetch("/parts?names=" + names.join(","), { signal: AbortSignal.timeout(LOST) });
    if (!answer.ok) throw new Error(answer.status);
    for (const [name, part] of Object.entries(await answer.json())) put(name, part);
    tick();
  } catch { for (const name of names) wanted.add(name); setTimeout(fetchParts, 2000); return; } finally { busy = false; }
  fetchParts();
}
function put(name, part) {
  const place = $(name);
  if (!place) return;
  const looking = name === "newest" && place.contains(document.activeElement);
  const row = name === "frames" && here ? here.dataset.row : null, was = name === "strip" ? place.textContent : "";
  place.innerHTML = part.html; // made and escaped by the server; the policy of the page lets no script run from it
  place.dataset.key = part.key;
  if (name === "newest") { pictures.start(place.querySelector(".view")); if (looking) place.querySelector(".pic")?.focus({ preventScroll: true }); }
  if (name === "frames") { number(); if (row) mark(rows().find((each) => each.dataset.row === row), false); }
  if (name === "strip" && was !== place.textContent) $("said").textContent = place.textContent;
  if (name === "alerts") title();
}
function title() {
  const counted = document.querySelector("#alerts [data-count]"), n = counted ? +counted.dataset.count : 0;
  document.title = (n ? `▲${n} ` : "") + "nirid";
}

// -- the time ---------------------------------------------------------------------------------

function span(s) { return s < 90 ? `${s < 10 ? s.toFixed(1) : Math.round(s)} s` : s < 5400 ? `${Math.round(s / 60)} min` : s < 172800 ? `${(s / 3600).toFixed(1)} h` : `${Math.round(s / 86400)} d`; }
function tick() {
  const now = (Date.now() + skew) / 1000;
  for (const time of document.querySelectorAll("time[data-ago]")) time.textContent = span(Math.max(0, now - time.dataset.ago)) + " ago";
  if (!live) return;
  const date = new Date(now * 1000), hst = new Date(now * 1000 - 36000000), clock = (d) => d.toISOString().slice(11, 19);
  const age = Date.now() - last, state = $("live");
  const kind = !connected ? "wait" : age > LOST ? "lost" : age > SILENT ? "late" : "";
  if (kind === "lost" && !away) away = last;
  state.className = kind;
  state.textContent = kind === "wait" ? "connecting" : kind === "lost"
    ? `no connection since ${clock(new Date(away + skew))} UT; what you see is from then, trying again`
    : `${kind === "late" ? `late, last word ${span(age / 1000)} ago` : "live"} · ${clock(date)} UT · ${clock(hst)} HST`;
  document.body.classList.toggle("lost-page", kind === "lost");
  // A line that was cut without a word, as when a laptop sleeps, stays open here for ever: begin another.
  if (stream && age > LOST && Date.now() - opened > SILENT) { leave(); follow(); }
}

// -- keys ------------------------------------------------------------------------------------

let here = null;
const rows = () => [...document.querySelectorAll(".frames tbody tr")];
function number() { for (const row of rows()) { const name = row.querySelector("a"); row.dataset.row = name ? name.getAttribute("href") : ""; } }
function mark(row, focus = true) {
  if (here) here.classList.remove("here");
  here = row || null;
  if (here) { here.classList.add("here"); if (focus) { here.focus({ preventScroll: true }); here.scrollIntoView({ block: "nearest" }); } }
}
function step(by) { const all = rows(); if (all.length) mark(all[Math.min(all.length - 1, Math.max(0, here ? all.indexOf(here) + by : 0))]); }
function go(id) { const place = $(id); if (place) { place.setAttribute("tabindex", "-1"); place.focus(); place.scrollIntoView({ block: "nearest" }); } }
const open_ = (row) => { const link = row && row.querySelector("a"); if (link) location.href = link.href; };
const keys = {
  ...pictures.keys,
  j: () => step(1), k: () => step(-1), Enter: () => open_(here),
  "/": () => document.querySelector("input[name=q]").focus(),
  m: () => go("missing"), p: () => go("alerts"), n: dim, r: () => { const link = document.querySelector("#head .night a"); if (link) location.href = link.href; },
  "?": () => $("help").showModal(),
  Escape: () => { if (pictures.back()) return; if (here) mark(null); else if (!live) location.href = "/"; },
};
function dim() { const night = document.body.classList.toggle("night"); try { localStorage.setItem("dim", night ? "1" : ""); } catch { /* private window */ } }
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  if (/^(input|textarea|select)$/i.test(event.target.tagName)) { if (event.key === "Escape") event.target.blur(); return; }
  if (event.key === "Enter" && event.target.closest("a, button, summary")) return;
  const does = keys[event.key];
  if (does) { event.preventDefault(); does(); }
});
document.addEventListener("click", (event) => { const row = event.target.closest(".frames tbody tr"); if (row && !event.target.closest("a")) { mark(row); open_(row); } });
$("help-button").addEventListener("click", () => $("help").showModal());

try { if (localStorage.getItem("dim")) document.body.classList.add("night"); } catch { /* private window */ }
document.documentElement.classList.add("js");
pictures.start(document.querySelector(".view"));
number();
if (live) {
  title();
  document.addEventListener("visibilitychange", () => { if (document.hidden) leave(); else { connected = false; follow(); } });
  addEventListener("online", () => { leave(); follow(); });
  addEventListener("pagehide", leave);
  follow();
}
tick();
setInterval(tick, 1000);
