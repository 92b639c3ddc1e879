/** The pictures that are being drawn, and the last ones that were: what the server knows, so a reload changes nothing. */

import { api } from './api.js';
import { ended } from './follow.js';
import { JobCard } from './job-card.js';

/** @import {Job} from './types.js' */

const LATEST = 50;
const STATES = ['running', 'queued'];

export class StudioStage extends HTMLElement {
  /** Show what is drawn now and what was drawn last. */
  async load() {
    const lists = await Promise.all([...STATES.map((state) => api.jobs({ state, limit: LATEST })), api.jobs({ limit: 1 })]);
    const shown = lists.flat().filter((job) => job.state !== 'done' || job.pictures.length); // not where all was deleted since
    const jobs = new Map(shown.map((job) => [job.id, job]));
    for (const id of [...jobs.keys()].sort()) this.add(/** @type {Job} */ (jobs.get(id)), false);
  }

  /**
   * @param {Job} job
   * @param {boolean} fresh whether the person asked for it just now
   */
  add(job, fresh = true) {
    if (this.#cards().some((card) => card.job.id === job.id)) return;
    const card = new JobCard();
    card.show(job, fresh);
    this.prepend(card);
    this.tidy();
  }

  /** Cancel what the person asked for last, if it is not ready yet. @returns {boolean} whether there was something */
  cancel() {
    const card = this.#cards().find((one) => !ended(one.job));
    card?.cancel();
    return card !== undefined;
  }

  /** Beside the newest job only those stay that are not ready: the gallery has the others. */
  tidy() {
    for (const card of this.#cards().slice(1)) {
      if (ended(card.job)) card.remove();
    }
  }

  #cards() {
    return /** @type {JobCard[]} */ ([...this.querySelectorAll('job-card')]);
  }
}

customElements.define('studio-stage', StudioStage);
