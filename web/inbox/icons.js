/** What is drawn on buttons, by the name of the text that says the same. */

export const BELL = "M6 8a6 6 0 0 1 12 0c0 7 3 8 3 9H3c0-1 3-2 3-9m4 12a2 2 0 0 0 4 0";

export const ICONS = {
  markAllRead: "M18 7 9.5 17 5 12.5m17-2.5-7.5 7.5L13 16",
  close: "M18 6 6 18M6 6l12 12",
  markRead: "M20 6 9 17l-5-5",
  markUnread: "M7 12a5 5 0 1 0 10 0 5 5 0 1 0-10 0",
  archive: "M3 5h18v4H3zm2 4v10h14V9m-9 4h4",
  unarchive: "M3 5h18v4H3zm2 4v10h14V9m-7 8v-5m-2.5 2.5L12 12l2.5 2.5",
};
