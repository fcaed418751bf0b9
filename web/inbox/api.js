/** Requests to the API with the token of one person. The token goes into a header, never into a URL. */

const EARLY_MS = 10_000; // a token that is about to expire would do so under way

/** A request that failed. `status` is 0 when nobody answered. */
export class Failure extends Error {
  constructor(status, detail) {
    super(detail || `status ${status}`);
    this.name = "NotifierError";
    this.status = status;
  }
}

/** The claims of a JWT, unchecked: the server checks them. An empty object when it is none. */
export function claims(token) {
  try {
    const bytes = atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/"));
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(bytes, (char) => char.charCodeAt(0))));
  } catch {
    return {};
  }
}

export class Api {
  /** `base` ends with a slash. `getToken({renew})` gives a token, a new one when `renew` is true. */
  constructor(base, getToken, token) {
    this._base = base;
    this._getToken = getToken;
    this.token = token;
  }

  /** The answer, if it is a success. One that says 401 is asked for once more with a new token. */
  async fetch(path, { body, headers, ...options } = {}) {
    for (let renewed = false; ; renewed = true) {
      const token = await this._current(renewed);
      let answer;
      try {
        answer = await fetch(this._base + path, {
          method: body === undefined ? "GET" : "POST",
          ...options,
          headers: {
            ...headers,
            Authorization: `Bearer ${token}`,
            ...(body === undefined ? {} : { "Content-Type": "application/json" }),
          },
          body: body === undefined ? undefined : JSON.stringify(body),
          credentials: "omit",
          cache: "no-store",
          referrerPolicy: "no-referrer",
        });
      } catch (error) {
        if (options.signal?.aborted) throw error;
        throw new Failure(0, error.message);
      }
      if (answer.ok) return answer;
      const problem = await answer.json().catch(() => ({}));
      if (answer.status !== 401 || renewed) throw new Failure(answer.status, problem.detail ?? problem.title);
    }
  }

  async json(path, options) {
    return (await this.fetch(path, options)).json();
  }

  async _current(renew) {
    const { exp } = claims(this.token ?? "");
    if (!renew && this.token && !(exp * 1000 < Date.now() + EARLY_MS)) return this.token;
    // Several requests at a time wait for one new token.
    this._renewal ??= Promise.resolve(this._getToken({ renew: renew || Boolean(this.token) }))
      .then((token) => {
        if (typeof token !== "string" || !token) throw new Failure(401, "getToken gave no token");
        return (this.token = token);
      })
      .catch((error) => {
        throw error instanceof Failure ? error : new Failure(0, `getToken: ${error.message}`);
      })
      .finally(() => (this._renewal = null));
    return this._renewal;
  }
}
