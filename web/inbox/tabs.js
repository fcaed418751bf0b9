/**
 * One of the tabs leads: it holds a Web Lock, and tells the others what it hears over a BroadcastChannel.
 * When it closes, the browser gives the lock to the next one. A leader that the browser has frozen is
 * silent; a tab that is being looked at takes the lock from it. Where there are no locks, such as on a
 * page without TLS, each tab leads for itself.
 */

const SILENCE_MS = 60_000; // the server says something every 15 s

export class Tabs {
  /** `lead(signal)` runs for as long as this tab leads; `hear(message)` is given what other tabs say. */
  constructor(name, lead, hear) {
    this._name = name;
    this._lead = lead;
    this._hear = hear;
    this.open();
  }

  open() {
    if (this._open) return;
    this._open = new AbortController();
    this._heard = Date.now();
    this.leads = false;
    if (!navigator.locks || !globalThis.BroadcastChannel) {
      this._run(this._open.signal);
      return;
    }
    this._channel = new BroadcastChannel(this._name);
    this._channel.onmessage = ({ data }) => {
      this._heard = Date.now();
      this._hear(data);
    };
    this._watch = setInterval(() => this._look(), SILENCE_MS / 4);
    this._queue(this._open.signal);
  }

  say(message) {
    this._channel?.postMessage(message);
  }

  close() {
    this._open?.abort();
    this._channel?.close();
    clearInterval(this._watch);
    this._open = this._channel = null;
  }

  async _queue(signal) {
    while (!signal.aborted) await this._request({ signal }, signal);
  }

  async _request(options, signal) {
    const taken = new AbortController();
    try {
      await navigator.locks.request(this._name, options, () => this._run(AbortSignal.any([signal, taken.signal])));
    } catch (error) {
      taken.abort(); // another tab took the lock from this one, or it closed
      if (error.name === "SecurityError") await this._run(signal); // a sandbox has no locks
    }
  }

  async _run(signal) {
    if (signal.aborted) return;
    this.leads = true;
    try {
      await this._lead(signal);
    } finally {
      this.leads = false;
    }
  }

  _look() {
    const silent = Date.now() - this._heard > SILENCE_MS;
    if (this.leads || !silent || document.visibilityState !== "visible" || !navigator.onLine) return;
    this._heard = Date.now();
    this._request({ steal: true }, this._open.signal);
  }
}
