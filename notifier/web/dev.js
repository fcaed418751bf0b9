/** The page of `notifier dev`: publishes, and shows what arrives. */

import german from "/web/notifier-inbox.de.js";

const $ = (id) => document.getElementById(id);
const MESSAGES = { de: german };

const { people, types } = await (await fetch("/dev/types")).json();

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** An inbox as an app has it; the tokens come from this server, as they would from the app's backend. */
function inboxOf(person, attributes) {
  const inbox = document.createElement("notifier-inbox");
  const all = { "token-url": `/dev/token?for=${person.id}`, lang: person.locale, ...attributes };
  for (const [name, value] of Object.entries(all)) inbox.setAttribute(name, value);
  inbox.messages = MESSAGES[person.locale];
  // The samples link to example.com, where nothing is to be seen.
  inbox.addEventListener("notifier-open", (event) => {
    if (event.detail.url && new URL(event.detail.url).hostname.endsWith("example.com")) event.preventDefault();
  });
  return inbox;
}

// Who is there.

for (const person of people) {
  const radio = make("input", { type: "radio", name: "person", value: person.id });
  $("people").append(make("label", {}, radio, person.name));
  const button = make("button", { type: "button" }, person.name.split(" ")[0]);
  button.dataset.person = person.id;
  button.addEventListener("click", () => look(person));
  $("bells").append(make("div", { className: "person" }, button, inboxOf(person, { push: "/notifier-push-worker.js" })));
}

function look(person) {
  for (const button of document.querySelectorAll("[data-person]")) {
    button.setAttribute("aria-pressed", button.dataset.person === person.id);
  }
  $("inbox").replaceChildren(inboxOf(person, { inline: "" }));
  $("app-title").textContent = `Your app, as ${person.name.split(" ")[0]} sees it`;
}

// What to publish.

for (const { type } of types) $("type").append(make("option", { value: type }, type));
$("type").value = types.some(({ type }) => type === "like") ? "like" : types[0]?.type;

const chosen = () => document.querySelector("[name=person]:checked").value;

function sample() {
  const { event, channels } = types.find(({ type }) => type === $("type").value);
  const { type, ...rest } = event;
  $("event").value = JSON.stringify({ type, recipient: chosen(), ...rest }, null, 2);
  $("channels").replaceChildren("Goes to", ...channels.map((name) => make("span", {}, name)));
  told();
}

function sendTo() {
  try {
    const event = JSON.parse($("event").value);
    delete event.recipients;
    $("event").value = JSON.stringify({ ...event, recipient: chosen() }, null, 2);
  } catch {
    // somebody is typing
  }
}

// What came of it.

function told(kind = "", title = "", ...more) {
  $("result").className = kind;
  $("result").replaceChildren(...(title ? [make("strong", {}, title), ...more] : []));
  $("event").setAttribute("aria-invalid", kind === "bad");
}

function fields(errors) {
  return make("ul", {}, ...errors.map(({ field, reason }) => make("li", {}, make("code", {}, field), ` ${reason}`)));
}

const DONE = ["delivered", "skipped", "expired", "dead"];
let watched; // the last one that was published

/** Shows where each delivery of an event stands, until all have come to an end or another event is published. */
async function follow(id, list) {
  watched = id;
  for (let tries = 0; tries < 120 && watched === id; tries += 1) {
    const answer = await fetch(`/dev/events/${encodeURIComponent(id)}`).catch(() => null);
    const { recipients = [] } = answer?.ok ? await answer.json() : {};
    const deliveries = recipients.flatMap((one) => one.deliveries);
    list.replaceChildren(...deliveries.map(({ channel, state, reason, answer: said }) => {
      const why = state === "delivered" ? said : [reason, said].filter(Boolean).join(": ");
      const row = make("li", {}, make("b", {}, channel), make("em", {}, state), why ? make("small", {}, why) : "");
      row.dataset.state = state;
      return row;
    }));
    if (deliveries.length && deliveries.every(({ state }) => DONE.includes(state))) return;
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

async function publish() {
  const text = $("event").value;
  try {
    JSON.parse(text);
  } catch (error) {
    told("bad", "This is not JSON", make("div", {}, error.message));
    return;
  }
  let answer;
  try {
    answer = await fetch("/dev/events", { method: "POST", headers: { "Content-Type": "application/json" }, body: text });
  } catch {
    told("bad", "Nobody answers", make("div", {}, "Does notifier dev still run?"));
    return;
  }
  const said = await answer.json().catch(() => ({}));
  const request = answer.headers.get("X-Request-Id");
  if (answer.ok) {
    const rows = said.events.flatMap(({ id, recipients }) => recipients.map(({ recipient, duplicate }) => {
      const known = duplicate ? ": known already, so it is not sent again" : "";
      return make("li", {}, make("code", {}, id), ` for ${recipient}${known}`);
    }));
    const steps = make("ul", { className: "steps" });
    told("good", `Accepted (${answer.status})`, make("ul", {}, ...rows), make("small", {}, `request ${request}`), steps);
    follow(said.events[0].id, steps);
  } else {
    const why = said.errors?.length ? fields(said.errors) : make("div", {}, said.detail ?? "");
    watched = null;
    told("bad", `${said.title ?? "Refused"} (${answer.status})`, why, make("small", {}, `request ${request}`));
  }
}

$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.submitter ?? $("form").querySelector(".primary");
  button.disabled = true;
  await publish().finally(() => (button.disabled = false));
});
$("event").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit();
});
$("event").addEventListener("input", () => told());
$("type").addEventListener("change", sample);
$("reset").addEventListener("click", sample);
$("people").addEventListener("change", sendTo);

// How it looks.

$("themes").addEventListener("change", ({ target }) => (document.documentElement.dataset.theme = target.value));

$("code").textContent = `<script type="module" src="${location.origin}/web/notifier-inbox.js"></script>

<notifier-inbox token-url="/notifier-token" push="/notifier-push-worker.js"></notifier-inbox>`;

document.querySelector("[name=person]").checked = true;
look(people[0]);
sample();
