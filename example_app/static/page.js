// Spare the reload: send forms, and follow what goes on, without leaving the page. Without this file all works the same.

const POLL_MS = 400;

/** The page as it is now. By this address the server's log knows that nobody has pressed anything. */
const LOOK = `${location.pathname}?look`;

/** How long after its tick a task of the schedule is over. */
const TICK_MS = 700;

/** What each part looked like when it came, by its id. */
const shown = new Map([...document.querySelectorAll("[data-live]")].map((part) => [part.id, part.outerHTML]));

/** Put the parts that changed in `page` in place of ours. */
function update(page) {
  for (const part of document.querySelectorAll("[data-live]")) {
    const other = page.getElementById(part.id);
    // What has a key keeps itself up to date.
    if (part.dataset.key && part.dataset.key === other?.dataset.key) continue;
    if (other && other.outerHTML !== shown.get(part.id)) {
      shown.set(part.id, other.outerHTML);
      part.replaceWith(other);
    }
  }
}

/** Ask for a page, and return the answer with its document. */
async function load(url, options) {
  const answer = await fetch(url, options);
  return [answer, new DOMParser().parseFromString(await answer.text(), "text/html")];
}

let following = false;

/** Look again until no task is under way. */
async function follow() {
  if (following) return;
  following = true;
  try {
    while (document.querySelector("[data-busy]")) {
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      const [answer, page] = await load(LOOK);
      if (!answer.ok) break;
      update(page);
    }
  } catch {
    // The server has gone. The next button says so.
  }
  following = false;
}

/** Count the milliseconds in the large figure until the returned function is called. */
function count(card) {
  const began = performance.now();
  card.querySelector(".figures").classList.remove("untried");
  const figure = [...card.querySelectorAll(".figure")].find((each) => each.offsetParent);
  figure.classList.remove("untried");
  figure.querySelector(".what").textContent = "and the page has not answered";
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return () => {};
  let frame = requestAnimationFrame(function show() {
    const elapsed = performance.now() - began;
    // A page that answers at once should not flicker.
    if (elapsed > 100) figure.querySelector(".digits").textContent = Math.round(elapsed).toLocaleString("en");
    frame = requestAnimationFrame(show);
  });
  return () => cancelAnimationFrame(frame);
}

/** Turn the switch of a card. */
function choose(card, mode) {
  card.querySelector(`.switch [value=${mode}]`).checked = true;
}

/** Say below the form why nothing came of it. */
function complain(form, why) {
  const note = document.createElement("p");
  note.className = "refusal";
  note.role = "alert";
  const title = document.createElement("strong");
  title.textContent = "That did not work.";
  note.append(title, why);
  form.after(note);
}

/** Press a button of a card, once; return why nothing came of it, if so. */
async function press(card, url, body, redirect) {
  const before = card.querySelector(".figures").outerHTML;
  const stop = count(card);
  let why;
  try {
    let [answer, page] = await load(url, { method: "POST", body, redirect });
    // The first of both: whatever it answers, an error page too, the second one follows.
    if (redirect === "manual") [answer, page] = await load(LOOK);
    if (answer.ok) {
      for (const part of card.querySelectorAll("[data-live]")) shown.delete(part.id);
      update(page);
      follow();
    } else {
      why = page.querySelector(".lead")?.textContent ?? `${answer.status} ${answer.statusText}`;
    }
  } catch {
    why = "The server cannot be reached. Is it still running?";
  }
  stop();
  if (why) card.querySelector(".figures").outerHTML = before;
  return why;
}

document.addEventListener("submit", async (event) => {
  const { target: form, submitter } = event;
  // The cancel button of a bar is the bar's.
  if (form.closest("asok-progress")) return;
  const body = new FormData(form, submitter);
  const isBoth = submitter?.hasAttribute("data-both");
  if (!isBoth && form.dataset.wholePage === body.get("mode")) return;
  event.preventDefault();
  const card = form.closest(".card");
  if (card.ariaBusy === "true") return;
  card.querySelector("form + .refusal")?.remove();
  card.ariaBusy = "true";
  const url = new URL(submitter?.getAttribute("formaction") ?? form.action, location);
  let why;
  if (isBoth) {
    choose(card, "blocking");
    why = await press(card, url, body, "manual");
    url.searchParams.set("both", "second");
    choose(card, "background");
  }
  why ??= await press(card, url, body, "follow");
  card.ariaBusy = "false";
  if (why) complain(form, why);
});

/** Look again a moment after each tick of the schedule, for as long as somebody looks. */
async function keepTime() {
  for (;;) {
    const left = Number(document.getElementById("schedule-outcome").dataset.nextMs);
    await new Promise((resolve) => setTimeout(resolve, Math.max(left, 0) + TICK_MS));
    if (document.hidden) continue;
    const [answer, page] = await load(LOOK);
    if (answer.ok) update(page);
  }
}

follow();
// The server has gone. The next button says so.
keepTime().catch(() => {});
