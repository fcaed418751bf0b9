/**
 * Web Push (RFC 8030, 8292): this browser as a device of the recipient.
 *
 * Our worker has a scope of its own, in which there is no page: a push needs none, and whatever worker the
 * app has for its pages stays what it is.
 */

let policy;

const supported = () => "serviceWorker" in navigator && "PushManager" in globalThis && "Notification" in globalThis;

/** "unsupported", "denied", "off" or "on". */
export async function state(worker) {
  if (!supported()) return "unsupported";
  if (Notification.permission === "denied") return "denied";
  return (await subscription(worker)) ? "on" : "off";
}

/**
 * `registration` is that of a service worker which the page has registered itself; without it, that of the
 * script at the path `worker` is taken, or made.
 * `scope` says where the worker finds the API and new tokens, for when the browser replaces its address
 * while no page is open.
 */
export async function enable(api, worker, { api: base, tokenUrl }, { registration } = {}) {
  if (!supported()) throw new Error("this browser has no Web Push");
  if ((await Notification.requestPermission()) !== "granted") throw new Error("permission was not given");
  const url = new URL(worker, document.baseURI);
  url.searchParams.set("api", base);
  if (tokenUrl) url.searchParams.set("token-url", new URL(tokenUrl, document.baseURI).href);
  const scope = `${url.pathname}/`;
  const known = registration ?? (await registered(worker));
  const found = known && !known.scope.endsWith(scope) ? known
    : await navigator.serviceWorker.register(trusted(url.href), { scope });
  await active(found);
  const { public_key: key } = await api.json("v1/inbox/push-key");
  const old = await found.pushManager.getSubscription();
  if (old && encode(old.options.applicationServerKey) !== key) await old.unsubscribe();
  const options = { userVisibleOnly: true, applicationServerKey: key };
  await register(api, await found.pushManager.subscribe(options));
}

/** Tells the server of the subscription again, since the browser may have a new one. */
export async function refresh(api, worker) {
  const found = await subscription(worker);
  if (found) await register(api, found);
}

export async function disable(api, worker) {
  const found = await subscription(worker);
  if (!found) return;
  const { key } = await register(api, found); // it is known already; the answer says under which key
  await api.fetch(`v1/inbox/devices/${encodeURIComponent(key)}`, { method: "DELETE" });
  await found.unsubscribe();
}

async function subscription(worker) {
  return (await (await registered(worker))?.pushManager.getSubscription()) ?? null;
}

/** The registration of the script at this path: ours, or one of the app that takes ours in. */
async function registered(worker) {
  const { pathname } = new URL(worker, document.baseURI);
  const all = await navigator.serviceWorker.getRegistrations();
  return all.find(({ active, waiting, installing }) =>
    new URL((active ?? waiting ?? installing).scriptURL).pathname === pathname);
}

function register(api, found) {
  return api.json("v1/inbox/devices", { body: found });
}

/** A page with Trusted Types lets us name a script if its policy allows `trusted-types notifier-inbox`. */
function trusted(url) {
  if (!globalThis.trustedTypes) return url;
  policy ??= trustedTypes.createPolicy("notifier-inbox", { createScriptURL: (text) => text });
  return policy.createScriptURL(url);
}

function active(registration) {
  const worker = registration.active ?? registration.waiting ?? registration.installing;
  if (worker.state === "activated") return undefined;
  return new Promise((resolve) => {
    worker.addEventListener("statechange", () => worker.state === "activated" && resolve());
  });
}

function encode(buffer) {
  return btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}
