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

import { userOf } from "./api.js";
import { connect } from "./connect.js";
import { on } from "./dom.js";
import styles from "./inbox.css";
import { disablePush, enablePush } from "./push.js";
import { createView } from "./view.js";

const sheet = new CSSStyleSheet();

class NotifierInbox extends HTMLElement {
  static observedAttributes = ["api", "count", "inline", "lang", "messages", "push", "token", "token-url"];

  /** `{total, unread, unseen}`, or null when they are not known yet. */
  counts = null;

  /** "connecting", "live", "offline" or "denied". */
  connection = "connecting";

  /** "unsupported", "denied", "off" or "on". */
  pushState = "unsupported";

  /** `async ({renew}) => token`; it is asked for a new one when the old one has expired. */
  getToken = this.getToken;

  constructor() {
    super();
    this.attachShadow({ mode: "open" }).adoptedStyleSheets = [sheet];
  }

  /** Texts in place of ours, see `messages.js` for their names. */
  get messages() {
    return this._messages;
  }

  set messages(own) {
    this._messages = own;
    this._render?.();
  }

  show() {
    if (!this._isOpen()) this._panel.showPopover();
  }

  hide() {
    if (this._panel.popover) this._panel.hidePopover();
  }

  /**
   * Asks for permission, which browsers allow after a click, and registers this browser.
   * Returns the new `pushState`; throws when the browser or the server says no.
   */
  enablePush() {
    return this._push(enablePush);
  }

  disablePush() {
    return this._push(disablePush);
  }

  connectedCallback() {
    // Set before the element was defined, it hides the accessor.
    const { messages } = this;
    delete this.messages;
    this.messages = messages;
    if (!this._end) this._start();
  }

  disconnectedCallback() {
    // An element that is moved is connected again at once.
    queueMicrotask(() => this.isConnected || this._stop());
  }

  attributeChangedCallback(name, old, value) {
    if (old === value) return;
    if (name === "messages") this.messages = JSON.parse(value);
    else if (name === "token" && userOf(value) === this._user) this._retry(); // it is asked for when it is needed
    else if (/api|inline|token/.test(name)) this._restart();
    else this._render?.();
  }

  _start() {
    this._end = new AbortController();
    const { signal } = this._end;
    createView(this, signal);
    connect(this, signal);
    // A page that holds locks and channels can't be kept for the Back button.
    on(window, "pagehide", () => {
      this._stop();
      addEventListener("pageshow", () => this.connectedCallback(), { once: true });
    }, signal);
  }

  _stop() {
    this._end?.abort();
    this._end = this._session = this._user = this._render = this.counts = null;
  }

  _restart() {
    if (!this._end) return;
    this._stop();
    this._start();
  }
}

// An old browser would show a panel that does not close; an element that it does not know shows nothing. Two
// parts of a page may bring the script along.
if (CSS.supports("(color:light-dark(red,red)) and selector(:popover-open)") && !customElements.get("notifier-inbox")) {
  sheet.replaceSync(styles);
  customElements.define("notifier-inbox", NotifierInbox);
}
