/** The notifications in the panel: pages as one scrolls, seen when shown, keyboard, and what else there is to say. */

import { icon, make, safeUrl, set } from "./dom.js";

const PAGE_SIZE = 30;
const RELOAD_SIZE = 100;
const SEEN_MS = 400;
const READ = ["M20 6 9 17l-5-5"];
const UNREAD = ["M12 12m-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0"];
const ARCHIVE = ["M3 5h18v4H3z", "M5 9v10h14V9", "M10 13h4"];
const UNARCHIVE = ["M3 5h18v4H3z", "M5 9v10h14V9", "M12 17v-5", "m9.5 14 2.5-2.5 2.5 2.5"];
const BELL_OFF = ["M6 8a6 6 0 0 1 12 0c0 7 3 8 3 9H3c0-1 3-2 3-9", "M10.3 20.5a2 2 0 0 0 3.4 0"];

const newer = (a, b) => (a.created_at === b.created_at ? a.id > b.id : a.created_at > b.created_at);

export class List {
  /** `inbox` is the element that it belongs to, with `_session`, `_words`, `opened(entry)`. */
  constructor(inbox) {
    this._inbox = inbox;
    this.filter = "all";
    this._rows = new Map(); // id -> row, in the order of the document
    this._ul = make("ul", { role: "list", part: "list" });
    this._state = make("div", { part: "state" });
    this._end = make("div", { class: "end" });
    this._hint = make("p", { class: "sr", id: "hint" });
    this.element = make("div", { class: "scroll", part: "scroll" }, this._hint, this._ul, this._state, this._end);
    this._ul.addEventListener("keydown", (event) => this._key(event));
    this._ul.addEventListener("focusin", ({ target }) => this._current(target.closest("li")));
    this.clear();
  }

  clear() {
    this._rows.clear();
    this._ul.replaceChildren();
    this._after = undefined;
    this._loaded = this._failed = this._stale = false;
    this._loading = null;
    this._seeing?.disconnect();
    this._ending?.disconnect();
    this._seeing = this._ending = null;
    clearTimeout(this._seenTimer);
    this._seen = [];
    this._news = [];
  }

  // Loading.

  /** From the beginning; of what is there already, as much as was there. */
  async load(keep = 0) {
    const session = this._inbox._session;
    const loading = (this._loading = Symbol("load"));
    const current = () => this._loading === loading && session === this._inbox._session;
    if (!keep) {
      this._rows.clear();
      this._ul.replaceChildren();
      this._loaded = false;
    }
    this._failed = this._stale = false;
    const news = (this._news = []); // what comes meanwhile may be missing in the pages
    this.render();
    try {
      const entries = [];
      let after;
      do {
        const page = await session.load(this.filter, after, keep ? RELOAD_SIZE : PAGE_SIZE);
        if (!current()) return;
        entries.push(...page.entries);
        after = page.after;
      } while (after && entries.length < keep);
      this._after = after;
      this._loaded = true;
      this._show([...new Set([...entries, ...news.filter((entry) => this._fits(entry))])]);
    } catch {
      if (!current()) return;
      this._failed = true;
      this._stale = true;
    }
    this._loading = null;
    this.render();
    if (this._stale && !this._failed) this.stale(this._inbox._open); // it became so meanwhile
  }

  async _more() {
    const session = this._inbox._session;
    if (this._loading || !this._after || this._failed) return;
    const loading = (this._loading = Symbol("more"));
    this.render();
    let page;
    try {
      page = await session.load(this.filter, this._after, PAGE_SIZE);
    } catch {
      page = null;
    }
    if (this._loading !== loading) return;
    this._loading = null;
    this._failed = !page;
    if (page) {
      this._after = page.after;
      for (const entry of page.entries) if (!this._rows.has(entry.id)) this._insert(entry);
    }
    this.render();
  }

  retry() {
    if (!this._failed) return;
    this._failed = false;
    if (this._stale || !this._loaded) this.load(this._rows.size);
    else this._more();
  }

  /** The panel is shown. */
  opened() {
    if (!this._loaded && !this._loading) this.load();
    else if (this._stale) this.load(this._rows.size);
    this.tick();
  }

  /** What is shown may no longer be what there is. */
  stale(open) {
    this._stale = true;
    if (!open || !this._loaded) return;
    clearTimeout(this._staleTimer);
    this._staleTimer = setTimeout(() => this._inbox._session && this.load(Math.max(1, this._rows.size)), 200);
  }

  /** Looks at what is in sight, for as long as the panel is. */
  watch(open) {
    this._seeing?.disconnect();
    this._ending?.disconnect();
    this._seeing = this._ending = null;
    if (!open) return;
    const root = this.element;
    this._seeing = new IntersectionObserver((shown) => this._saw(shown), { root, threshold: 0.6 });
    this._ending = new IntersectionObserver(
      ([{ isIntersecting }]) => isIntersecting && this._more(), { root, rootMargin: "600px" },
    );
    for (const row of this._rows.values()) this._see(row);
    this._ending.observe(this._end);
  }

  _see(row) {
    if (!row.entry.seen_at) this._seeing?.observe(row.li);
  }

  _saw(shown) {
    for (const { isIntersecting, target } of shown) {
      const row = this._rows.get(target.dataset.id);
      if (!isIntersecting || !row || document.hidden) continue;
      this._seeing?.unobserve(target);
      this._seen.push(row.entry);
    }
    if (!this._seen.length) return;
    clearTimeout(this._seenTimer);
    this._seenTimer = setTimeout(() => {
      this._inbox._session?.mark(this._seen, "seen");
      this._seen = [];
    }, SEEN_MS);
  }

  // What the session says.

  arrived(entry) {
    if (this._loading) this._news.push(entry);
    const row = this._rows.get(entry.id);
    if (row) this._fill(row);
    else if (this._loaded && this._fits(entry)) this._insert(entry);
    else return;
    this.render();
  }

  changed(entries) {
    if (this._loading) this._news.push(...entries);
    for (const entry of entries) {
      const row = this._rows.get(entry.id);
      // What has been read stays among the unread, where it was, until the list is loaded again.
      if (row && Boolean(entry.archived_at) !== (this.filter === "archived")) this._remove(row);
      else if (row) this._fill(row);
      else if (this._loaded && this._fits(entry)) this._insert(entry);
    }
    this.render();
  }

  _fits(entry) {
    if (Boolean(entry.archived_at) !== (this.filter === "archived")) return false;
    if (this.filter === "unread" && entry.read_at) return false;
    // Older than all that has been loaded: it comes with its page.
    const last = [...this._rows.values()].at(-1)?.entry;
    return !this._after || !last || newer(entry, last);
  }

  // Rows.

  _show(entries) {
    const ids = new Set(entries.map(({ id }) => id));
    for (const [id, row] of this._rows) if (!ids.has(id)) this._remove(row);
    for (const entry of entries) {
      const row = this._rows.get(entry.id);
      if (row) this._fill(row);
      else this._insert(entry);
    }
  }

  _insert(entry) {
    const row = this._row(entry);
    const rows = [...this._rows.values()];
    let at = rows.length;
    while (at && newer(entry, rows[at - 1].entry)) at -= 1;
    if (at === rows.length) {
      this._rows.set(entry.id, row);
      this._ul.append(row.li);
    } else {
      this._ul.insertBefore(row.li, rows[at].li);
      rows.splice(at, 0, row);
      this._rows = new Map(rows.map((one) => [one.entry.id, one]));
    }
    this._see(row);
    if (!this._now?.isConnected) this._current(this._ul.firstElementChild);
  }

  _remove({ li, entry }) {
    const focused = li.contains(this._inbox.shadowRoot.activeElement);
    const next = li.nextElementSibling ?? li.previousElementSibling;
    this._rows.delete(entry.id);
    this._seeing?.unobserve(li);
    li.remove();
    if (this._now === li) this._current(next);
    if (!focused) return;
    if (next) next.querySelector(".open").focus();
    else this._inbox._panel.focus();
  }

  _row(entry) {
    const row = { entry, li: make("li", { part: "entry", "data-id": entry.id }) };
    const tool = (name, act) => {
      const button = make("button", { type: "button", class: "tool", part: `tool ${name}`, tabindex: "-1" });
      button.addEventListener("click", () => act(row.entry));
      return button;
    };
    const mark = (field, on, off) => (one) => this._inbox._session?.mark([one], one[field] ? off : on);
    const href = safeUrl(entry.url);
    row.sr = make("span", { class: "sr" });
    row.title = make("span", { part: "entry-title", dir: "auto" });
    const target = this._inbox.getAttribute("target") ?? undefined;
    row.open = href
      ? make("a", { class: "open", href, target, rel: "noopener", tabindex: "-1" }, row.sr, row.title)
      : make("button", { class: "open", type: "button", tabindex: "-1" }, row.sr, row.title);
    row.open.addEventListener("click", (event) => {
      if (!this._inbox.opened(row.entry)) event.preventDefault();
      if (!href) row.body.classList.toggle("cut");
    });
    row.open.addEventListener("auxclick", ({ button }) => button === 1 && this._inbox.opened(row.entry));
    row.body = make("p", { class: "body cut", part: "entry-body", dir: "auto" });
    row.time = make("time", { part: "entry-time" });
    row.dot = make("span", { class: "dot", part: "entry-dot" });
    row.read = tool("mark", mark("read_at", "read", "unread"));
    row.archive = tool("archive", (one) => this._archive(one));
    row.li.append(
      avatar(entry), make("div", { class: "text" }, row.open, row.body, row.time), row.dot,
      make("div", { class: "actions", part: "entry-actions" }, row.read, row.archive),
    );
    this._fill(row);
    return row;
  }

  _fill(row) {
    const { entry, li } = row;
    const { _words: words } = this._inbox;
    const unread = !entry.read_at;
    const at = new Date(entry.created_at);
    const state = [words.lang, unread, Boolean(entry.archived_at), entry.title, entry.body].join("\n");
    row.time.textContent = words.ago(at);
    if (state === row.state) return;
    row.state = state;
    li.classList.toggle("unread", unread);
    set(li, "part", unread ? "entry entry-unread" : "entry");
    row.dot.hidden = !unread;
    row.sr.textContent = unread ? `${words.text("isUnread")} ` : "";
    row.title.textContent = entry.title;
    row.body.textContent = entry.body;
    row.body.hidden = !entry.body;
    set(row.time, "datetime", entry.created_at);
    set(row.time, "title", words.exact(at));
    set(row.open, "aria-describedby", "hint");
    label(row.read, words.text(unread ? "markRead" : "markUnread"), unread ? READ : UNREAD);
    const archived = Boolean(entry.archived_at);
    label(row.archive, words.text(archived ? "unarchive" : "archive"), archived ? UNARCHIVE : ARCHIVE);
  }

  _archive(entry) {
    const archived = Boolean(entry.archived_at);
    this._inbox._session?.mark([entry], archived ? "unarchived" : "archived");
    if (!archived) this._inbox._say("wasArchived", { title: entry.title });
  }

  tick() {
    for (const row of this._rows.values()) row.time.textContent = this._inbox._words.ago(new Date(row.entry.created_at));
  }

  speak() {
    this._hint.textContent = this._inbox._words.text("hint");
    for (const row of this._rows.values()) this._fill(row);
  }

  // One entry is in the order of the Tab key, the others are reached by arrows.

  _current(li) {
    if (!li || li === this._now) return;
    for (const [row, index] of [[this._now, "-1"], [li, "0"]]) {
      for (const control of row?.querySelectorAll("a, button") ?? []) set(control, "tabindex", index);
    }
    this._now = li;
  }

  _key(event) {
    const li = event.target.closest("li");
    if (!li || event.altKey || event.ctrlKey || event.metaKey) return;
    const to = {
      ArrowDown: li.nextElementSibling,
      ArrowUp: li.previousElementSibling,
      Home: this._ul.firstElementChild,
      End: this._ul.lastElementChild,
    }[event.key];
    if (to) to.querySelector(".open").focus();
    else if (event.key === "Delete" && this.filter !== "archived") this._archive(this._rows.get(li.dataset.id).entry);
    else if (!/^(Arrow(Up|Down)|Home|End)$/.test(event.key)) return;
    event.preventDefault();
  }

  // What is shown where there are no rows, or after them.

  render() {
    const { _words: words, connection } = this._inbox;
    const empty = !this._rows.size;
    const state = this._failed ? "error"
      : this._loading || (!this._loaded && connection === "connecting") || this._after ? "loading"
        : empty && this._loaded ? "empty" : "";
    const key = [state, words.lang, this.filter, empty].join();
    set(this.element, "aria-busy", `${Boolean(this._loading)}`);
    if (key !== this._shown) {
      this._shown = key;
      this._state.replaceChildren(...this._saying(state, empty));
    }
    if (this._ending && this._after && !this._loading && !this._failed) {
      // It says something only when it comes into sight, and it may be there still.
      this._ending.unobserve(this._end);
      this._ending.observe(this._end);
    }
  }

  _saying(state, alone) {
    const { _words: words } = this._inbox;
    if (state === "loading") {
      const bones = () => make("div", { class: "bones", "aria-hidden": "true" }, make("i"), make("b"));
      return [make("span", { class: "sr" }, words.text("loading")), ...(alone ? [1, 2, 3, 4] : [1]).map(bones)];
    }
    if (state === "error") {
      const again = this._inbox._action("retry", () => this._inbox.retry());
      return [make("div", { class: "state", role: "alert" }, words.text("error"), again)];
    }
    if (state !== "empty") return [];
    const key = { all: "empty", unread: "emptyUnread", archived: "emptyArchived" }[this.filter];
    const more = this.filter === "all" ? [make("span", {}, words.text("emptyMore"))] : [];
    return [make("div", { class: "state" }, icon(...BELL_OFF), make("strong", {}, words.text(key)), ...more)];
  }
}

function label(button, text, paths) {
  set(button, "aria-label", text);
  set(button, "title", text);
  button.replaceChildren(icon(...paths));
}

/** The picture of who did it, or their initials; a bell when nobody did. */
function avatar({ actor }) {
  const name = actor?.name?.trim() ?? "";
  const words = name.split(/\s+/);
  const initials = [words[0], words.length > 1 ? words.at(-1) : ""].map((word) => [...word][0] ?? "").join("");
  const circle = make("span", { class: "avatar", part: "avatar", "aria-hidden": "true" });
  const letters = () => circle.replaceChildren(initials ? initials.toUpperCase() : icon(...BELL_OFF));
  const src = safeUrl(actor?.image);
  if (!src) letters();
  else {
    const image = make("img", { src, alt: "", loading: "lazy", referrerpolicy: "no-referrer" });
    image.addEventListener("error", letters);
    circle.append(image);
  }
  return circle;
}
