/** The texts, by language. `{n}` is a number, `{title}` a title; what has plural forms is an object of them. */
export const MESSAGES = {
  en: {
    title: "Notifications",
    bell: { one: "Notifications, {n} unread", other: "Notifications, {n} unread" },
    bellNone: "Notifications",
    show: "Show",
    all: "All",
    unread: "Unread",
    archived: "Archived",
    markAllRead: "Mark all as read",
    markRead: "Mark as read",
    markUnread: "Mark as unread",
    archive: "Archive",
    unarchive: "Move back to inbox",
    close: "Close",
    isUnread: "Unread:",
    hint: "Up and down arrow move between notifications, Delete archives.",
    empty: "You’re all caught up",
    emptyMore: "New notifications will show up here.",
    emptyUnread: "Nothing unread",
    emptyArchived: "Nothing archived",
    loading: "Loading notifications",
    error: "Notifications could not be loaded.",
    denied: "You have been signed out.",
    offline: "No connection. What you miss is loaded when it’s back.",
    retry: "Try again",
    arrived: { one: "New notification: {title}", other: "{n} new notifications" },
    readAll: "All marked as read",
    wasArchived: "Archived: {title}",
    pushEnable: "Turn on push notifications",
    pushDisable: "Turn off push notifications",
    pushDenied: "Push notifications are blocked in the settings of your browser.",
    pushFailed: "Push notifications could not be turned on.",
  },
  de: {
    title: "Mitteilungen",
    bell: { one: "Mitteilungen, {n} ungelesen", other: "Mitteilungen, {n} ungelesen" },
    bellNone: "Mitteilungen",
    show: "Anzeigen",
    all: "Alle",
    unread: "Ungelesen",
    archived: "Archiv",
    markAllRead: "Alle als gelesen markieren",
    markRead: "Als gelesen markieren",
    markUnread: "Als ungelesen markieren",
    archive: "Archivieren",
    unarchive: "Zurück in den Eingang",
    close: "Schließen",
    isUnread: "Ungelesen:",
    hint: "Mit den Pfeiltasten von Mitteilung zu Mitteilung; Entf archiviert.",
    empty: "Alles gelesen",
    emptyMore: "Neue Mitteilungen erscheinen hier.",
    emptyUnread: "Nichts Ungelesenes",
    emptyArchived: "Das Archiv ist leer",
    loading: "Mitteilungen werden geladen",
    error: "Die Mitteilungen konnten nicht geladen werden.",
    denied: "Du bist nicht mehr angemeldet.",
    offline: "Keine Verbindung. Was dir entgeht, wird nachgeladen.",
    retry: "Erneut versuchen",
    arrived: { one: "Neue Mitteilung: {title}", other: "{n} neue Mitteilungen" },
    readAll: "Alles als gelesen markiert",
    wasArchived: "Archiviert: {title}",
    pushEnable: "Push-Mitteilungen einschalten",
    pushDisable: "Push-Mitteilungen ausschalten",
    pushDenied: "Push-Mitteilungen sind in den Einstellungen des Browsers gesperrt.",
    pushFailed: "Push-Mitteilungen ließen sich nicht einschalten.",
  },
};

const UNITS = [["week", 604800], ["day", 86400], ["hour", 3600], ["minute", 60]];

/** What is said in one language: texts with plurals, numbers, and how long ago something was. */
export class Words {
  /** `own` are texts of the page, which count before ours. A language that nobody has falls back to English. */
  constructor(language, own = {}) {
    const lang = usable(language);
    this.lang = lang;
    this._texts = { ...MESSAGES.en, ...MESSAGES[lang.split("-")[0].toLowerCase()], ...own };
    this._plural = new Intl.PluralRules(lang);
    this._number = new Intl.NumberFormat(lang);
    this._ago = new Intl.RelativeTimeFormat(lang, { numeric: "auto", style: "short" });
    this._day = new Intl.DateTimeFormat(lang, { dateStyle: "medium" });
    this._exact = new Intl.DateTimeFormat(lang, { dateStyle: "full", timeStyle: "short" });
  }

  text(key, values = {}) {
    let text = this._texts[key];
    if (typeof text === "object") text = text[this._plural.select(values.n)] ?? text.other;
    return `${text}`.replace(/\{(\w+)\}/g, (all, name) =>
      typeof values[name] === "number" ? this._number.format(values[name]) : values[name] ?? all,
    );
  }

  /** 7, or 99+ */
  count(n) {
    return n > 99 ? `${this._number.format(99)}+` : this._number.format(n);
  }

  /** "5 min. ago", "yesterday"; a date after four weeks. */
  ago(date, now = Date.now()) {
    const seconds = Math.min(0, (date - now) / 1000);
    if (seconds < -4 * 604800) return this._day.format(date);
    const [unit, size] = UNITS.find(([, size]) => -seconds >= size) ?? ["second", 60];
    return this._ago.format(Math.ceil(seconds / size) || 0, unit);
  }

  exact(date) {
    return this._exact.format(date);
  }
}

function usable(language) {
  try {
    return Intl.getCanonicalLocales(language)[0] ?? "en";
  } catch {
    return "en";
  }
}
