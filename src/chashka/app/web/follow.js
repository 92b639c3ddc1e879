/** Following jobs as the server draws them: few connections, and no job forgotten when one breaks. */

import { api, ApiError } from './api.js';

/** @import {Job} from './types.js' */

/**
 * @typedef {object} Listener
 * @property {(job: Job) => void} onjob what the server knows of the job now
 * @property {(position: number) => void} onplace its place in the queue, from 1
 * @property {(done: number, total: number) => void} onprogress
 * @property {(index: number, address: string) => void} onpreview a small picture of what is being drawn
 */

/** Browsers allow six connections to a server: so many jobs are listened to, the others are asked after. */
const LISTENED = 2;
const PAUSE = 3000;

/** @type {Map<string, Listener>} */
const followed = new Map();
/** @type {Map<string, EventSource>} */
const sources = new Map();
let timer = 0;

/** @param {Job} job */
export function ended(job) {
  return job.state !== 'queued' && job.state !== 'running';
}

/**
 * Tell the listener what becomes of a job, until it has ended.
 *
 * @param {string} id
 * @param {Listener} listener
 */
export function follow(id, listener) {
  followed.set(id, listener);
  connect();
  timer ||= window.setInterval(askAfterTheRest, PAUSE);
}

/** @param {string} id */
export function unfollow(id) {
  followed.delete(id);
  sources.get(id)?.close();
  sources.delete(id);
  if (followed.size) connect();
  else {
    window.clearInterval(timer);
    timer = 0;
  }
}

/** Listen to the oldest ones: they are drawn first. */
function connect() {
  for (const id of [...followed.keys()].sort()) {
    if (sources.size >= LISTENED) return;
    if (!sources.has(id)) listen(id);
  }
}

/** @param {string} id */
function listen(id) {
  const source = api.events(id);
  sources.set(id, source);
  source.addEventListener('queue', (event) => {
    followed.get(id)?.onplace(JSON.parse(event.data).position);
  });
  source.addEventListener('progress', (event) => {
    const said = JSON.parse(event.data);
    followed.get(id)?.onprogress(said.done, said.total);
  });
  source.addEventListener('preview', (event) => {
    const said = JSON.parse(event.data);
    followed.get(id)?.onpreview(said.index, `data:${said.media_type};base64,${said.b64}`);
  });
  source.addEventListener('picture', () => refresh(id));
  source.addEventListener('state', () => refresh(id));
  source.onerror = () => {
    if (source.readyState !== EventSource.CLOSED) return; // the browser connects again by itself
    sources.delete(id);
  };
}

/** Jobs that have no connection, or lost it. */
function askAfterTheRest() {
  connect();
  for (const id of followed.keys()) {
    if (sources.get(id)?.readyState !== EventSource.OPEN) refresh(id);
  }
}

/** @param {string} id */
async function refresh(id) {
  try {
    const job = await api.job(id);
    followed.get(id)?.onjob(job);
    if (ended(job)) unfollow(id);
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) unfollow(id);
    // otherwise it is asked after again
  }
}
