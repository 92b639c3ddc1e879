/** One job: its words, its pictures while they form, and what can be done with it. */

import { announce } from './announce.js';
import { api } from './api.js';
import { h, icon, quoted } from './dom.js';
import { tell, tellProblem } from './failures.js';
import { ended, follow, unfollow } from './follow.js';
import { bind } from './i18n.js';
import { PictureTile } from './picture-tile.js';
import { repeated } from './requests.js';

/** @import {Job} from './types.js' */

const SQUARE = 256;
const QUARTER = 25;

export class JobCard extends HTMLElement {
  /** @type {Job} */
  job = /** @type {any} */ (null);
  /** @type {PictureTile[]} */
  #tiles = [];
  #said = 0;
  #words = h('p', { class: 'words' });
  #state = h('span', { class: 'state' });
  #bar = h('progress', { max: 1, value: 0, label: 'drawing' });
  #grid = h('div', { class: 'tiles' });
  #notes = h('ul', { class: 'notes', hidden: true });
  #problem = h('p', { class: 'problem', role: 'alert' });
  #cancel = h('button', { type: 'button', class: 'plain', t: 'job.cancel', onclick: () => this.cancel() });
  #again = h('button', { type: 'button', class: 'plain', onclick: () => this.#repeat() }, icon('again'), h('span', { t: 'job.again' }));

  /**
   * @param {Job} job
   * @param {boolean} fresh whether to say that it has begun
   */
  show(job, fresh) {
    this.job = job;
    const prompt = job.fields.prompt;
    if (prompt) this.#words.append(quoted('span', prompt));
    else bind(this.#words, '', 'job.untitled');
    const [width, height] = [job.fields.width ?? job.fields.height ?? SQUARE, job.fields.height ?? job.fields.width ?? SQUARE];
    this.#tiles = Array.from({ length: job.fields.n ?? 1 }, (_, index) => new PictureTile(index + 1, width, height, prompt ?? ''));
    this.#grid.append(...this.#tiles);
    this.#grid.setAttribute('data-many', String(Math.min(this.#tiles.length, 4)));
    const head = h('header', { class: 'row' }, this.#words, this.#state, this.#cancel, this.#again, this.#bar);
    this.append(h('article', { class: 'job' }, head, this.#grid, this.#problem, this.#notes));
    this.update(job);
    if (fresh) announce('say.begun');
  }

  connectedCallback() {
    if (ended(this.job)) return;
    follow(this.job.id, {
      onjob: (job) => this.update(job),
      onplace: (position) => this.#waits(position),
      onprogress: (done, total) => this.#progress(done, total),
      onpreview: (index, address) => this.#tiles[index]?.preview(address),
    });
  }

  disconnectedCallback() {
    unfollow(this.job.id);
  }

  /** @param {Job} job as the server knows it now */
  update(job) {
    const before = this.job;
    this.job = job;
    const over = ended(job);
    for (const picture of job.pictures) this.#tiles[picture.index]?.ready(picture);
    this.#progress(job.progress.done, job.progress.total);
    if (over) bind(this.#state, '', `job.${job.state}`);
    this.#cancel.hidden = over;
    this.#again.hidden = !over;
    this.#bar.classList.toggle('over', over);
    this.classList.toggle('over', over);
    this.#remarks(job);
    if (over) for (const tile of this.#tiles) tile.stop();
    if (over && !ended(before)) this.#finished(job);
    else if (job.pictures.length > before.pictures.length) this.#changed();
  }

  /** @param {number} position its place in the queue now, from 1 */
  #waits(position) {
    if (this.job.state !== 'queued') return;
    this.job = { ...this.job, position };
    this.#progress(this.job.progress.done, this.job.progress.total);
  }

  /** @param {Job} job */
  #finished(job) {
    if (job.state === 'done') announce('say.ready', job.pictures.length);
    if (job.state === 'canceled') announce('say.canceled');
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new CustomEvent('studio:pictures', { bubbles: true }));
  }

  /** @param {Job} job */
  #remarks(job) {
    this.#notes.hidden = job.notes.length === 0;
    this.#notes.replaceChildren(...job.notes.map((note) => quoted('li', note, { lang: 'en' })));
    if (job.state === 'failed' && job.problem) tellProblem(this.#problem, job.problem);
  }

  /**
   * @param {number} done
   * @param {number} total steps
   */
  #progress(done, total) {
    if (ended(this.job)) return;
    const share = total ? done / total : 0;
    if (total) this.#bar.value = share;
    else this.#bar.removeAttribute('value');
    for (const tile of this.#tiles) tile.sharpen(share);
    if (this.job.state === 'queued' && !done) bind(this.#state, '', 'job.queued', this.job.position ?? 1);
    else bind(this.#state, '', 'job.running', done, total);
    const percent = Math.floor((share * 100) / QUARTER) * QUARTER;
    if (percent > this.#said && percent < 100) announce('say.percent', percent);
    this.#said = Math.max(this.#said, percent);
  }

  async cancel() {
    try {
      this.update(await api.cancel(this.job.id));
    } catch (error) {
      tell(this.#problem, error);
    }
  }

  #repeat() {
    tell(this.#problem, null);
    this.dispatchEvent(new CustomEvent('studio:request', { bubbles: true, detail: repeated(this.job) }));
  }

  /** A picture was deleted, or is back. @param {string} id @param {boolean} gone */
  hide(id, gone) {
    for (const tile of this.#tiles) {
      if (tile.picture === id) tile.classList.toggle('gone', gone);
    }
  }
}

customElements.define('job-card', JobCard);
