/** What can be done with a picture, as small buttons and links. */

import { api, fileOf } from './api.js';
import { h, icon, iconButton } from './dom.js';
import { bind } from './i18n.js';
import { complain } from './toast.js';

const LONGEST_NAME = 60;

/**
 * @param {{id: string, prompt: string, favourite: boolean}} picture
 * @returns {HTMLElement[]}
 */
export function pictureActions(picture) {
  const vary = iconButton('vary', 'picture.vary', () => {
    vary.dispatchEvent(new CustomEvent('studio:vary', { bubbles: true, detail: picture.id }));
  });
  return [favouriteButton(picture), vary, download(picture, 'png'), download(picture, 'jpeg')];
}

/**
 * A heart that is pressed or not. The page is told, so that every other heart of the picture follows.
 *
 * @param {{id: string, favourite: boolean}} picture
 */
export function favouriteButton(picture) {
  const button = iconButton('heart', 'picture.favourite', async () => {
    const wanted = button.getAttribute('aria-pressed') !== 'true';
    press(button, wanted);
    try {
      await api.favour(picture.id, wanted);
      button.dispatchEvent(new CustomEvent('studio:favour', { bubbles: true, detail: { id: picture.id, favourite: wanted } }));
    } catch (error) {
      press(button, !wanted);
      complain(error);
    }
  });
  button.setAttribute('data-favourite', picture.id);
  press(button, picture.favourite);
  return button;
}

/**
 * @param {Element} button
 * @param {boolean} pressed
 */
function press(button, pressed) {
  button.setAttribute('aria-pressed', String(pressed));
  button.querySelector('use')?.setAttribute('href', `/web/icons.svg#${pressed ? 'heart-full' : 'heart'}`);
}

/** Every heart of a picture follows. @param {string} id @param {boolean} favourite */
export function showFavourite(id, favourite) {
  for (const button of document.querySelectorAll(`[data-favourite="${id}"]`)) press(button, favourite);
}

/**
 * The file itself, transparent; or as JPEG, which the server puts on white. Both keep what the file says of its origin.
 *
 * @param {{id: string, prompt: string}} picture
 * @param {"png" | "jpeg"} format
 * @param {string} [text] key of the link's text; without one it is small, and its hint says more
 */
export function download(picture, format, text) {
  const suffix = format === 'png' ? 'png' : 'jpg';
  const name = `${fileName(picture.prompt)}.${suffix}`;
  const link = h('a', { href: `${fileOf(picture.id)}?format=${format}`, download: name });
  link.addEventListener('click', (event) => {
    event.preventDefault();
    save(link.href, name);
  });
  link.className = text ? 'button' : 'quiet download';
  if (text) link.append(icon('download'), h('span', { t: text }));
  else {
    link.append(icon('download'), suffix.toUpperCase());
    bind(link, 'title', `picture.${format}`);
    bind(link, 'aria-label', `picture.${format}`);
  }
  return link;
}

/**
 * Fetched first, so that a refusal is said in the page and not saved as a file, and the file is named by its words.
 *
 * @param {string} path
 * @param {string} name
 */
async function save(path, name) {
  try {
    const address = URL.createObjectURL(await api.file(path));
    h('a', { href: address, download: name }).click();
    window.setTimeout(() => URL.revokeObjectURL(address), 60_000);
  } catch (error) {
    complain(error);
  }
}

/** @param {string} prompt @returns {string} letters and digits of any script, joined by dashes */
function fileName(prompt) {
  const words = prompt.toLowerCase().match(/[\p{L}\p{M}\p{N}]+/gu) ?? [];
  return words.join('-').slice(0, LONGEST_NAME).replace(/-$/, '') || 'chashka';
}
