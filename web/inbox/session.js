/**
 * What this tab knows of one person's inbox: entries, counts, the connection, and marks that the server has
 * not confirmed yet.
 *
 * Nothing is missed and nothing shown twice: a stream goes on after the last position that was heard,
 * by this tab or from the leading one. Without a position everything is loaded again once the stream is
 * open. To apply an event a second time changes nothing.
 */

import { troubleOf } from "./api.js";
import { every, on } from "./dom.js";
import { pause, readEvents } from "./stream.js";
import { joinTabs } from "./tabs.js";


/** Marks an entry; `unread` takes away what `read` gives. Returns whether it is another entry now. */
function change(entry, mark) {
  const seen = mark === "read" && change(entry, "seen");
  const [, un, name] = mark.match(/(un)?(.+)/);
  const field = `${name}_at`;
  const differs = !entry[field] === !un;
  if (differs) entry[field] = un ? null : new Date().toISOString();
  return differs || seen;
}

/**
 * Runs until `signal` ends it, and tells `inbox`, the element. `name` is the same in all tabs of the person,
 * and nobody else's.
 */
export function openSession(name, api, signal, inbox) {
  const entries = new Map();
  const marks = []; // what is not confirmed: `{mark, body, ids}`
  let told = 0; // how often the stream gave counts
  let server; // the newest counts that are known of it
  let position; // of the last event that was heard
  let sending = 0; // how many marks are on their way
  let resend, cut;

  const session = {
    _api: api,
    _entries: entries,

    /** Takes over what the server says of an entry. A mark under way counts already. */
    _keep(fields) {
      const entry = Object.assign(entries.get(fields.id) ?? {}, fields);
      entries.set(entry.id, entry);
      for (const { mark, ids } of marks) if (ids.includes(entry.id)) change(entry, mark);
      return entry;
    },

    /** The answer to a request, after its counts were taken over. */
    async _counted(request) {
      const since = told;
      const answer = await request;
      // The stream's counts are newer than those that it overtook: its next word goes on from them.
      if (since === told) count(answer.meta ?? answer);
      return answer;
    },

    /** Marks entries here at once, and at the server as soon as it can be reached. `body` selects them there. */
    _mark(some, mark, body) {
      const unread = () => some.filter((entry) => !entry.read_at && !entry.archived_at).length;
      const before = unread();
      const changed = some.filter((entry) => change(entry, mark));
      if (!changed[0] && !body) return;
      const ids = changed.map(({ id }) => id);
      marks.push({ mark, ids, body: body ?? { ids } });
      // Ahead of the server, which has the last word.
      const { counts } = inbox;
      tell({ ...counts, unread: body ? 0 : counts.unread + unread() - before });
      inbox._list._changed(changed);
      send();
    },

    /** Marks everything as read that had come when the newest of the known entries did. */
    _markAllRead() {
      const all = [...entries.values()].filter((entry) => !entry.archived_at);
      const until = all.map((entry) => entry.created_at).sort().at(-1);
      session._mark(all, "read", { status: "unread", until });
    },

    /** Tries at once what waits, and asks how things are. */
    _retry() {
      tabs._say({ hello: true });
      send();
      loadCounts();
    },
  };

  function count(counts) {
    server = counts;
    if (!marks.length) tell(counts); // else counted ahead; what is being sent brings new ones
  }

  function tell(counts) {
    if (signal.aborted) return;
    inbox.counts = counts;
    inbox._emit("counts", counts);
  }

  const post = ({ mark, body }) => session._counted(api._post(`/${mark}`, body));

  async function send() {
    if (sending) return;
    sending = 1;
    clearTimeout(resend);
    while (marks[0] && !signal.aborted) {
      try {
        await post(marks[0]);
      } catch (error) {
        failed(error);
        if (!/^4(?!01|29)/.test(error.status)) {
          resend = setTimeout(send, 5_000);
          break;
        }
        inbox._list._stale(); // it will never be accepted: show what is
        loadCounts();
      }
      marks.shift();
      if (server) count(server);
    }
    sending = 0;
  }

  function loadCounts() {
    session._counted(api._get("/counts")).then(() => cut && connect("live"), failed); // it was open all the time
  }

  function connect(connection) {
    if (tabs._leads) tabs._say({ connection });
    inbox._connect(connection);
    if (connection !== "live") return;
    send();
    inbox._list._retry();
  }

  function failed(error) {
    const trouble = troubleOf(error);
    if (signal.aborted) return;
    if (trouble === "denied" || inbox.connection !== "live") connect(trouble);
  }

  /** Listens, for as long as this tab leads; between two streams it waits, unless somebody wakes it. */
  async function lead(signal) {
    let base = 2_000;
    on(signal, "abort", () => inbox._wake?.());
    for (let failures = 0; !signal.aborted; ) {
      const stop = new AbortController();
      const began = Date.now();
      let heard = began;
      // The server's heartbeat comes every 15 s.
      every(10_000, () => Date.now() - heard > 40_000 && stop.abort(), stop.signal);
      try {
        const answer = await api._request("/stream", {
          headers: position && { "Last-Event-ID": position },
          signal: AbortSignal.any([signal, stop.signal]),
        });
        cut = () => stop.abort();
        connect("live");
        if (!position) everywhere({ event: "reset", data: {} }); // what came before the stream is not in it
        await readEvents(
          answer.body,
          ({ event, data, id, retry }) => {
            base = retry ?? base;
            if (data) everywhere({ event, data: JSON.parse(data), id });
          },
          () => {
            heard = Date.now();
            tabs._say({});
          },
        );
      } catch (error) {
        if (!cut && !signal.aborted) connect(troubleOf(error));
      }
      stop.abort();
      cut = null;
      if (signal.aborted) return;
      if (Date.now() - began > 10_000) failures = 0;
      if (inbox.connection === "live") connect("connecting");
      await pause(inbox, failures++, base / 2);
    }
  }

  function everywhere(message) {
    tabs._say(message);
    take(message);
  }

  function take({ event, data, id }) {
    position = id || position;
    if (event === "counts") {
      told += 1;
      count(data);
    } else if (event === "entry") {
      const isNew = !entries.has(data.id);
      inbox._list._changed([session._keep(data)]);
      if (isNew) inbox._arrived(data);
    } else if (event) {
      // Marks; or a reset, or marks of too many to tell. Counts follow.
      const marked = data.entries ?? [{}];
      const known = marked.filter(({ id }) => entries.has(id));
      inbox._list._changed(known.map(session._keep));
      if (known.length < marked.length) inbox._list._stale();
    }
  }

  const tabs = joinTabs(name, signal, lead, (message) => {
    take(message);
    if (message.connection) {
      position ??= message.position;
      connect(message.connection);
    }
    if (message.hello && tabs._leads) {
      tabs._say({ connection: inbox.connection, position });
      inbox._wake?.();
    }
  });

  // What waits behind a mark that is on its way goes out with the page.
  on(signal, "abort", () => marks.slice(sending).forEach((mark) => post(mark).catch(failed)));
  on(window, "offline", () => {
    connect("offline");
    cut?.();
  }, signal);
  session._retry(); // the stream tells the counts as well, but may be a tab's that opened long ago
  return session;
}
