/** One notification in the list. */

import { h, icon, isModified, safeUrl, spoken } from "./dom.js";
import { BELL } from "./icons.js";

/** Whether the Tab key stops in an element of the list. */
export const reachable = (li, tabIndex) =>
  li?.querySelectorAll("a,button").forEach((control) => (control.tabIndex = tabIndex));

/** `{_li, _update()}`. The element has the entry as `_entry`. */
export function createRow(inbox, entry) {
  const { _text: text, _ago: ago, _lang: lang } = inbox;
  const at = new Date(entry.created_at);
  const href = safeUrl(entry.url);
  const dir = "auto";
  const state = spoken(`${text("isUnread")} `);
  const title = h("span", "entry-title", { dir }, entry.title);
  // A text of the other direction begins where the panel's do: only what is inside has it.
  const body = h("p", "entry-body cut", {}, h("span", "", { dir }, entry.body));
  const time = h("time", "entry-time", { dateTime: entry.created_at, title: at.toLocaleString(lang) });
  const open = h(href ? "a" : "button", "open", {
    ariaDescription: text("hint"),
    onclick(event) {
      inbox._session._mark([entry], "read");
      // What opens a tab of its own is between the reader and the browser.
      if (href && isModified(event)) return;
      if (!inbox._emit("open", { entry, url: href ?? null }, true)) event.preventDefault();
      if (!href) body.classList.toggle("cut");
    },
    ...(href && { href, target: inbox.getAttribute("target") ?? "", rel: "noopener" }),
  }, state, title);
  const mark = inbox._tool("mark", () => inbox._session._mark([entry], entry.read_at ? "unread" : "read"));
  const archive = inbox._tool("archive", () => inbox._archive(entry));
  const li = h("li", "", { _entry: entry }, avatar(entry.actor), h("div", "text", {}, open, body, time),
    h("i", "entry-dot"), h("div", "entry-actions", {}, mark, archive));

  function update() {
    const said = ago(at);
    if (time.textContent !== said) time.textContent = said;
    li.className = li.part = entry.read_at ? "entry" : "entry entry-unread";
    state.hidden = entry.read_at;
    inbox._label(mark, entry.read_at ? "markUnread" : "markRead");
    inbox._label(archive, entry.archived_at ? "unarchive" : "archive");
  }

  reachable(li, -1);
  update();
  return { _li: li, _update: update };
}

/** The picture of who did it, or their initials; a bell when nobody did. */
function avatar(actor) {
  const initials = (actor?.name?.match(/(?<!\S)\S/gu) ?? []).slice(0, 2).join("").toUpperCase();
  const circle = h("span", "avatar", { ariaHidden: true });
  const letters = () => circle.replaceChildren(initials || icon(BELL));
  const src = safeUrl(actor?.image);
  if (src) circle.append(h("img", "", { loading: "lazy", referrerPolicy: "no-referrer", onerror: letters, src }));
  else letters();
  return circle;
}
