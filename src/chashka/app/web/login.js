/** Where a key is needed: the page behind it waits. */

import { api, ApiError } from './api.js';
import { h, icon } from './dom.js';
import { tell, tellPhrase } from './failures.js';

export class StudioLogin extends HTMLElement {
  #field = h('input', { type: 'password', id: 'key', autocomplete: 'current-password', required: true, 'aria-describedby': 'key-hint' });
  #problem = h('p', { class: 'problem', role: 'alert' });

  connectedCallback() {
    if (!this.childElementCount) {
      this.append(
        h(
          'form',
          { class: 'login', noValidate: true, onsubmit: (/** @type {Event} */ event) => this.#enter(event) },
          icon('cup'),
          h('h1', { t: 'login.title' }),
          h('label', { t: 'login.key', htmlFor: 'key' }),
          this.#field,
          h('p', { t: 'login.hint', class: 'hint', id: 'key-hint' }),
          h('button', { type: 'submit', class: 'draw', t: 'login.enter' }),
          this.#problem,
        ),
      );
    }
    this.#field.focus();
  }

  /** @param {Event} event */
  async #enter(event) {
    event.preventDefault();
    tell(this.#problem, null);
    try {
      await api.login(this.#field.value.trim());
      this.#field.value = '';
      this.dispatchEvent(new CustomEvent('studio:entered', { bubbles: true }));
    } catch (error) {
      const wrong = error instanceof ApiError && (error.status === 401 || error.status === 422);
      if (wrong) tellPhrase(this.#problem, 'login.wrong');
      else tell(this.#problem, error);
      this.#field.select();
    }
  }
}

customElements.define('studio-login', StudioLogin);
