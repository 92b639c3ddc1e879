/** The tick that a shared server asks for with an uploaded picture: nobody can be recognised in it, or those who can agreed. */

import { h, iconButton } from './dom.js';

export class StudioConsent extends HTMLElement {
  /** @type {File | null} that waits for the tick */
  #file = null;
  #tick = h('input', { type: 'checkbox', id: 'consent', onchange: () => this.#ticked() });
  #name = h('span', { class: 'name', translate: 'no', dir: 'auto' });

  connectedCallback() {
    if (this.childElementCount) return;
    this.hidden = true;
    this.className = 'consent';
    this.append(
      this.#tick,
      h('label', { class: 'grow', htmlFor: 'consent' }, h('span', { t: 'consent' }), ' ', this.#name),
      iconButton('close', 'consent.drop', () => this.ask(null)),
    );
  }

  /** Ask about a file; null: nothing is asked any more. @param {File | null} file */
  ask(file) {
    this.#file = file;
    this.#tick.checked = false;
    this.#name.textContent = file?.name ?? '';
    this.hidden = file === null;
    if (file) this.#tick.focus();
  }

  #ticked() {
    const file = this.#file;
    if (!file || !this.#tick.checked) return;
    this.ask(null);
    this.dispatchEvent(new CustomEvent('studio:agreed', { detail: file }));
  }
}

customElements.define('studio-consent', StudioConsent);
