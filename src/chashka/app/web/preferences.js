/** How a person likes the page: kept in the browser, never sent. Everything else is the server's to keep. */

const PREFIX = 'chashka.';

/**
 * @param {string} name
 * @returns {any} what was kept, or null
 */
export function preference(name) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + name) ?? 'null');
  } catch {
    return null; // storage is switched off, or somebody wrote into it
  }
}

/**
 * @param {string} name
 * @param {any} value
 */
export function prefer(name, value) {
  try {
    if (value === null) localStorage.removeItem(PREFIX + name);
    else localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // without storage the page works, and forgets
  }
}

/** The text in the field that was not sent yet: for this tab alone, so that a reload does not lose it. */
export const draft = {
  read() {
    try {
      return sessionStorage.getItem(`${PREFIX}draft`) ?? '';
    } catch {
      return '';
    }
  },
  /** @param {string} text */
  keep(text) {
    try {
      sessionStorage.setItem(`${PREFIX}draft`, text);
    } catch {
      // likewise
    }
  },
};
