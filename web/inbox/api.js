/** Requests to the API with the token of one person. The token goes into a header, never into a URL. */

/** Whose token it is, for telling people apart; the server checks it. */
export function userOf(token) {
  try {
    return JSON.parse(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/"))).sub;
  } catch {
    return token;
  }
}

/**
 * The answer, if it is a success. Otherwise it is thrown, and has a `status`, which an error has not if nobody
 * answered, or not in half a minute.
 */
export async function ask(url, options) {
  const answer = await fetch(url, { signal: AbortSignal.timeout(30_000), ...options });
  if (answer.ok) return answer;
  throw answer;
}

/** What such an error makes of the connection. */
export const troubleOf = ({ status }) => (status === 401 || status === 403 ? "denied" : "offline");

/** `base` ends with a slash; paths are those below `v1/inbox`. `renew()` gives a new token when the old one is not taken any more. */
export function createApi(base, token, renew) {
  let renewal;

  /** An answer that says 401 is asked for once more with a new token. */
  async function request(path, options) {
    const send = () => ask(`${base}v1/inbox${path}`, {
      ...options,
      headers: { "Content-Type": "application/json", ...options?.headers, Authorization: `Bearer ${token}` },
    });
    try {
      return await send();
    } catch (error) {
      if (error.status !== 401) throw error;
    }
    // Several requests at a time wait for one new token.
    renewal ??= renew().finally(() => (renewal = null));
    token = await renewal;
    return send();
  }

  const json = async (path, options) => (await request(path, options)).json();
  return {
    _base: base,
    _request: request,
    _get: json,
    // The page may be on its way to what was clicked.
    _post: (path, body) => json(path, { method: "POST", body: JSON.stringify(body), keepalive: true }),
  };
}
