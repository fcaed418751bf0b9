/**
 * What this page knows of one person's inbox, shared by all `<notifier-inbox>` of it: entries, counts,
 * the connection, and marks that the server has not confirmed yet.
 *
 * Nothing is missed and nothing shown twice: a stream goes on after the last position that was heard,
 * by this tab or from the leading one. Without a position everything is loaded again once the stream is
 * open. To apply an event a second time changes nothing.
 */

import { Api, Failure } from "./api.js";
import { backoff, readEvents } from "./stream.js";
import { Tabs } from "./tabs.js";

const SILENT_MS = 40_000; // the server's heartbeat comes every 15 s
const LONG_AWAY_MS = 30_000;
const MAX_ENTRIES = 4_000;
const MAX_IDS = 100;

const sessions = new Map();

/** The session of a person, which `view` shares from now on. `user` is the `sub` of the token. */
export function join(view, base, user, token) {
  const key = `notifier-inbox ${base} ${user}`;
  let session = sessions.get(key);
  if (!session) sessions.set(key, (session = new Session(key, base, token)));
  session.views.add(view);
  return session;
}

class Session {
  constructor(key, base, token) {
    this.key = key;
    this.views = new Set();
    this.entries = new Map();
    this.counts = null;
    this.connection = "connecting"; // then "live", "offline", "denied"
    this.api = new Api(base, (why) => [...this.views].at(-1).askToken(why), token);
    this._marks = [];
    this._end = new AbortController();
    this._position = null;
    this._told = 0; // how often the stream gave counts
    this._loads = 0;
    this._meanwhile = []; // marks that came during a load
    this._tabs = new Tabs(key, (signal) => this._lead(signal), (message) => this._hear(message));
    this._tabs.say({ hello: true });
    this.loadCounts(); // the stream tells them as well, but may be a tab's that opened long ago
    this._listen();
  }

  leave(view) {
    this.views.delete(view);
    if (this.views.size) return;
    sessions.delete(this.key);
    this._tabs.close();
    this._end.abort();
  }

  /** The page has a new token for the same person. */
  renew(token) {
    this.api.token = token;
    if (this.connection !== "live") this.retry();
  }

  /** Tries at once what waits: the connection, and marks. */
  retry() {
    if (!this._tabs.leads) this._tabs.say({ retry: true, hello: true });
    this._wake?.();
    this._send();
    this.loadCounts();
  }

  /** A page of entries: `{entries, after}`; `after` is undefined at the end. */
  async load(filter, after, size) {
    const query = new URLSearchParams({ page_size: size });
    if (filter === "unread") query.set("status", "unread");
    if (filter === "archived") query.set("archived", "only");
    if (after) query.set("after", after);
    const told = this._told;
    this._loads += 1;
    try {
      const page = await this.api.json(`v1/inbox?${query}`, { signal: this._end.signal });
      for (const entry of page.entries) this._keep(entry);
      // The page may be older than what the stream said while it was on its way.
      for (const marks of this._meanwhile) this._keep(marks);
      if (told === this._told) this._count(page.meta);
      return this._page(page);
    } finally {
      if (!(this._loads -= 1)) this._meanwhile = [];
    }
  }

  _page(page) {
    return {
      entries: page.entries.map(({ id }) => this.entries.get(id)),
      after: page.page_info.has_more ? page.page_info.after : undefined,
    };
  }

  async loadCounts() {
    try {
      const told = this._told;
      const counts = await this.api.json("v1/inbox/counts", { signal: this._end.signal });
      if (told === this._told) this._count(counts);
      if (this._cut) this._connect("live"); // the stream was open all the time
    } catch (error) {
      this._failed(error);
    }
  }

  /** Marks entries here at once, and at the server as soon as it can be reached. */
  mark(entries, mark) {
    const changed = entries.filter((entry) => this._apply(entry, mark));
    if (!changed.length) return;
    for (let i = 0; i < changed.length; i += MAX_IDS) {
      this._marks.push({ mark, ids: changed.slice(i, i + MAX_IDS).map(({ id }) => id) });
    }
    this._tell("changed", changed);
    this._tell("counted");
    this._send();
  }

  /** Marks everything as read that had come when the newest of the known entries did. */
  markAllRead() {
    const all = [...this.entries.values()].filter((entry) => !entry.archived_at);
    const until = all.reduce((newest, { created_at: at }) => (at > newest ? at : newest), "");
    const changed = all.filter((entry) => this._apply(entry, "read"));
    this._marks.push({ mark: "read", body: { status: "unread", ...(until && { until }) } });
    if (this.counts) this.counts = { ...this.counts, unread: 0, unseen: 0 };
    this._tell("changed", changed);
    this._tell("counted");
    this._send();
  }

  // What the server says.

  async _lead(signal) {
    let base = 2_000;
    for (let failures = 0; !signal.aborted; ) {
      const stop = new AbortController();
      const began = Date.now();
      let watch;
      try {
        let heard = Date.now();
        const resumed = this._position;
        const answer = await this.api.fetch("v1/inbox/stream", {
          headers: { Accept: "text/event-stream", ...(resumed && { "Last-Event-ID": resumed }) },
          signal: AbortSignal.any([signal, stop.signal]),
        });
        this._cut = () => stop.abort();
        this._check = () => Date.now() - heard > SILENT_MS && stop.abort();
        watch = setInterval(this._check, SILENT_MS / 4);
        this._connect("live");
        if (!resumed) this._everywhere({ event: "reset" }); // what came before the stream is not in it
        this._send();
        await readEvents(
          answer.body,
          ({ event, data, id, retry }) => {
            if (/^\d+$/.test(retry)) base = Math.min(Number(retry), 30_000);
            if (data !== undefined) this._everywhere({ event, data: JSON.parse(data), id });
          },
          () => {
            if (Date.now() - heard > 1_000) this._tabs.say({ beat: true });
            heard = Date.now();
          },
        );
      } catch (error) {
        if (signal.aborted) break;
        if (error instanceof Failure) this._failed(error, true);
      } finally {
        clearInterval(watch);
      }
      this._cut = this._check = null;
      if (signal.aborted) break;
      failures = Date.now() - began > 10_000 ? 0 : failures + 1;
      if (this.connection === "live") this._connect("connecting");
      await this._pause(backoff(Math.max(0, failures - 1), base / 2), signal);
    }
  }

  _everywhere(message) {
    this._tabs.say(message);
    this._take(message);
  }

  _hear(message) {
    if (message.event) this._take(message);
    else if (message.connection) this._connect(message.connection, message.position);
    else if (this._tabs.leads) {
      if (message.hello) this._tabs.say({ connection: this.connection, position: this._position });
      if (message.retry) this._wake?.();
    }
  }

  _take({ event, data, id }) {
    if (id) this._position = id;
    if (event === "counts") {
      this._told += 1;
      if (this._marks.length) this._later = data;
      this._count(data);
    }
    if (event === "entry") {
      const isNew = !this.entries.has(data.id);
      this._tell("arrived", this._keep(data), isNew);
    }
    if (event === "marks" && data.entries) {
      const known = data.entries.filter((marks) => this.entries.has(marks.id));
      if (this._loads) this._meanwhile.push(...known);
      this._tell("changed", known.map((marks) => this._keep(marks)));
      if (known.length < data.entries.length) this._tell("stale");
    }
    if (event === "reset" || (event === "marks" && data.all)) this._tell("stale"); // counts follow
  }

  reload() {
    this.loadCounts();
    this._tell("stale");
  }

  _connect(connection, position) {
    this._position ??= position ?? null;
    if (this._tabs.leads) this._tabs.say({ connection });
    if (this.connection === connection) return;
    const back = connection === "live" && this.connection !== "connecting";
    this.connection = connection;
    this._tell("connected");
    if (back) this._send();
  }

  _failed(error, always) {
    if (!(error instanceof Failure)) return;
    const denied = error.status === 401 || error.status === 403;
    if (always || denied || this.connection !== "live") this._connect(denied ? "denied" : "offline");
  }

  // What is known.

  _keep(fields) {
    const entry = this.entries.get(fields.id) ?? {};
    Object.assign(entry, fields);
    // A mark under way counts already; the server's next word comes with it.
    for (const { mark, ids } of this._marks) if (ids?.includes(entry.id)) mutate(entry, mark);
    this.entries.set(entry.id, entry);
    if (this.entries.size > MAX_ENTRIES) this.entries.delete(this.entries.keys().next().value);
    return entry;
  }

  _apply(entry, mark) {
    const before = { ...entry };
    mutate(entry, mark);
    const inbox = (one, field) => Number(!one.archived_at && !one[field]);
    const counts = this.counts && {
      total: this.counts.total + inbox(entry) - inbox(before),
      unread: this.counts.unread + inbox(entry, "read_at") - inbox(before, "read_at"),
      unseen: this.counts.unseen + inbox(entry, "seen_at") - inbox(before, "seen_at"),
    };
    if (counts) for (const name in counts) counts[name] = Math.max(0, counts[name]);
    this.counts = counts;
    return ["seen_at", "read_at", "archived_at"].some((name) => Boolean(entry[name]) !== Boolean(before[name]));
  }

  _count({ total, unread, unseen }) {
    if (this._marks.length) return; // counted ahead; what is being sent brings new ones
    this.counts = { total, unread, unseen };
    this._tell("counted");
  }

  async _send() {
    if (this._sending) return;
    this._sending = true;
    let counts;
    try {
      while (this._marks.length) {
        const { mark, ids, body } = this._marks[0];
        const one = ids?.length === 1;
        try {
          counts = await this.api.json(`v1/inbox/${one ? `${encodeURIComponent(ids[0])}/` : ""}${mark}`, {
            method: "POST",
            body: one ? undefined : body ?? { ids },
            keepalive: true, // the page may be on its way to what was clicked
          });
        } catch (error) {
          this._failed(error);
          if (!error.status || error.status >= 500 || error.status === 401 || error.status === 429) {
            this._sendAgain();
            return;
          }
          this._marks.shift(); // it is gone, or will never be accepted: show what is
          if (!this._marks.length) this.reload();
          continue;
        }
        this._marks.shift();
      }
      // Of two counts the stream's is the one that its next word goes on from.
      if (counts) this._count(this._later ?? counts);
    } finally {
      this._later = null;
      this._sending = false;
    }
  }

  _sendAgain() {
    clearTimeout(this._resend);
    if (!this._end.signal.aborted) this._resend = setTimeout(() => this._send(), backoff(2, 2_000));
  }

  // The world outside.

  _listen() {
    const on = (target, name, react) => target.addEventListener(name, react, { signal: this._end.signal });
    let hidden = Date.now();
    on(document, "visibilitychange", () => {
      if (document.hidden) hidden = Date.now();
      else this._check?.(), this._wake?.(), Date.now() - hidden > LONG_AWAY_MS && this.reload();
    });
    on(document, "resume", () => this.reload());
    on(globalThis, "online", () => this.retry());
    on(globalThis, "offline", () => (this._connect("offline"), this._cut?.()));
    on(globalThis, "pagehide", (event) => event.persisted && this._tabs.close());
    on(globalThis, "pageshow", (event) => event.persisted && (this._tabs.open(), this.reload()));
  }

  /** Until the time is over, somebody asks to go on, or `signal` says that it is of no use any more. */
  async _pause(ms, signal) {
    const over = new AbortController();
    await new Promise((resolve) => {
      this._wake = resolve;
      const timer = setTimeout(resolve, ms);
      over.signal.addEventListener("abort", () => clearTimeout(timer));
      signal.addEventListener("abort", resolve, { signal: over.signal });
    });
    over.abort();
    this._wake = null;
  }

  _tell(what, ...details) {
    for (const view of this.views) view[what](...details);
  }
}

function mutate(entry, mark) {
  const now = new Date().toISOString();
  if (mark === "seen") entry.seen_at ??= now;
  if (mark === "read") (entry.seen_at ??= now), (entry.read_at ??= now);
  if (mark === "unread") entry.read_at = null;
  if (mark === "archived") entry.archived_at ??= now;
  if (mark === "unarchived") entry.archived_at = null;
}
