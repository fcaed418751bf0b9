/** What is seen of an inbox: bell, panel, and what they say. */

import { batched, every, fill, h, icon, on, spoken } from "./dom.js";
import { BELL, ICONS } from "./icons.js";
import { createList } from "./list.js";
import { createWords } from "./messages.js";

const ROOM = 320; // pixels; with less below the bell, the panel may open above it

/** Fills the shadow root of the element `inbox`, and listens until `signal` ends it. */
export function createView(inbox, signal) {
  let language;

  const inline = inbox.hasAttribute("inline");
  const text = (key, values) => inbox._text(key, values);
  const say = (key, values) => (live.textContent = text(key, values));
  const announce = batched(300, (news) => say("arrived", { n: news.length, title: news[0].title }));

  Object.assign(inbox, {
    _trouble: () => (/offline|denied/.test(inbox.connection) ? inbox.connection : list._failed() && "error"),
    _isOpen: () => inline || panel.matches(":popover-open"),
    _tool: (name, onclick) => h("button", `tool ${name}`, { onclick }, icon("")),
    _action: (key, onclick) => h("button", "action", { onclick }, text(key)),

    _label(tool, key) {
      if (tool.title === text(key)) return;
      tool.title = tool.ariaLabel = text(key);
      tool.querySelector("path").setAttribute("d", ICONS[key]);
    },

    _emit(type, detail, cancelable) {
      render();
      return inbox.dispatchEvent(new CustomEvent(`notifier-${type}`, { bubbles: true, composed: true, cancelable, detail }));
    },

    _arrived(entry) {
      announce(entry);
      inbox._emit("entry", { entry });
    },

    _archive(entry) {
      const archived = entry.archived_at;
      inbox._session._mark([entry], archived ? "unarchived" : "archived");
      if (!archived) say("wasArchived", entry);
    },

    _render: render,
  });

  const badge = h("span", "badge", { ariaHidden: true });
  const bell = h("button", "bell", { ariaExpanded: false }, icon(BELL), badge);
  const title = h("h2", "title");
  const readAll = inbox._tool("read-all", () => {
    if (!inbox.counts?.unread) return;
    inbox._session._markAllRead();
    say("readAll");
  });
  const close = inbox._tool("close", () => inbox.hide());
  const list = (inbox._list = createList(inbox));
  const filters = h("div", "filters", { role: "group" }, ...["all", "unread", "archived"].map((value) =>
    h("button", "filter", { value, onclick: () => inbox._session && list._show(value) })));
  const notice = h("div", "notice", { role: "status" });
  const footer = h("div", "footer");
  const panel = (inbox._panel = h("div", "panel", {
    popover: inline ? null : "auto", role: inline ? "region" : "dialog", autofocus: !inline, tabIndex: -1,
  }, h("div", "header", {}, title, readAll, close, filters), notice, list._element, footer));
  const live = spoken("", "status");
  bell.popoverTargetElement = panel;
  bell.hidden = close.hidden = inline;
  inbox.shadowRoot.replaceChildren(bell, panel, live);

  on(panel, "beforetoggle", ({ newState }) => {
    bell.ariaExpanded = newState === "open";
    place();
    if (inbox.shadowRoot.activeElement) bell.focus(); // when it closes, the focus must not be lost
  });
  on(panel, "toggle", render);
  const follow = () => inbox._isOpen() && place();
  on(window, "resize", follow, signal);
  on(window, "scroll", follow, signal, true);
  every(30_000, list._tick, signal);
  render();

  /** Below the bell, or above it where there is more room; over it where there is none. */
  function place() {
    const { left, right, top, bottom } = bell.getBoundingClientRect();
    const { clientWidth, clientHeight } = document.documentElement;
    const below = clientHeight - bottom;
    const up = below < ROOM && top > below;
    const x = panel.matches(":dir(rtl)") ? left : clientWidth - right;
    const y = Math.max(0, Math.min(up ? clientHeight - top : bottom, clientHeight - ROOM)) + 8;
    panel.style.cssText = `--x:${x}px;--y:${y}px;${up ? "bottom" : "top"}:${y}px`;
  }

  /** Everything that may have changed, from the attributes, the session and the list. */
  function render() {
    const { messages, counts } = inbox;
    const lang = (inbox.closest("[lang]") ?? document.documentElement).lang || navigator.language;
    const speaking = lang + JSON.stringify(messages);
    if (language !== speaking) {
      language = speaking;
      Object.assign(inbox, createWords(lang, messages));
      panel.lang = inbox._lang;
      panel.ariaLabel = title.textContent = text("title");
      filters.ariaLabel = text("show");
      inbox._label(readAll, "markAllRead");
      inbox._label(close, "close");
      list._redraw();
    }
    const n = counts?.[inbox.getAttribute("count") || "unread"];
    bell.ariaLabel = text(n ? "bell" : "title", { n });
    badge.hidden = !n;
    badge.textContent = inbox._number(n ?? 0);
    readAll.ariaDisabled = !counts?.unread;
    for (const filter of filters.children) {
      filter.textContent = text(filter.value);
      filter.ariaPressed = filter.value === list._filter();
    }
    const trouble = inbox._trouble();
    fill(notice, trouble && trouble + language, () => [text(trouble), inbox._action("retry", inbox._retry)]);
    const offers = { denied: "pushDenied", on: "disablePush", off: "enablePush" };
    const push = inbox._session && inbox.hasAttribute("push") && offers[inbox.pushState];
    fill(footer, push && push + language, () => [
      push === "pushDenied" ? text(push)
        : inbox._action(push, () => inbox[push]().catch(() => footer.replaceChildren(text("pushFailed")))),
    ]);
    list._render();
  }
}
