/** The page put together: what one part tells, another part does. */

import { announcer } from './announce.js';
import { api } from './api.js';
import { StudioComposer } from './composer.js';
import { h, icon } from './dom.js';
import { StudioGallery } from './gallery.js';
import { bind, language, setLanguage } from './i18n.js';
import { StudioLogin } from './login.js';
import { showFavourite } from './picture-actions.js';
import { preference, prefer } from './preferences.js';
import { repeated } from './requests.js';
import { JobCard } from './job-card.js';
import { StudioStage } from './stage.js';
import { complain, toaster } from './toast.js';
import { StudioViewer } from './viewer.js';

const RETRY = 3000;
const PICTURE = /^#(pic_[0-9a-z]+)$/;

const composer = new StudioComposer();
const stage = new StudioStage();
const gallery = new StudioGallery();
const viewer = new StudioViewer((id, step) => gallery.beside(id, step));
const main = h('main', { id: 'main' });
const skip = h('a', { class: 'skip', href: '#gallery', t: 'skip' });
const leave = h('button', { type: 'button', class: 'plain', t: 'logout', hidden: true, onclick: () => logout() });

setLanguage(language());
bind(document.head.querySelector('title') ?? document.head, '', 'home.title');
document.body.append(
  h('header', { class: 'page' }, skip, h('a', { class: 'mark', href: '/', label: 'home' }, icon('cup'), h('span', { translate: 'no' }, 'chashka')), leave, languageButton()),
  main,
  viewer,
  toaster(),
  announcer(),
);
enter();

function languageButton() {
  const button = h('button', { type: 'button', class: 'plain', t: 'language.other', label: 'language.switch' });
  const mark = () => button.setAttribute('lang', language() === 'ru' ? 'en' : 'ru');
  button.addEventListener('click', () => {
    setLanguage(language() === 'ru' ? 'en' : 'ru');
    mark();
  });
  mark();
  return button;
}

/** Show the studio and everything that the server knows; while it does not answer, ask again. */
async function enter() {
  leave.hidden = !preference('entered');
  skip.hidden = false;
  if (!main.contains(gallery)) {
    main.replaceChildren(composer, stage, gallery);
    if (matchMedia('(hover: hover)').matches && !location.hash) composer.focus(); // no keyboard comes up and covers the page
  }
  try {
    await composer.reload();
    await stage.load();
    await gallery.load();
    const linked = PICTURE.exec(location.hash);
    if (linked?.[1]) await viewer.open(linked[1]);
  } catch (error) {
    if (main.contains(gallery)) {
      complain(error);
      window.setTimeout(enter, RETRY);
    }
  }
}

async function logout() {
  try {
    await api.logout();
    prefer('entered', null);
    stage.replaceChildren();
    lock();
  } catch (error) {
    complain(error);
  }
}

function lock() {
  leave.hidden = true;
  skip.hidden = true;
  if (!main.querySelector('studio-login')) main.replaceChildren(new StudioLogin());
}

document.addEventListener('studio:login', lock);
document.addEventListener('studio:entered', () => {
  prefer('entered', true);
  enter();
});

/**
 * @template Detail
 * @param {string} name
 * @param {(detail: Detail) => unknown} act
 */
function on(name, act) {
  document.addEventListener(name, (event) => act(/** @type {CustomEvent<Detail>} */ (event).detail));
}

on('studio:job', (/** @type {import('./types.js').Job} */ job) => {
  stage.add(job);
  if (stage.getBoundingClientRect().top < 0) stage.scrollIntoView(); // asked for from the gallery, far below
});
on('studio:request', (/** @type {object} */ body) => composer.send(body));
on('studio:vary', (/** @type {string} */ id) => composer.vary(id));
on('studio:start', (/** @type {string} */ id) => composer.startFrom(id));
on('studio:open', (/** @type {string} */ id) => viewer.open(id));
on('studio:delete', (/** @type {string} */ id) => gallery.discard(id));
on('studio:pictures', () => gallery.refresh());
on('studio:favour', (/** @type {{id: string, favourite: boolean}} */ { id, favourite }) => {
  showFavourite(id, favourite);
  gallery.favour(id, favourite);
});
on('studio:deleted', (/** @type {{id: string, gone: boolean}} */ { id, gone }) => {
  for (const card of document.querySelectorAll('job-card')) if (card instanceof JobCard) card.hide(id, gone);
});
on('studio:again', async (/** @type {string} */ id) => {
  try {
    composer.send(repeated(await api.job(id)));
  } catch (error) {
    complain(error);
  }
});

document.addEventListener('keydown', (event) => {
  const searching = event.target instanceof HTMLInputElement && event.target.type === 'search' && event.target.value;
  if (event.key !== 'Escape' || event.isComposing || searching || document.querySelector('dialog[open]')) return;
  stage.cancel();
});
