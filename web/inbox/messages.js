/** The texts. `{n}` is a number, `{title}` a title; what has plural forms may be an object of them. */
const TEXTS = {
  title: "Notifications",
  bell: "Notifications, {n} unread",
  show: "Show",
  all: "All",
  unread: "Unread",
  archived: "Archived",
  markAllRead: "Mark all as read",
  markRead: "Mark as read",
  markUnread: "Mark as unread",
  archive: "Archive",
  unarchive: "Move to inbox",
  close: "Close",
  isUnread: "Unread:",
  hint: "Arrow keys move, Delete archives.",
  empty: "You’re all caught up",
  emptyArchived: "Nothing archived",
  loading: "Loading…",
  error: "Notifications could not be loaded.",
  denied: "You are signed out.",
  offline: "No connection",
  retry: "Try again",
  arrived: { one: "New notification: {title}", other: "{n} new notifications" },
  readAll: "All marked as read",
  wasArchived: "Archived: {title}",
  enablePush: "Turn on push notifications",
  disablePush: "Turn off push notifications",
  pushDenied: "Push is blocked in your browser.",
  pushFailed: "Push could not start.",
};

const UNITS = [
  ["year", 31_500_000], ["month", 2_630_000], ["day", 86_400], ["hour", 3_600], ["minute", 60],
];

/**
 * What is said in one language: texts with plurals, numbers, and how long ago something was. `own` are texts
 * of the page, which count before ours; a name that is no language is English.
 */
export function createWords(language, own) {
  let lang = "en";
  try {
    [lang] = Intl.getCanonicalLocales(language || lang);
  } catch {
    // such as `en_US`
  }
  const plural = new Intl.PluralRules(lang);
  const relative = new Intl.RelativeTimeFormat(lang, { numeric: "auto" });
  return {
    _lang: lang,

    _text(key, values = {}) {
      const text = own?.[key] ?? TEXTS[key];
      const form = text[plural.select(values.n)] ?? text.other ?? text;
      return `${form}`.replace(/{(\w+)}/g, (all, name) => values[name]?.toLocaleString(lang) ?? all);
    },

    /** 7, or 99+ */
    _number: (n) => Math.min(n, 99).toLocaleString(lang) + (n > 99 ? "+" : ""),

    /** "now", "5 minutes ago", "yesterday" */
    _ago(date) {
      const seconds = Math.max(0, (Date.now() - date) / 1000);
      const [unit, size] = UNITS.find(([, size]) => seconds >= size) ?? ["second", 60];
      return relative.format(-Math.floor(seconds / size), unit);
    },
  };
}
