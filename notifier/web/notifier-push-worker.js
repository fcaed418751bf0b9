/**
 * The service worker of Web Push for `<notifier-inbox>`: it shows what was pushed, and opens its target.
 * Serve it from the site of the app, at the path that the attribute `push` names; a worker that the app has
 * already can take it in with importScripts().
 *
 * Parameters of its URL, which enablePush() sets: `api`, where the API is, and `token-url`, where the app
 * gives a new token to who is signed in. With both, a subscription that the browser replaces while no page
 * is open is registered at once; otherwise the next page does that.
 */

"use strict";

(() => {
  const parameters = new URL(self.location.href).searchParams;
  const TITLE = "Notification";

  self.addEventListener("push", (event) => {
    event.waitUntil(show(read(event.data)));
  });

  self.addEventListener("notificationclick", (event) => {
    event.notification.close();
    event.waitUntil(open(event.notification.data?.url ?? null));
  });

  self.addEventListener("pushsubscriptionchange", (event) => {
    event.waitUntil(resubscribe(event));
  });

  /** `{title, body, url, id, type}`. A browser wants something shown for each push, so it is never nothing. */
  function read(data) {
    try {
      const payload = data.json();
      if (payload && typeof payload.title === "string") return payload;
    } catch {
      // not ours, or empty
    }
    return { title: TITLE };
  }

  async function show({ title, body, url, id, type }) {
    await self.registration.showNotification(title, {
      body: typeof body === "string" ? body : "",
      // The same push twice is one notification: a delivery may be repeated.
      tag: typeof id === "string" ? `notifier-${id}` : undefined,
      data: { url: safeUrl(url), id, type },
    });
  }

  /** A link that does no harm: http, https, or a path of this site. */
  function safeUrl(text) {
    if (typeof text !== "string" || !text) return null;
    try {
      const url = new URL(text, self.location.origin);
      if (url.protocol !== "https:" && url.protocol !== "http:") return null;
      return /^https?:\/\//i.test(text) || url.origin === self.location.origin ? url.href : null;
    } catch {
      return null;
    }
  }

  /** Shows the page that is open at the target already, or else any page of the app, or a new one. */
  async function open(url) {
    const pages = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
    const target = url ?? `${self.location.origin}/`;
    const there = pages.find((page) => page.url === target) ?? (url ? undefined : pages[0]);
    if (there) await there.focus();
    else await self.clients.openWindow(target);
  }

  async function resubscribe({ oldSubscription, newSubscription }) {
    const options = oldSubscription?.options ?? (await self.registration.pushManager.getSubscription())?.options;
    const found =
      newSubscription ??
      (options && (await self.registration.pushManager.subscribe({
        userVisibleOnly: true,
        applicationServerKey: options.applicationServerKey,
      })));
    if (found) await register(found);
  }

  async function register(found) {
    const api = parameters.get("api");
    const tokenUrl = parameters.get("token-url");
    if (!api || !tokenUrl) return;
    const answer = await fetch(tokenUrl, { credentials: "same-origin", cache: "no-store" });
    if (!answer.ok) return; // nobody is signed in: the next page registers it
    const text = (await answer.text()).trim();
    const token = text.startsWith("{") ? JSON.parse(text).token : text;
    await fetch(new URL("v1/inbox/devices", api), {
      method: "POST",
      headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
      body: JSON.stringify(found),
      credentials: "omit",
    });
  }
})();
