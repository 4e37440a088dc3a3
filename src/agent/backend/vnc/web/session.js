// The page of one session: shows the desktop, says why it is not there, and comes back by itself where that may help.
import RFB from './novnc/core/rfb.js';

const at = (id) => document.getElementById(id);
const address = new URL('ws', window.location.href);
address.protocol = address.protocol.replace('http', 'ws');
address.search = '';
address.hash = '';

// Close codes after which trying again may help: the connection broke (also an agent that was killed), and a restart.
const COMES_BACK = new Set([1006, 1012]);
// Why a connection ended for good.
const ENDINGS = {
  1000: ['Disconnected', 'The connection was closed.'],
  1011: ['The desktop does not answer', 'The session is there, but its desktop could not be reached.'],
  4400: ['Connection ended', 'This browser and the server did not understand each other.'],
  4403: ['No access', 'You are not, or no longer, allowed to see this session.'],
  4410: ['The session has ended', 'Its desktop is closed. You may close this window.'],
  4429: ['The session is full', 'As many people as may be are connected. Try again later.'],
};
const FIRST_DELAY_MS = 500;
const LAST_DELAY_MS = 10_000;
// How long the bar stays to be seen after the first connect.
const GREETING_MS = 5_000;

let rfb = null;
let delay = FIRST_DELAY_MS;
let fits = true;
let wasConnected = false;
// Ends the pause before the next try early.
let wake = null;
// Text that both sides have, so that it is not sent back where it came from.
let shared = null;

function show(title, text, { busy = false, button = '' } = {}) {
  at('exchange').close();
  at('title').textContent = title;
  at('text').textContent = text;
  at('spoken').textContent = '';
  at('spinner').hidden = !busy;
  at('again').hidden = !button;
  at('again').textContent = button;
  at('notice').hidden = false;
  at('bar').inert = true;
  document.body.classList.remove('connected', 'greeted');
  if (button) at('again').focus();
}

function connected() {
  delay = FIRST_DELAY_MS;
  at('notice').hidden = true;
  at('bar').inert = false;
  document.body.classList.add('connected');
  at('spoken').textContent = 'Connected. Control, Alt and Shift together lead out of the desktop.';
  if (!wasConnected) {
    document.body.classList.add('greeted');
    setTimeout(() => document.body.classList.remove('greeted'), GREETING_MS);
  }
  wasConnected = true;
  rfb.focus();
}

function connect() {
  const socket = new WebSocket(address, ['binary']);
  socket.binaryType = 'arraybuffer';
  // The viewer takes the socket's handlers over; this one hears of the end beside it.
  socket.addEventListener('close', (event) => ended(event.code));
  at('screen').replaceChildren();
  rfb = new RFB(at('screen'), socket, { shared: true });
  rfb.background = 'transparent';
  rfb.scaleViewport = true;
  rfb.resizeSession = fits;
  rfb.addEventListener('connect', connected);
  rfb.addEventListener('desktopname', (event) => {
    at('name').textContent = event.detail.name;
    document.title = event.detail.name;
  });
  rfb.addEventListener('clipboard', (event) => {
    shared = event.detail.text;
    at('words').value = shared;
    // Denied without a click or the permission: then there is the dialog.
    navigator.clipboard?.writeText(shared).catch(() => {});
  });
}

async function ended(code) {
  rfb = null;
  if (!COMES_BACK.has(code)) {
    const [title, text] = ENDINGS[code] ?? ['Disconnected', `The connection ended with code ${code}.`];
    show(title, text, { button: code === 4403 || code === 4410 ? '' : 'Connect again' });
    return;
  }
  const lost = ['Connection lost', 'Trying to get it back. Your desktop goes on meanwhile.'];
  const slow = ['Still connecting', 'The server does not answer yet. Trying again.'];
  show(...(wasConnected ? lost : slow), { busy: true, button: 'Try now' });
  await new Promise((done) => {
    wake = done;
    setTimeout(done, delay * (0.75 + Math.random() / 2));
  });
  wake = null;
  delay = Math.min(delay * 2, LAST_DELAY_MS);
  // A refused connection looks like a broken one to a script: the page itself tells them apart.
  let status = 0;
  try {
    status = (await fetch(window.location.pathname, { method: 'HEAD', cache: 'no-store' })).status;
  } catch {
    // Nobody there yet.
  }
  if (status === 401 || status === 403) {
    show('No access', 'The link is no longer valid, or the session has ended. Ask for a new link.');
  } else if (status === 200) {
    connect();
  } else {
    ended(1006);
  }
}

function give(text) {
  if (!rfb || !text || text === shared) return;
  shared = text;
  rfb.clipboardPasteFrom(text);
}

at('again').addEventListener('click', () => {
  if (wake) {
    wake();
    return;
  }
  show('Connecting', 'Your desktop will be here in a moment.', { busy: true });
  connect();
});
at('keys').addEventListener('click', () => {
  rfb?.sendCtrlAltDel();
  rfb?.focus();
});
at('fit').addEventListener('click', () => {
  fits = !fits;
  at('fit').setAttribute('aria-pressed', String(fits));
  if (rfb) rfb.resizeSession = fits;
});
at('full').addEventListener('click', () => {
  if (document.fullscreenElement) {
    document.exitFullscreen();
  } else {
    document.documentElement.requestFullscreen().catch(() => {});
  }
});
document.addEventListener('fullscreenchange', () => {
  const isFull = document.fullscreenElement !== null;
  at('full').setAttribute('aria-pressed', String(isFull));
  // There, keys of the browser are the desktop's too; a long Esc still leaves.
  if (isFull) navigator.keyboard?.lock?.().catch(() => {});
  else navigator.keyboard?.unlock?.();
  rfb?.focus();
});

at('clipboard').addEventListener('click', () => at('exchange').showModal());
at('send').addEventListener('click', () => {
  give(at('words').value);
  at('exchange').close();
});
at('done').addEventListener('click', () => at('exchange').close());
at('exchange').addEventListener('close', () => rfb?.focus());
// Text copied elsewhere is offered to the desktop when the window is looked at again.
window.addEventListener('focus', async () => {
  try {
    give(await navigator.clipboard.readText());
  } catch {
    // The browser does not let us: there is the dialog.
  }
});

// The way out of the desktop, which takes every other key: Control, Alt and Shift together.
window.addEventListener(
  'keydown',
  (event) => {
    const isModifier = /^(Control|Alt|Shift|Meta)/.test(event.code);
    if (!isModifier || !event.ctrlKey || !event.altKey || !event.shiftKey || at('bar').inert) return;
    event.preventDefault();
    event.stopPropagation();
    // To the viewer the window is left: it lets go of all keys in the desktop.
    window.dispatchEvent(new Event('blur'));
    at('fit').focus();
  },
  { capture: true },
);
at('bar').addEventListener('keydown', (event) => {
  if (event.key === 'Escape') rfb?.focus();
});

connect();
