/** The notifications in the panel: pages as one scrolls, seen when shown, keyboard, and what else there is to say. */

import { batched, fill, h, icon, isModified, on, spoken } from "./dom.js";
import { BELL } from "./icons.js";
import { createRow, reachable } from "./row.js";

const QUERIES = { all: "", unread: "&status=unread", archived: "&archived=only" };

const rank = ({ created_at: at, id }) => at + id;

/** `inbox` is the element that it belongs to. */
export function createList(inbox) {
  const rows = new Map(); // by id
  let ids = new Set(); // what belongs into the list
  let told = new Set(); // what the session told since a load began: a page may be older
  let filter = "all";
  let stale = true; // what is shown may not be what there is
  let after; // the cursor of the next page
  let loaded, failed, running, current;

  const entryOf = (id) => inbox._session._entries.get(id);
  const ul = h("ul", "list", { role: "list", onkeydown: move });
  const state = h("div", "state", { role: "status" });
  const element = h("div", "scroll", {}, ul, state);
  // In 200 ms fewer come into sight than the API marks at a time, which is 100.
  const see = batched(200, (seen) => element.isConnected && inbox._session?._mark(seen, "seen"));
  const seeing = new IntersectionObserver((shown) => {
    for (const { isIntersecting, target } of shown) {
      if (!isIntersecting) continue;
      seeing.unobserve(target);
      see(target._entry);
    }
  }, { root: element, threshold: 0.5 });
  // The next page is loaded before its place comes into sight.
  const ending = new IntersectionObserver(([{ isIntersecting }]) => {
    if (isIntersecting && after && !running) load(true);
  }, { root: element, rootMargin: "600px" });
  on(ul, "focusin", ({ target }) => reach(target.closest("li")));

  /** The next page; or from the beginning, as much as is there. */
  async function load(next) {
    const run = (running = {});
    const session = inbox._session;
    const isOver = () => run !== running || inbox._session !== session; // another load, another person, or none
    const had = next ? 0 : ids.size;
    const found = next ? [...ids] : [];
    let cursor = next && after;
    told = new Set();
    failed = stale = false;
    inbox._render();
    try {
      do {
        const from = cursor ? `&after=${cursor}` : "";
        const page = await session._counted(session._api._get(`?page_size=30${QUERIES[filter]}${from}`));
        if (isOver()) return;
        for (const entry of page.entries) {
          if (!told.has(entry.id)) session._keep(entry);
          found.push(entry.id);
        }
        cursor = page.page_info.after;
      } while (cursor && found.length < had);
      after = cursor;
      loaded = true;
      ids = new Set(found);
    } catch {
      if (isOver()) return;
      failed = stale = true;
    }
    running = null;
    // It says something only when it comes into sight, and it may be there still.
    ending.unobserve(state);
    ending.observe(state);
    draw();
    if (!next) list._tick();
    list._changed([...told].map(entryOf));
  }

  /** Loads what is missing for who is looking. */
  function refresh() {
    if (stale && !running && !failed && inbox._session && inbox._isOpen()) load();
  }

  function remove(id, { _li: li }) {
    const next = li.nextSibling ?? li.previousSibling;
    const focused = li.contains(inbox.shadowRoot.activeElement);
    rows.delete(id);
    li.remove();
    if (focused) (next?.querySelector(".open") ?? inbox._panel).focus();
  }

  /** One entry is in the order of the Tab key, the others are reached by arrows. */
  function reach(li) {
    reachable(current, -1);
    reachable(li, 0);
    current = li;
  }

  function move(event) {
    const { key } = event;
    const li = event.target.closest("li");
    const to = { ArrowDown: li.nextSibling, ArrowUp: li.previousSibling, Home: ul.firstChild, End: ul.lastChild };
    if (isModified(event)) return;
    if (key in to) to[key]?.querySelector(".open").focus();
    else if (key === "Delete" && !li._entry.archived_at) inbox._archive(li._entry);
    else return;
    event.preventDefault();
  }

  /** What is said where there are no rows, or after them. */
  function renderState() {
    const { _text: text, _lang: lang } = inbox;
    const empty = filter === "archived" ? "emptyArchived" : "empty";
    const kind = running || after || !loaded ? "loading" : !rows.size && empty;
    fill(state, !inbox._trouble() && kind && kind + lang, () => (kind === "loading"
      ? [spoken(text(kind)), h("div", "bones")]
      : [h("p", "", {}, icon(BELL), text(kind))]));
  }

  const list = {
    _element: element,
    _filter: () => filter,
    _failed: () => failed,

    _show(wanted) {
      filter = wanted;
      ids = new Set();
      loaded = false;
      draw();
      load();
    },

    _stale() {
      stale = true;
      refresh();
    },

    _retry() {
      if (failed) load();
    },

    /** What has been read stays among the unread, where it was, until the list is loaded again. */
    _changed(entries) {
      let moved;
      for (const entry of entries) {
        const { id } = entry;
        told.add(id);
        if (!entry.archived_at === (filter === "archived")) moved = ids.delete(id) || moved;
        else if (loaded && !(entry.read_at && filter === "unread") && !ids.has(id)) moved = ids.add(id);
        rows.get(id)?._update();
      }
      if (moved) draw();
      inbox._render();
    },

    /** Time passes. */
    _tick: () => rows.forEach((row) => row._update()),

    _render() {
      renderState();
      refresh();
    },

    /** All rows are made anew, in another language. */
    _redraw() {
      rows.clear();
      ul.replaceChildren();
      draw();
    },
  };
  return list;

  /** Rows for what belongs into the list, newest first. None is moved, which would cost it the focus. */
  function draw() {
    for (const [id, row] of rows) if (!ids.has(id)) remove(id, row);
    let next = ul.firstChild;
    for (const entry of [...ids].map(entryOf).sort((a, b) => (rank(a) < rank(b) ? 1 : -1))) {
      let row = rows.get(entry.id);
      if (!row) {
        rows.set(entry.id, (row = createRow(inbox, entry)));
        seeing.observe(row._li);
      }
      if (row._li === next) next = next.nextSibling;
      else ul.insertBefore(row._li, next);
    }
    if (!current?.isConnected) reach(ul.firstChild);
  }
}
