/** Server-sent events read from a fetch, and how long to wait before the next one. */

const MAX_CHARS = 1_000_000; // of one event; an entry has at most some 80,000

/**
 * Reads until the body ends, as the HTML standard says (9.2.6, "Interpreting an event stream").
 * `on({event, data, id, retry})` is called for each event; `alive()` for whatever comes, comments too.
 */
export async function readEvents(body, on, alive) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  let fields = {};
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    alive();
    buffer += value;
    if (buffer.length > MAX_CHARS) throw new Error("an event is too long");
    // A carriage return at the end may be half of a line break.
    const lines = buffer.split(/\r\n|\n|\r(?!$)/);
    buffer = lines.pop();
    for (const line of lines) {
      if (line) {
        const [, name, text = ""] = /^([^:]*)(?:: ?(.*))?$/s.exec(line);
        if (name === "data" && "data" in fields) fields.data += `\n${text}`;
        else if (name) fields[name] = text;
      } else {
        if ("data" in fields || "id" in fields || "retry" in fields) on(fields);
        fields = {};
      }
    }
  }
}

/** Milliseconds: grows from `base` to half a minute; between half of that and all of it, by chance. */
export function backoff(failures, base) {
  return Math.min(30_000, base * 2 ** Math.min(failures, 10)) * (0.5 + Math.random() / 2);
}
