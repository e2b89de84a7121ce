// Spare the reload: send forms, and follow what goes on, without leaving the page. Without this file all works the same.

const POLL_MS = 400;

/** What each part looked like when it came, by its id. */
const shown = new Map([...document.querySelectorAll("[data-live]")].map((part) => [part.id, part.outerHTML]));

/** Put the parts that changed in `html`, a whole page, in place of ours. */
function update(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const other = fresh.getElementById(part.id);
    if (other && other.outerHTML !== shown.get(part.id)) {
      shown.set(part.id, other.outerHTML);
      part.replaceWith(other);
    }
  }
}

let following = false;

/** Look again until no task is under way. */
async function follow() {
  if (following) return;
  following = true;
  while (document.querySelector("[data-busy]")) {
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    update(await (await fetch(location.pathname)).text());
  }
  following = false;
}

/** Count the milliseconds in the large figure until the returned function is called. */
function count(card) {
  const began = performance.now();
  const figure = [...card.querySelectorAll(".figure")].find((each) => each.offsetParent);
  figure.classList.remove("untried");
  figure.querySelector(".what").textContent = "and the page has not answered";
  let frame = requestAnimationFrame(function show() {
    const elapsed = performance.now() - began;
    // A page that answers at once should not flicker.
    if (elapsed > 100) figure.querySelector(".digits").textContent = Math.round(elapsed).toLocaleString("en");
    frame = requestAnimationFrame(show);
  });
  return () => cancelAnimationFrame(frame);
}

document.addEventListener("submit", async (event) => {
  const { target: form, submitter } = event;
  const body = new FormData(form, submitter);
  if (form.dataset.wholePage === body.get("mode")) return;
  event.preventDefault();
  const card = form.closest(".card");
  if (card.ariaBusy === "true") return;
  const url = submitter?.getAttribute("formaction") ?? form.action;
  const stop = count(card);
  card.ariaBusy = "true";
  try {
    const answer = await fetch(url, { method: "POST", body });
    const html = await answer.text();
    if (answer.ok) {
      for (const part of card.querySelectorAll("[data-live]")) shown.delete(part.id);
      update(html);
      follow();
    } else {
      document.open();
      document.write(html);
      document.close();
    }
  } finally {
    stop();
    card.ariaBusy = "false";
  }
});

follow();
