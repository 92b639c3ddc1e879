/** What is said to people who do not see the page: one quiet live region. */

import { h } from './dom.js';
import { bind, unbind } from './i18n.js';

const PAUSE = 50;
const region = h('div', { class: 'hidden', role: 'status', 'aria-live': 'polite' });

/** The region, once in the page. */
export function announcer() {
  return region;
}

/**
 * @param {string} key
 * @param {...any} values
 */
export function announce(key, ...values) {
  unbind(region); // the same words twice are two announcements
  window.setTimeout(() => bind(region, '', key, ...values), PAUSE);
}
