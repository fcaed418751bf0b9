/** From a token to the session of the person that it is for, and to Web Push. */

import { ask, createApi, troubleOf, userOf } from "./api.js";
import { on } from "./dom.js";
import { absolute, pushState } from "./push.js";
import { openSession } from "./session.js";
import { pause } from "./stream.js";

/** Connects the element `inbox` until `signal` ends it; tries again for as long as there is no session. */
export async function connect(inbox, signal) {
  let token;
  const attribute = (name) => inbox.getAttribute(name);

  /** A token of the page, or null when it has not said yet where to get one. */
  async function askToken(renew) {
    const url = attribute("token-url");
    if (inbox.getToken) return (await inbox.getToken({ renew })) ?? "";
    if (!url) return attribute("token");
    const said = await (await ask(url, { cache: "no-store" })).text();
    return said[0] === "{" ? JSON.parse(said).token : said;
  }

  async function lookAtPush() {
    inbox.pushState = await pushState(attribute("push") && inbox._session._api, worker());
    inbox._render?.();
  }

  const worker = () => attribute("push") || "/notifier-push-worker.js";

  Object.assign(inbox, {
    /** Says what has become of the connection. */
    _connect(connection) {
      if (inbox.connection === connection) return;
      inbox.connection = connection;
      inbox._emit("connection", { connection });
    },

    _retry() {
      inbox._session?._retry();
      inbox._list._retry();
      inbox._wake?.();
    },

    async _push(act) {
      try {
        await act(inbox._session._api, worker(), attribute("token-url"));
      } finally {
        await lookAtPush();
      }
      return inbox.pushState;
    },
  });
  on(window, "online", inbox._retry, signal);
  on(document, "visibilitychange", () => document.hidden || inbox._retry(), signal);

  for (let failures = 0; ; await pause(inbox, failures, 1_000)) {
    try {
      token = await askToken(failures > 0);
    } catch (error) {
      failures += 1;
      if (!signal.aborted) inbox._connect(troubleOf(error));
    }
    if (signal.aborted) return;
    if (token != null) break;
  }
  const user = (inbox._user = userOf(token));

  /** A new token; when it is another person's by now, everything begins anew with them. */
  async function renew() {
    const token = await askToken(true);
    if (userOf(token) !== user && !signal.aborted) inbox._restart();
    signal.throwIfAborted();
    return token;
  }

  const api = attribute("api") ?? new URL("..", import.meta.url);
  const base = absolute(api).replace(/\/*$/, "/");
  inbox._session = openSession(
    `notifier-inbox ${base} ${user}`, createApi(base, token, renew), signal, inbox);
  lookAtPush();
}
