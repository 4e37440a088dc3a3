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

let rfb = null;
let delay = FIRST_DELAY_MS;
let fits = true;

function show(title, text, { busy = false, again = false } = {}) {
  at('title').textContent = title;
  at('text').textContent = text;
  at('spinner').hidden = !busy;
  at('again').hidden = !again;
  at('notice').hidden = false;
  document.body.classList.remove('connected');
}

function connected() {
  delay = FIRST_DELAY_MS;
  at('notice').hidden = true;
  document.body.classList.add('connected');
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
    // Denied without a click or the permission: then there is nothing to do.
    navigator.clipboard?.writeText(event.detail.text).catch(() => {});
  });
}

async function ended(code) {
  if (!COMES_BACK.has(code)) {
    const [title, text] = ENDINGS[code] ?? ['Disconnected', `The connection ended with code ${code}.`];
    show(title, text, { again: code !== 4403 && code !== 4410 });
    return;
  }
  show('Connection lost', 'Trying to get it back. Your desktop goes on meanwhile.', { busy: true });
  await new Promise((done) => setTimeout(done, delay * (0.75 + Math.random() / 2)));
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

at('again').addEventListener('click', () => {
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
  if (rfb) {
    rfb.resizeSession = fits;
    rfb.focus();
  }
});
at('full').addEventListener('click', () => {
  if (document.fullscreenElement) {
    document.exitFullscreen();
  } else {
    document.documentElement.requestFullscreen().catch(() => {});
  }
});
// Text copied elsewhere is offered to the desktop when the window is looked at again.
window.addEventListener('focus', async () => {
  try {
    rfb?.clipboardPasteFrom(await navigator.clipboard.readText());
  } catch {
    // The browser does not let us, or nothing is connected.
  }
});

connect();
