/** What went wrong, in one line of the person's language, with what to do; what the server says more stands behind it (limits
 * in that language, anything rarer in English, marked as such). */

import { ApiError } from './api.js';
import { h, quoted } from './dom.js';
import { known } from './i18n.js';

/**
 * @typedef {object} Failure
 * @property {string} key of the phrase
 * @property {any[]} values of the phrase
 * @property {string} more what the server says of the field or the file; empty where the phrase says it all
 */

/** @type {Record<number, string>} */
const BY_STATUS = {
  0: 'error.offline',
  401: 'error.login',
  403: 'error.forbidden',
  404: 'error.gone',
  413: 'error.too_large',
  429: 'error.busy',
  503: 'error.stopping',
  507: 'error.storage_full',
};
/** Codes whose phrase says that something is wrong, and the server what it is. */
const SAID_MORE = new Set(['input', 'missing_extra']);

/**
 * @param {unknown} error
 * @returns {Failure}
 */
function explained(error) {
  if (!(error instanceof ApiError)) return { key: 'error.page', values: [], more: String(error) };
  if (error.status === 429) return { key: 'error.busy', values: [error.wait], more: '' };
  if (known(`field.${error.param}`)) return { key: 'error.field', values: [`field.${error.param}`], more: rest(error) };
  const key = known(`error.${error.code}`) ? `error.${error.code}` : BY_STATUS[error.status];
  if (key && !SAID_MORE.has(error.code)) return { key, values: [], more: '' };
  if (error.status < 500) return { key: 'error.input', values: [], more: error.message };
  return { key: 'error.server', values: [], more: '' };
}

/** The message without the field's name, which the phrase says. @param {ApiError} error */
function rest(error) {
  return error.message.replace(`${error.param}: `, '');
}

/** Of a sentence about a limit the phrase that says the same; null for any other sentence. @param {string} more */
function limit(more) {
  const said = /^(\S+) is not possible; allowed: (?:an? .*?)?(?:from )?(-?[\d.]+) to (-?[\d.]+)\b/.exec(more);
  if (said) return ['error.between', ...said.slice(1)];
  const most = /^(\S+) is not possible; allowed: (?:an? .*?)?at most ([\d.]+)\b/.exec(more);
  if (most) return ['error.most', ...most.slice(1)];
  const longest = /allowed: text of (?:\d+ to|at most) (\d+) characters/.exec(more);
  return longest ? ['error.longest', Number(longest[1])] : null;
}

/**
 * Say it in an element; `null` says nothing any more.
 *
 * @param {Element} element
 * @param {unknown} error
 */
export function tell(element, error) {
  if (error === null) element.replaceChildren();
  else show(element, explained(error));
}

/**
 * @param {Element} element
 * @param {string} key of a phrase that needs nothing more
 */
export function tellPhrase(element, key) {
  show(element, { key, values: [], more: '' });
}

/**
 * Say why a job failed.
 *
 * @param {Element} element
 * @param {import('./types.js').Problem} problem
 */
export function tellProblem(element, problem) {
  const key = `problem.${problem.code}`;
  if (known(key)) show(element, { key, values: [], more: SAID_MORE.has(problem.code) ? problem.message : '' });
  else show(element, { key: 'problem.other', values: [], more: problem.message });
}

/**
 * @param {Element} element
 * @param {Failure} failure
 */
function show(element, { key, values, more }) {
  const phrase = limit(more);
  const said = !more ? [] : [' ', phrase ? h('span', { t: phrase }) : quoted('span', more, { lang: 'en' })];
  element.replaceChildren(h('span', { t: [key, ...values] }), ...said);
}
