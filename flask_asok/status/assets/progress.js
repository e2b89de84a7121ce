// <asok-progress src="/status/id">: asks each second, while it is seen, until the task is settled.
class AsokProgress extends HTMLElement {
  #timer; #tag; #over; #turn = 0; #errors = 0;

  connectedCallback() {
    this.#over = this.hasAttribute("over");
    document.addEventListener("visibilitychange", this);
    this.addEventListener("submit", this);
    this.#wait(1000);
  }

  disconnectedCallback() {
    document.removeEventListener("visibilitychange", this);
    clearTimeout(this.#timer);
  }

  async handleEvent(event) {
    if (event.type != "submit") return this.#wait(0);
    event.preventDefault();
    const form = event.target;
    form.querySelector("button").disabled = true;
    try {
      await this.#ask(form.action, { method: "POST", body: new FormData(form) });
    } catch {
      form.submit();
    }
  }

  #wait(ms) {
    clearTimeout(this.#timer);
    if (this.#over || document.hidden || !this.isConnected) return;
    this.#timer = setTimeout(() => this.#poll(), ms);
  }

  async #poll() {
    try {
      await this.#ask(this.getAttribute("src"));
      this.#errors = 0;
    } catch (error) {
      if (++this.#errors >= 5 && error.status == 404) this.#over = true;
    }
    this.#wait(Math.min(1000 * 2 ** this.#errors, 60000));
  }

  async #ask(url, post) {
    const turn = ++this.#turn, headers = { "HX-Request": "true" };
    if (this.#tag && !post) headers["If-None-Match"] = this.#tag;
    const signal = AbortSignal.timeout(10000);
    const answer = await fetch(url, { headers, cache: "no-store", redirect: "error", signal, ...post });
    if (answer.status == 304) return;
    if (!answer.ok) throw answer;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    // What was asked later is newer.
    if (turn != this.#turn) return;
    this.#show(page.querySelector("[data-asok-state]"));
    this.#tag = answer.headers.get("ETag");
    this.#over = answer.status == 286;
  }

  // Part by part: the focus stays where it is, and only what changed is read out.
  #show(next) {
    const now = this.querySelector("[data-asok-state]");
    const same = (from, part) => from.querySelector(`[data-asok=${part.dataset.asok}]`);
    now.dataset.asokState = next.dataset.asokState;
    now.querySelectorAll("[data-asok]").forEach((old) => same(next, old) || old.remove());
    for (const part of next.querySelectorAll("[data-asok]")) {
      const old = same(now, part);
      if (!old) now.append(part);
      else if (old.matches("form")) [...part].forEach((input, i) => (old[i].value = input.value));
      else if (!old.matches("progress")) old.textContent = part.textContent;
      else if (part.hasAttribute("value")) old.value = part.value;
      else old.removeAttribute("value");
    }
    const link = this.querySelector("[data-asok-link]");
    if (link) link.hidden = now.dataset.asokState != "succeeded";
  }
}

customElements.get("asok-progress") || customElements.define("asok-progress", AsokProgress);
