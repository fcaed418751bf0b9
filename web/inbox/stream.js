/** The API's server-sent events, read from a fetch, and the time between two tries. */

/**
 * Reads until the body ends. `on({event, data, id, retry})` is called for each event, `alive()` for whatever
 * comes, comments too. The API ends lines with a line feed and sends its data in one line.
 */
export async function readEvents(body, on, alive) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let buffer = ""; ; ) {
    const { done, value } = await reader.read();
    if (done) return;
    alive();
    const events = (buffer + value).split("\n\n");
    buffer = events.pop();
    for (const event of events) on(Object.fromEntries(event.split("\n").map((line) => line.split(/: ?(.*)/s))));
  }
}

/**
 * Waits for the next try: from `base` milliseconds to half a minute, longer from failure to failure, and
 * between half of that and all of it, by chance. `inbox._wake()` ends it.
 */
export const pause = (inbox, failures, base) => new Promise((resolve) => {
  inbox._wake = resolve;
  setTimeout(resolve, Math.min(30_000, base * 2 ** failures) * (0.5 + Math.random() / 2));
});
