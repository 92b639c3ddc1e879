/** A line at the bottom that goes away by itself: what was done, and how to take it back. */

import { h, iconButton } from './dom.js';
import { tell, tellPhrase } from './failures.js';

const SECONDS = 12;

const words = h('span', { class: 'grow' });
const undo = h('button', { type: 'button', class: 'plain', t: 'undo', hint: 'undo.keys', 'aria-keyshortcuts': 'Control+Z', hidden: true });
const bar = h('div', { class: 'toast', role: 'status', hidden: true }, words, undo);
bar.append(iconButton('close', 'view.close', () => hide()));

let timer = 0;

/** The line, once in the page. */
export function toaster() {
  document.addEventListener('keydown', (event) => {
    const typing = event.target instanceof HTMLInputElement || event.target instanceof HTMLTextAreaElement;
    if (event.code !== 'KeyZ' || !(event.ctrlKey || event.metaKey) || typing || bar.hidden || undo.hidden) return;
    event.preventDefault();
    undo.click();
  });
  for (const name of ['pointerenter', 'focusin']) bar.addEventListener(name, () => window.clearTimeout(timer));
  for (const name of ['pointerleave', 'focusout']) bar.addEventListener(name, () => wait());
  return bar;
}

/**
 * @param {string} key of what was done
 * @param {(() => void) | null} [back] what the button does; without it there is none
 */
export function toast(key, back = null) {
  tellPhrase(words, key);
  raise(back);
}

/** @param {unknown} error */
export function complain(error) {
  tell(words, error);
  raise(null);
}

/** @param {(() => void) | null} back */
function raise(back) {
  undo.hidden = back === null;
  undo.onclick = () => {
    hide();
    back?.();
  };
  // an open dialog is above everything, so the line has to be inside of it
  (document.querySelector('dialog[open]') ?? document.body).append(bar);
  bar.hidden = false;
  wait();
}

function wait() {
  window.clearTimeout(timer);
  timer = window.setTimeout(hide, SECONDS * 1000);
}

function hide() {
  bar.hidden = true;
}
