// Drives one page of headless Chromium for the end-to-end tests: a command per line on stdin, an answer per line on stdout,
// both JSON. Waiting and judging are the tests' business; this only does and looks.
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  args: [
    '--no-sandbox', // it refuses to run as root with it
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ],
});
// The agent's certificate is its own.
const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1280, height: 800 } });
const page = await context.newPage();
page.setDefaultTimeout(15_000);

const complaints = [];
const sockets = { opened: 0, open: 0 };
let requests = 0;
page.on('request', () => (requests += 1));
page.on('console', (message) => {
  if (message.type() === 'error') complaints.push(message.text());
});
page.on('pageerror', (error) => complaints.push(String(error)));
page.on('websocket', (socket) => {
  sockets.opened += 1;
  sockets.open += 1;
  socket.on('close', () => (sockets.open -= 1));
});

// The largest canvas is the desktop; noVNC has small ones for cursors.
const desktop = `[...document.querySelectorAll('canvas')].sort((a, b) => b.width * b.height - a.width * a.height)[0]`;

const commands = {
  async open({ url }) {
    const response = await page.goto(url);
    return { status: response.status(), url: page.url() };
  },
  async reload() {
    const response = await page.reload();
    return { status: response.status(), url: page.url() };
  },
  async look() {
    const screen = await page.evaluate(`(() => {
      const canvas = ${desktop};
      if (!canvas || !canvas.width || !canvas.height) return { width: 0, height: 0, colours: 0, painted: 0 };
      const { width, height } = canvas;
      const pixels = new Uint32Array(canvas.getContext('2d').getImageData(0, 0, width, height).data.buffer);
      const colours = new Set();
      let painted = 0;
      for (const pixel of pixels) {
        if (colours.size < 10000) colours.add(pixel & 0xffffff);
        if (pixel & 0xffffff) painted += 1;
      }
      return { width, height, colours: colours.size, painted: painted / pixels.length };
    })()`);
    const text = await page.evaluate('document.body.innerText');
    // Where keys go, and how large the desktop is drawn.
    const shown = await page.evaluate(`(() => {
      const canvas = ${desktop};
      const { width, height } = canvas ? canvas.getBoundingClientRect() : { width: 0, height: 0 };
      const { id, tagName } = document.activeElement;
      return { focus: id || tagName.toLowerCase(), full: document.fullscreenElement !== null, drawn: [width, height] };
    })()`);
    return { ...screen, ...shown, text, url: page.url(), sockets: { ...sockets }, requests, complaints };
  },
  // As a portal does: from a page of another site, by a link.
  async follow({ url }) {
    await page.route('https://portal.example/', (route) =>
      route.fulfill({ contentType: 'text/html', body: `<a href="${url.replaceAll('&', '&amp;')}">open</a>` }),
    );
    await page.goto('https://portal.example/');
    const [response] = await Promise.all([page.waitForNavigation(), page.click('a')]);
    return { status: response.status(), url: page.url() };
  },
  async resize({ width, height }) {
    await page.setViewportSize({ width, height });
    return {};
  },
  async allow_clipboard() {
    await context.grantPermissions(['clipboard-read', 'clipboard-write']);
    return {};
  },
  async read_clipboard() {
    return { text: await page.evaluate(() => navigator.clipboard.readText()) };
  },
  // The content of a text field.
  async value({ id }) {
    return { text: await page.inputValue(`#${id}`) };
  },
  // Before the page is opened: its timers can then be told that time has passed.
  async install_clock() {
    await page.clock.install();
    return {};
  },
  async pass({ seconds }) {
    await page.clock.runFor(seconds * 1000);
    return {};
  },
  // x and y are pixels of the page.
  async click({ x, y }) {
    await page.mouse.click(x, y);
    return {};
  },
  // Only what a US keyboard has: other characters make no key events.
  async type({ text }) {
    await page.keyboard.type(text, { delay: 8 });
    return {};
  },
  async press({ key }) {
    await page.keyboard.press(key);
    return {};
  },
  async screenshot({ path }) {
    await page.screenshot({ path });
    return {};
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    const { command, ...args } = JSON.parse(line);
    answer = await commands[command](args);
  } catch (error) {
    answer = { error: String(error.stack ?? error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
