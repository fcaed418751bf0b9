/**
 * Web Push (RFC 8030, 8292): this browser as a device of the recipient.
 *
 * Our worker has a scope of its own, in which there is no page: a push needs none, and whatever worker the
 * app has for its pages stays what it is.
 */

const workers = navigator.serviceWorker;
let policy;

/**
 * "unsupported", "denied", "off" or "on". `path` is that of the worker. With `api`, the server is told of
 * the subscription, since the browser may have a new one.
 */
export async function pushState(api, path) {
  if (!window.PushManager) return "unsupported";
  if (Notification.permission === "denied") return "denied";
  const found = await subscriptionAt(path);
  if (found && api) await register(api, found).catch(() => {});
  return found ? "on" : "off";
}

/**
 * Registers the script at `path`. It finds the API and, at `tokenUrl`, new tokens, for when the browser
 * replaces its address while no page is open.
 */
export async function enablePush(api, path, tokenUrl) {
  if ((await Notification.requestPermission()) !== "granted") throw Error("no permission");
  const query = new URLSearchParams({ api: api._base, "token-url": tokenUrl ? absolute(tokenUrl) : "" });
  const found = await workers.register(trusted(`${absolute(path)}?${query}`), { scope: scopeOf(path) });
  const { installing } = found;
  while (installing && installing.state !== "activated") {
    await new Promise((resolve) => (installing.onstatechange = resolve));
  }
  const { public_key: applicationServerKey } = await api._get("/push-key");
  const subscribe = () => found.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey });
  await register(api, await subscribe().catch(async () => {
    // It has one with another key.
    await (await subscriptionAt(path))?.unsubscribe();
    return subscribe();
  }));
}

export async function disablePush(api, path) {
  const found = await subscriptionAt(path);
  if (!found) return;
  const { key } = await register(api, found); // it is known already; the answer says under which key
  await api._request(`/devices/${key}`, { method: "DELETE" });
  await found.unsubscribe();
}

const register = (api, subscription) => api._post("/devices", subscription);

/** A path of the page as a whole URL. */
export const absolute = (path) => new URL(path, document.baseURI).href;

const scopeOf = (path) => `${absolute(path)}/`;

/** That of our own scope, not of another worker of the site. */
async function subscriptionAt(path) {
  const found = await workers.getRegistration(scopeOf(path));
  return found?.scope === scopeOf(path) ? found.pushManager.getSubscription() : null;
}

/** A page with Trusted Types lets us name a script if its policy allows `trusted-types notifier-inbox`. */
function trusted(url) {
  policy ??= window.trustedTypes?.createPolicy("notifier-inbox", { createScriptURL: String });
  return policy?.createScriptURL(url) ?? url;
}
