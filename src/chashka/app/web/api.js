/** What the page asks the server for. Every failure is an ApiError; a missing login is also told to the page. */

/** @import {Job, Model, Picture, Schema} from './types.js' */

export class ApiError extends Error {
  /**
   * @param {number} status of HTTP; 0: the server did not answer
   * @param {{message?: string, code?: string | null, param?: string | null}} said
   * @param {number} wait seconds after which trying again makes sense; 0: not said
   */
  constructor(status, said, wait = 0) {
    super(said.message ?? '');
    this.status = status;
    this.code = said.code ?? '';
    this.param = said.param ?? '';
    this.wait = wait;
  }
}

/**
 * @param {string} method
 * @param {string} path
 * @param {BodyInit | object | null} [body] FormData as it is, anything else as JSON
 * @returns {Promise<any>} the answer's JSON, or null if it is empty
 */
async function ask(method, path, body = null) {
  /** @type {Record<string, string>} */
  const headers = { 'X-Chashka': 'studio', Accept: 'application/json' };
  const form = body instanceof FormData;
  if (body !== null && !form) headers['Content-Type'] = 'application/json';
  let answer;
  try {
    const sent = body === null ? null : form ? body : JSON.stringify(body);
    answer = await fetch(path, { method, headers, body: sent, credentials: 'same-origin' });
  } catch {
    throw new ApiError(0, {});
  }
  const text = await answer.text();
  if (answer.ok) return text ? JSON.parse(text) : null;
  if (answer.status === 401 && path !== '/login') document.dispatchEvent(new CustomEvent('studio:login'));
  throw new ApiError(answer.status, reason(text), Number(answer.headers.get('Retry-After') ?? 0) || 0);
}

/**
 * A file of the server, as it is.
 *
 * @param {string} path
 * @param {RequestInit} [how]
 * @returns {Promise<Blob>}
 */
async function file(path, how = {}) {
  const answer = await fetch(path, how).catch(() => null);
  if (!answer) throw new ApiError(0, {});
  if (!answer.ok) throw new ApiError(answer.status, reason(await answer.text()), Number(answer.headers.get('Retry-After') ?? 0) || 0);
  return answer.blob();
}

/** @param {string} text of an answer that is an error */
function reason(text) {
  try {
    return JSON.parse(text).error ?? {};
  } catch {
    return {};
  }
}

/** @param {Record<string, string | number | boolean | null | undefined>} values */
function query(values) {
  const pairs = Object.entries(values).filter(([, value]) => value !== null && value !== undefined && value !== '');
  return new URLSearchParams(pairs.map(([name, value]) => [name, String(value)])).toString();
}

export const api = {
  file,
  /** @param {string} key @returns {Promise<void>} */
  login: (key) => ask('POST', '/login', { key }),
  /** @returns {Promise<void>} */
  logout: () => ask('POST', '/logout', {}),

  /** @param {object} body @returns {Promise<Job>} */
  submit: (body) => ask('POST', '/v1/jobs', body),
  /** @param {string} body JSON @param {AbortSignal} signal @returns {Promise<Blob>} the picture */
  sketch: (body, signal) =>
    file('/v1/sketches', { method: 'POST', headers: { 'Content-Type': 'application/json', 'X-Chashka': 'studio' }, body, signal }),
  /** @param {string} id @returns {Promise<Job>} */
  job: (id) => ask('GET', `/v1/jobs/${id}`),
  /** @param {{state?: string, limit?: number}} [which] @returns {Promise<Job[]>} newest first */
  jobs: async (which = {}) => (await ask('GET', `/v1/jobs?${query(which)}`)).data,
  /** @param {string} id @returns {Promise<Job>} */
  cancel: (id) => ask('POST', `/v1/jobs/${id}/cancel`, {}),
  /** @param {string} id */
  events: (id) => new EventSource(`/v1/jobs/${id}/events`),

  /**
   * @param {{words?: string, favourite?: boolean, before?: number | null, limit?: number}} which
   * @returns {Promise<{data: Picture[], next: number | null}>}
   */
  pictures: (which) => ask('GET', `/v1/images?${query(which)}`),
  /** @param {File} file @param {boolean} agreed whether the people in it did @returns {Promise<Picture>} */
  upload: (file, agreed) => {
    const form = new FormData();
    form.append('file', file);
    if (agreed) form.append('consent', 'true');
    return ask('POST', '/v1/images', form);
  },
  /** @param {string} id @returns {Promise<any>} */
  metadata: (id) => ask('GET', `/v1/images/${id}/metadata`),
  /** @param {string} id @returns {Promise<any>} */
  lineage: (id) => ask('GET', `/v1/images/${id}/lineage`),
  /** @param {string} id @param {boolean} favourite @returns {Promise<Picture>} */
  favour: (id, favourite) => ask('PATCH', `/v1/images/${id}`, { favourite }),
  /** @param {string} id @returns {Promise<void>} */
  remove: (id) => ask('DELETE', `/v1/images/${id}`),
  /** @param {string} id @returns {Promise<Picture>} */
  restore: (id) => ask('POST', `/v1/images/${id}/restore`, {}),

  /** @returns {Promise<Model[]>} */
  models: async () => (await ask('GET', '/v1/models')).data,
  /** @returns {Promise<Record<string, number>>} what requests may ask for at most on this server */
  limits: async () => (await ask('GET', '/v1/limits')).limits,
  /** @param {string} family @returns {Promise<Schema>} */
  options: (family) => ask('GET', `/v1/options/${family}`),
};

/** Where a picture's file is. @param {string} id */
export const fileOf = (id) => `/v1/images/${id}`;
/** Where its small picture is. @param {string} id */
export const thumbnailOf = (id) => `/v1/images/${id}/thumbnail`;
