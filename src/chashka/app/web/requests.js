/** Requests that are made from what was drawn already. */

/** @import {Job} from './types.js' */

/** Fields that say which picture of a seed it was, or what the server made of others; without them a new one is drawn. */
const CHANCE = ['seed', 'first', 'subseed', 'subseed_of', 'prompts'];
/** Fields of the drawer that variations take over: what to draw says the picture, its size too. */
const KEPT = ['model', 'n', 'steps', 'guidance_scale', 'fast'];

/**
 * The same once more, with a seed of the server's choice.
 *
 * @param {Job} job
 * @returns {object}
 */
export function repeated(job) {
  const fields = Object.fromEntries(Object.entries(job.fields).filter(([name]) => !CHANCE.includes(name)));
  return { kind: job.kind, ...fields, inputs: job.parents };
}

/**
 * Other pictures of what one shows.
 *
 * @param {string} id of the picture
 * @param {Record<string, any>} settings as the drawer gives them
 * @returns {object}
 */
export function varied(id, settings) {
  const kept = Object.fromEntries(Object.entries(settings).filter(([name]) => KEPT.includes(name)));
  return { kind: 'vary', ...kept, inputs: { init: id } };
}
