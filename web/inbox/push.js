/** Web Push (RFC 8030, 8292): this browser as a device of the recipient. */

const supported = () => "serviceWorker" in navigator && "PushManager" in globalThis && "Notification" in globalThis;

/** "unsupported", "denied", "off" or "on". */
export async function state(worker) {
  if (!supported()) return "unsupported";
  if (Notification.permission === "denied") return "denied";
  return (await subscription(worker)) ? "on" : "off";
}

/**
 * `registration` is that of a service worker which the page has registered itself; without it, ours is.
 * `scope` says where the worker finds the API and new tokens, for when the browser replaces its address
 * while no page is open.
 */
export async function enable(api, worker, { api: base, tokenUrl }, { registration } = {}) {
  if (!supported()) throw new Error("this browser has no Web Push");
  if ((await Notification.requestPermission()) !== "granted") throw new Error("permission was not given");
  const url = new URL(worker, document.baseURI);
  url.searchParams.set("api", base);
  if (tokenUrl) url.searchParams.set("token-url", new URL(tokenUrl, document.baseURI).href);
  const found = registration ?? (await navigator.serviceWorker.register(url));
  await active(found);
  const { key } = await api.json("v1/inbox/push-key");
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
  await api.fetch("v1/inbox/devices", { method: "DELETE", body: { endpoint: found.endpoint } });
  await found.unsubscribe();
}

async function subscription(worker) {
  const found = await navigator.serviceWorker.getRegistration(new URL(worker, document.baseURI).href);
  return (await found?.pushManager.getSubscription()) ?? null;
}

function register(api, found) {
  const { endpoint, keys } = found.toJSON();
  return api.fetch("v1/inbox/devices", { method: "POST", body: { kind: "web_push", endpoint, keys } });
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
