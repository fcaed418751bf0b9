/**
 * One of the tabs leads: it holds a Web Lock, and tells the others what it hears over a BroadcastChannel.
 * When it closes, the browser gives the lock to the next one. A leader that the browser has frozen is
 * silent; a tab that is being looked at takes the lock from it. Where there are no locks, such as on a
 * page without TLS, each tab leads for itself.
 */

import { every, on } from "./dom.js";

/**
 * Until `signal` ends it. `lead(signal)` runs for as long as this tab leads; `hear(message)` is given what
 * other tabs say.
 */
export function joinTabs(name, signal, lead, hear) {
  const channel = new BroadcastChannel(name);
  const tabs = { _say: (message) => signal.aborted || channel.postMessage(message) };
  let heard = Date.now();

  async function run(signal) {
    tabs._leads = true;
    await lead(signal);
    tabs._leads = false;
  }

  async function request(options) {
    const taken = new AbortController();
    try {
      await navigator.locks.request(name, options, () => run(AbortSignal.any([signal, taken.signal])));
    } catch (error) {
      taken.abort();
      // Otherwise another tab took the lock from this one, or this one closed.
      if (error.name !== "AbortError") await run(signal); // there are no locks
    }
  }

  every(15_000, () => {
    // The server says something every 15 s, and so does who leads: a minute of silence is none that is awake.
    if (tabs._leads || document.hidden || Date.now() - heard < 60_000) return;
    heard = Date.now();
    request({ steal: true });
  }, signal);
  channel.onmessage = ({ data }) => {
    heard = Date.now();
    hear(data);
  };
  on(signal, "abort", () => channel.close());
  // Later, since `lead` needs what this returns.
  queueMicrotask(async () => {
    while (!signal.aborted) await request({ signal });
  });
  return tabs;
}
