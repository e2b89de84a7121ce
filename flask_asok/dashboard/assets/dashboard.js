// Every two seconds, while the page is seen and "Live" is on: asks for the part of it that changes.
const PAUSE = 2000, LONGEST = 60000;
const part = document.getElementById("part"), button = document.getElementById("live"), stale = document.getElementById("stale");
let timer, tag, errors = 0, turn = 0, live = read() != "off";

function read() {
  try { return sessionStorage.getItem("asok-live"); } catch { return null; }
}

function write(value) {
  try { sessionStorage.setItem("asok-live", value); } catch { /* It is for this page only, then. */ }
}

// In the visitor's own time zone; the title has it in UTC.
function localize(within) {
  for (const time of within.querySelectorAll("time")) {
    const at = new Date(time.dateTime);
    const near = Math.abs(at - Date.now()) < 43200000;
    time.textContent = near ? at.toLocaleTimeString() : at.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  }
}

function wait(ms) {
  clearTimeout(timer);
  if (live && !document.hidden) timer = setTimeout(poll, ms);
}

async function poll() {
  const mine = ++turn;
  try {
    const headers = { "Asok-Fragment": "1" };
    if (tag) headers["If-None-Match"] = tag;
    const signal = AbortSignal.timeout(10000);
    const answer = await fetch(location.href.split("#")[0], { headers, cache: "no-store", redirect: "error", signal });
    const text = answer.status == 304 ? null : await answer.text();
    // What was asked later is newer.
    if (mine != turn || !live) return;
    if (answer.status == 404) return end("This is gone, or you may not see it any more.");
    if (text !== null && !(answer.ok && answer.headers.get("ETag"))) throw answer;
    if (text !== null) show(text);
    tag = answer.headers.get("ETag") || tag;
    errors = 0;
    stale.textContent = "";
  } catch {
    if (mine != turn) return;
    errors += 1;
    if (errors > 1) stale.textContent = "No answer";
  }
  wait(Math.min(PAUSE * 2 ** errors, LONGEST));
}

// Not while something in it is selected: it would be gone before it is copied.
function show(text) {
  const selection = getSelection();
  if (!selection.isCollapsed && part.contains(selection.anchorNode)) return;
  const next = new DOMParser().parseFromString(text, "text/html").body;
  localize(next);
  if (next.innerHTML.trim() == part.innerHTML.trim().replace(/ disabled=""/g, "")) return;
  const id = part.contains(document.activeElement) ? document.activeElement.id : "";
  const scrolled = [...part.querySelectorAll("pre")].map((one) => one.scrollTop);
  part.replaceChildren(...next.childNodes);
  part.querySelectorAll("pre").forEach((one, n) => (one.scrollTop = scrolled[n] || 0));
  if (id) document.getElementById(id)?.focus({ preventScroll: true });
}

function end(why) {
  live = false;
  clearTimeout(timer);
  button.setAttribute("aria-pressed", "false");
  stale.textContent = why;
}

button.addEventListener("click", () => {
  live = !live;
  errors = 0;
  stale.textContent = "";
  button.setAttribute("aria-pressed", live);
  write(live ? "on" : "off");
  wait(0);
});
document.addEventListener("visibilitychange", () => wait(0));
// Each button once.
document.addEventListener("submit", (event) => {
  if (event.target.method == "post") event.target.querySelector("button").disabled = true;
});
// A page that comes back by the Back button is as it was left.
addEventListener("pageshow", (event) => event.persisted && location.reload());

button.hidden = false;
button.setAttribute("aria-pressed", live);
localize(document);
wait(PAUSE);
