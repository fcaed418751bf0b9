/**
 * `<notifier-inbox>`: a bell with a count, and a panel with the notifications of one person.
 *
 * Attributes: api, token, token-url, lang, theme, inline, count, push, target, messages
 * Properties: getToken, messages, counts, connection, pushState
 * Methods:    show(), hide(), enablePush(), disablePush()
 * Events:     notifier-counts, notifier-entry, notifier-open (cancelable), notifier-connection
 *
 * Everything is made of elements and text, never of markup, and styled by a sheet of its own, so a page
 * with a strict Content-Security-Policy and Trusted Types can have it.
 */

import { claims, Failure } from "./api.js";
import { icon, make, safeUrl, set } from "./dom.js";
import styles from "./inbox.css";
import { List } from "./list.js";
import { Words } from "./messages.js";
import * as push from "./push.js";
import { join } from "./session.js";
import { backoff } from "./stream.js";

const FILTERS = ["all", "unread", "archived"];
const MARGIN = 8; // pixels between the panel and the edges of the window
const TICK_MS = 30_000;

let sheet;

export class NotifierInbox extends HTMLElement {
  static observedAttributes = ["api", "count", "inline", "lang", "messages", "push", "token", "token-url"];

  constructor() {
    super();
    this._build(this.attachShadow({ mode: "open" }));
  }

  // For the page.

  /** `async ({renew}) => token`; it is asked for a new one when the old one has expired. */
  get getToken() {
    return this._getToken ?? null;
  }

  set getToken(ask) {
    this._getToken = ask;
    if (!this._session) this._restart();
  }

  /** Texts in place of ours, see `messages.js` for their names. */
  get messages() {
    return this._messages ?? {};
  }

  set messages(own) {
    this._messages = own ?? {};
    this._speak();
  }

  /** `{total, unread, unseen}`, or null when they are not known yet. */
  get counts() {
    return this._session?.counts ?? null;
  }

  /** "connecting", "live", "offline" or "denied". */
  get connection() {
    return this._session?.connection ?? this._trouble ?? "connecting";
  }

  show() {
    if (!this._panel.matches(":popover-open") && this._panel.popover) this._panel.showPopover();
  }

  hide() {
    if (this._panel.popover) this._panel.hidePopover();
  }

  /** "unsupported", "denied", "off" or "on". */
  get pushState() {
    return this._pushState ?? "unsupported";
  }

  /**
   * Asks for permission, which browsers allow after a click, and registers this browser.
   * Returns the new `pushState`; throws when the browser or the server says no.
   */
  async enablePush(options) {
    try {
      await this._reach();
      await push.enable(this._session.api, this._worker(), this._scope(), options);
    } finally {
      await this._lookAtPush();
    }
    return this.pushState;
  }

  async disablePush() {
    await this._reach();
    await push.disable(this._session.api, this._worker());
    await this._lookAtPush();
    return this.pushState;
  }

  // For the browser.

  connectedCallback() {
    for (const name of ["getToken", "messages"]) {
      // Set before the element was defined, it hides the accessor.
      if (!Object.hasOwn(this, name)) continue;
      const value = this[name];
      delete this[name];
      this[name] = value;
    }
    if (!this._end) this._start();
    this._toggled();
  }

  disconnectedCallback() {
    // An element that is moved is connected again at once.
    queueMicrotask(() => this.isConnected || this._stop());
  }

  attributeChangedCallback(name, old, value) {
    if (old === value) return;
    if (name === "messages") {
      try {
        this.messages = JSON.parse(value);
      } catch {
        this.messages = {};
      }
    } else if (name === "lang") this._speak();
    else if (name === "inline") this._shape();
    else if (name === "push") this._lookAtPush();
    else if (name === "count") this.counted();
    else if (name === "token" && this._session && claims(value ?? "").sub === this._user) {
      this._session.renew(value);
    } else this._restart();
  }

  // Its life.

  _start() {
    this._end = new AbortController();
    const { signal } = this._end;
    for (const name of ["resize", "scroll"]) {
      addEventListener(name, () => this._open && this._place(), { signal, passive: true, capture: true });
    }
    addEventListener("online", () => this._session || this._again?.(), { signal });
    this._timer = setInterval(() => this._open && this._list.tick(), TICK_MS);
    this._shape();
    this._speak();
    this._connect(signal);
  }

  _stop() {
    this._end?.abort();
    this._end = null;
    clearInterval(this._timer);
    this._leave();
    this._list.clear();
  }

  _restart() {
    if (!this._end) return;
    this._stop();
    if (this.isConnected) this._start();
  }

  _leave() {
    this._session?.leave(this);
    this._session = null;
    this._render();
  }

  /** Joins the session of the person that the token is for; tries again for as long as there is none. */
  async _connect(signal) {
    for (let failures = 0; !signal.aborted; failures += 1) {
      try {
        const token = await this.askToken({ renew: failures > 0 });
        if (signal.aborted || token === undefined) return;
        this._user = claims(token).sub ?? token;
        this._trouble = undefined;
        this._session = join(this, this._base(), this._user, token);
        this.connected();
        this.counted();
        if (this._open) this._list.load();
        await this._lookAtPush();
        return;
      } catch (error) {
        if (signal.aborted) return;
        this._trouble = error.status === 401 || error.status === 403 ? "denied" : "offline";
        this.connected();
      }
      await new Promise((resolve) => {
        this._again = resolve;
        setTimeout(resolve, backoff(failures, 1_000));
      });
    }
  }

  /** Waits for a session; for methods that are called before there is one. */
  async _reach() {
    if (!this._session) throw new Error(`notifier-inbox is ${this.connection}: there is no token yet`);
  }

  _base() {
    const api = this.getAttribute("api");
    const base = api ? new URL(api, document.baseURI) : new URL("..", import.meta.url);
    return base.href.replace(/\/*$/, "/");
  }

  /** A token of the page, or undefined when it has not said yet where to get one. */
  async askToken(why) {
    if (this._getToken) return this._getToken(why);
    const url = this.getAttribute("token-url");
    if (!url) return this.getAttribute("token") ?? undefined;
    const answer = await fetch(url, { credentials: "same-origin", cache: "no-store" });
    if (!answer.ok) throw new Failure(answer.status, `token-url: status ${answer.status}`);
    const text = (await answer.text()).trim();
    return text.startsWith("{") ? JSON.parse(text).token : text;
  }

  // What the session says.

  counted() {
    const counts = this.counts;
    const n = counts?.[this.getAttribute("count") === "unseen" ? "unseen" : "unread"] ?? 0;
    this._badge.hidden = !n;
    this._badge.textContent = this._words.count(n);
    set(this._bell, "aria-label", n ? this._words.text("bell", { n }) : this._words.text("bellNone"));
    set(this._readAll, "aria-disabled", `${!counts?.unread}`);
    if (counts) this._emit("notifier-counts", { ...counts });
  }

  connected() {
    this._render();
    this._emit("notifier-connection", { connection: this.connection });
  }

  arrived(entry, isNew) {
    this._list.arrived(entry);
    if (!isNew) return;
    this._news = [...(this._news ?? []), entry];
    this._saying ??= setTimeout(() => {
      this._saying = null;
      this._say("arrived", { n: this._news.length, title: this._news[0].title });
      this._news = [];
    }, 300);
    this._emit("notifier-entry", { entry });
  }

  changed(entries) {
    this._list.changed(entries);
  }

  stale() {
    this._list.stale(this._open);
  }

  // What it looks like.

  _build(root) {
    this._words = new Words("en");
    sheet ??= new CSSStyleSheet();
    if (!sheet.cssRules.length) sheet.replaceSync(styles);
    root.adoptedStyleSheets = [sheet];
    const tool = (name, act, ...paths) => {
      const button = make("button", { type: "button", class: "tool", part: `tool ${name}` }, icon(...paths));
      button.addEventListener("click", act);
      return button;
    };
    this._badge = make("span", { class: "badge", part: "badge", "aria-hidden": "true", hidden: true });
    this._bell = make("button", {
      type: "button", class: "bell", part: "bell", "aria-haspopup": "dialog", "aria-expanded": "false",
      "aria-controls": "panel", popovertarget: "panel",
    }, icon("M6 8a6 6 0 0 1 12 0c0 7 3 8 3 9H3c0-1 3-2 3-9", "M10.3 20.5a2 2 0 0 0 3.4 0"), this._badge);
    this._title = make("h2", { id: "title", part: "title" });
    this._readAll = tool("read-all", () => this._markAllRead(), "M18 7 9.5 17 5 12.5", "m22 10-7.5 7.5L13 16");
    this._close = tool("close", () => this.hide(), "M18 6 6 18", "m6 6 12 12");
    this._filters = make("div", { class: "filters", part: "filters", role: "group" }, ...FILTERS.map((name) => {
      const button = make("button", { type: "button", part: "filter", "data-filter": name });
      button.addEventListener("click", () => this._filter(name));
      return button;
    }));
    this._notice = make("div", { class: "notice", part: "notice", role: "status", hidden: true });
    this._list = new List(this);
    this._footer = make("footer", { part: "footer", hidden: true });
    this._panel = make("div", {
      id: "panel", class: "panel", part: "panel", role: "dialog", "aria-labelledby": "title", tabindex: "-1",
      autofocus: true,
    }, make("header", { part: "header" }, this._title, this._readAll, this._close, this._filters),
    this._notice, this._list.element, this._footer);
    this._live = make("div", { class: "sr", role: "status" });
    root.append(this._bell, this._panel, this._live);
    this._panel.addEventListener("beforetoggle", ({ newState }) => {
      set(this._bell, "aria-expanded", `${newState === "open"}`);
      if (newState === "open") this._place();
      else if (this._panel.contains(this.shadowRoot.activeElement)) this._bell.focus();
    });
    this._panel.addEventListener("toggle", () => {
      if (this._open) this._place(); // only now is its width known
      this._toggled();
    });
    this._pressed();
  }

  /** A panel of its own, or one that pops up. */
  _shape() {
    const inline = this.hasAttribute("inline");
    this._bell.hidden = this._close.hidden = inline;
    set(this._panel, "popover", inline ? false : "auto");
    set(this._panel, "role", inline ? "region" : "dialog");
    set(this._panel, "autofocus", !inline);
    this._toggled();
  }

  get _open() {
    return this.hasAttribute("inline") || (this.isConnected && this._panel.matches(":popover-open"));
  }

  _toggled() {
    const open = this._open;
    set(this._bell, "aria-expanded", `${open}`);
    if (open && this._session) this._list.opened();
    this._list.watch(open);
  }

  /** Below the bell, or above it where there is more room; inside of the window. */
  _place() {
    if (this.hasAttribute("inline")) return;
    const bell = this._bell.getBoundingClientRect();
    const { clientWidth: width, clientHeight: height } = document.documentElement;
    const panelWidth = Math.min(parseFloat(getComputedStyle(this._panel).width) || 400, width - 2 * MARGIN);
    const toTheLeft = getComputedStyle(this).direction === "rtl" ? bell.left : bell.right - panelWidth;
    const x = Math.max(MARGIN, Math.min(toTheLeft, width - panelWidth - MARGIN));
    const below = height - bell.bottom - 2 * MARGIN;
    const above = bell.top - 2 * MARGIN;
    const up = below < 320 && above > below;
    const style = this._panel.style;
    style.setProperty("--_x", `${x}px`);
    style.setProperty("--_room", `${Math.max(up ? above : below, Math.min(320, height - 2 * MARGIN))}px`);
    style.setProperty("inset-block", up ? `auto ${height - bell.top + MARGIN}px` : `${Math.max(MARGIN, Math.min(bell.bottom + MARGIN, height - 320 - MARGIN))}px auto`);
  }

  _speak() {
    const language = this.closest("[lang]")?.lang || document.documentElement.lang || navigator.language;
    this._words = new Words(language, this.messages);
    const text = (key) => this._words.text(key);
    set(this.shadowRoot.querySelector(".panel"), "lang", this._words.lang);
    this._title.textContent = text("title");
    set(this._filters, "aria-label", text("show"));
    for (const button of this._filters.children) button.textContent = text(button.dataset.filter);
    for (const [button, key] of [[this._readAll, "markAllRead"], [this._close, "close"]]) {
      set(button, "aria-label", text(key));
      set(button, "title", text(key));
    }
    this._list.speak();
    this.counted();
    this._render();
  }

  _render() {
    const trouble = { offline: "offline", denied: "denied" }[this.connection];
    const text = trouble && this._words.text(trouble);
    if (text !== this._notice.dataset.text) {
      this._notice.dataset.text = text ?? "";
      this._notice.replaceChildren(...(text ? [make("span", {}, text), this._action("retry", () => this.retry())] : []));
    }
    this._notice.hidden = !text;
    this._list.render();
    this._renderPush();
  }

  _action(key, act) {
    const button = make("button", { type: "button", class: "action", part: "action" }, this._words.text(key));
    button.addEventListener("click", act);
    return button;
  }

  _say(key, values) {
    this._live.textContent = this._words.text(key, values);
  }

  _emit(type, detail, options) {
    return this.dispatchEvent(new CustomEvent(type, { bubbles: true, composed: true, detail, ...options }));
  }

  // What people do.

  retry() {
    if (this._session) this._session.retry();
    else this._again?.();
    this._list.retry();
  }

  _filter(name) {
    this._list.filter = name;
    this._pressed();
    if (this._session) this._list.load();
  }

  _pressed() {
    for (const button of this._filters.children) {
      set(button, "aria-pressed", `${button.dataset.filter === this._list.filter}`);
    }
  }

  _markAllRead() {
    if (!this.counts?.unread) return;
    this._session.markAllRead();
    this._say("readAll");
  }

  /** A click on an entry. Returns whether the browser should follow the link. */
  opened(entry) {
    this._session?.mark([entry], "read");
    return this._emit("notifier-open", { entry, url: safeUrl(entry.url) }, { cancelable: true });
  }

  // Push.

  _worker() {
    return this.getAttribute("push") || "/notifier-push-worker.js";
  }

  _scope() {
    return { api: this._base(), tokenUrl: this.getAttribute("token-url") };
  }

  async _lookAtPush() {
    const state = await push.state(this._worker());
    this._pushState = state;
    this._renderPush();
    if (state === "on" && this._session && this.hasAttribute("push")) {
      await push.refresh(this._session.api, this._worker()).catch(() => {});
    }
  }

  _renderPush() {
    const wanted = this.hasAttribute("push") && this._session && this.pushState !== "unsupported";
    this._footer.hidden = !wanted;
    if (!wanted) return;
    const act = (key, work) =>
      this._action(key, async ({ target }) => {
        target.disabled = true;
        await work().catch(() => this._footer.replaceChildren(this._words.text("pushFailed")));
      });
    this._footer.replaceChildren(
      this.pushState === "denied" ? this._words.text("pushDenied")
        : this.pushState === "on" ? act("pushDisable", () => this.disablePush())
          : act("pushEnable", () => this.enablePush()),
    );
  }
}

// An old browser would show a panel that does not close; an element that it does not know shows nothing.
const able = HTMLElement.prototype.showPopover && AbortSignal.any && CSS.supports("color", "light-dark(red, red)");
if (able && !customElements.get("notifier-inbox")) customElements.define("notifier-inbox", NotifierInbox);
