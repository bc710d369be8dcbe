// Looks at the dashboard as somebody would, in a headless Chromium driven by its devtools protocol:
//   node dashboard.js ADMIN_URL TOKEN CLIENT_ID [FOLDER FOR SCREENSHOTS]
// A client of that name is there, with a subscription to plant/#, plant/1 is retained with the payload 21.5, and a bridge leads to nobody. It ends with
// 0 if all was there, after it has disconnected that client.
"use strict";

const { spawn } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const WebSocket = require("ws");

const [url, token, client, shots] = process.argv.slice(2);
const PATIENCE_MS = 20000;

function start() {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), "ringmq-chromium-"));
  const child = spawn("chromium", ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--remote-debugging-port=0", `--user-data-dir=${profile}`, "about:blank"], { stdio: ["ignore", "ignore", "pipe"] });
  const end = () => { child.kill("SIGKILL"); };
  child.on("exit", () => fs.rmSync(profile, { recursive: true, force: true, maxRetries: 5 }));
  return new Promise((found, failed) => {
    let said = "";
    child.stderr.on("data", (text) => {
      said += text;
      const at = /DevTools listening on (ws:\S+)/.exec(said);
      if (at) found({ address: at[1], end });
    });
    child.on("error", failed);
    child.on("exit", () => failed(new Error("chromium has ended: " + said)));
  });
}

// The one page of the browser.
class Page {
  constructor(socket) {
    this.socket = socket;
    this.last = 0;
    this.waiting = new Map();
    this.complaints = [];
    socket.on("message", (text) => this.take(JSON.parse(text)));
  }

  take(message) {
    if (message.id) {
      const { found, failed } = this.waiting.get(message.id);
      this.waiting.delete(message.id);
      if (message.error) failed(new Error(JSON.stringify(message.error)));
      else found(message.result);
    } else if (message.method === "Runtime.exceptionThrown") {
      this.complaints.push(message.params.exceptionDetails.exception?.description || message.params.exceptionDetails.text);
    } else if (message.method === "Log.entryAdded" && message.params.entry.source === "security") {
      this.complaints.push(message.params.entry.text);
    }
  }

  send(method, params = {}) {
    this.last += 1;
    this.socket.send(JSON.stringify({ id: this.last, method, params, sessionId: this.session }));
    return new Promise((found, failed) => this.waiting.set(this.last, { found, failed }));
  }

  async run(code) {
    const answer = await this.send("Runtime.evaluate", { expression: code, returnByValue: true, awaitPromise: true });
    if (answer.exceptionDetails) throw new Error(code + ": " + JSON.stringify(answer.exceptionDetails));
    return answer.result.value;
  }

  // Waits until the page itself says that something is so.
  async until(what, code) {
    const asked = `new Promise((found) => {
      const end = Date.now() + ${PATIENCE_MS};
      (function look() {
        let value = false;
        try { value = (${code}); } catch { /* not there yet */ }
        if (value || Date.now() > end) found(value); else requestAnimationFrame(look);
      })();
    })`;
    const value = await this.run(asked);
    if (!value) throw new Error(`not seen: ${what}\n${await this.run("document.body.innerText")}`);
    return value;
  }

  async key(key, code, text) {
    await this.send("Input.dispatchKeyEvent", { type: "keyDown", key, windowsVirtualKeyCode: code, text });
    await this.send("Input.dispatchKeyEvent", { type: "keyUp", key, windowsVirtualKeyCode: code });
  }

  async shot(name) {
    if (!shots) return;
    const { data } = await this.send("Page.captureScreenshot", { captureBeyondViewport: false });
    fs.writeFileSync(path.join(shots, name + ".png"), Buffer.from(data, "base64"));
  }

  size(width, height) {
    return this.send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: width < 600 });
  }

  dark(is_dark) {
    const value = is_dark ? "dark" : "light";
    return this.send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value }] });
  }
}

const has = (text) => `document.querySelector("main").innerText.includes(${JSON.stringify(text)})`;

// Every text against what is behind it: 4.5 to 1 is what WCAG AA asks for.
const CONTRASTS = `(() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => numbers(color).slice(0, 3).map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((all, c, at) => all + c * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      const [, , , alpha] = numbers(color);
      if (alpha === undefined || alpha > 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  return [...document.querySelectorAll("body *")].filter((element) => element.checkVisibility() &&
    [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())).map((element) => {
    const [one, other] = [light(getComputedStyle(element).color), light(behind(element))].sort((a, b) => b - a);
    return [(one + 0.05) / (other + 0.05), element.tagName + " " + element.textContent.slice(0, 30)];
  }).filter(([ratio]) => ratio < 4.5);
})()`;

async function contrasts(page, where) {
  const poor = await page.run(CONTRASTS);
  if (poor.length) throw new Error(`${where}: too little contrast: ${JSON.stringify(poor)}`);
}

async function fits(page, where) {
  const beyond = await page.run("document.documentElement.scrollWidth - document.documentElement.clientWidth");
  if (beyond > 0) throw new Error(`${where}: ${beyond} pixels wider than the screen`);
}

async function overview(page) {
  await page.send("Page.navigate", { url });
  await page.until("numbers", `Number(document.getElementById("connections").textContent) >= 1`);
  await page.until("a status", `document.getElementById("state").className === "good"`);
  // It goes on by itself: the first look has no rate yet.
  await page.until("rates", `document.getElementById("rate-in").textContent !== "..."`);
  await page.until("a message that came meanwhile", `parseFloat(document.getElementById("rate-out").textContent) > 0`);
  await page.until("latencies", has("p99.9"));
  await page.until("the bridge and why it is not up", `${has("Bridges")} && ${has("does not answer")}`);
  await contrasts(page, "overview");
  await page.shot("overview");
  await page.dark(true);
  await contrasts(page, "overview in the dark");
  await page.shot("overview-dark");
  await page.dark(false);
  await page.size(375, 700);
  await fits(page, "overview on a phone");
  await page.shot("overview-phone");
}

async function byKeyboard(page) {
  // The second stop is the first link behind the way around the head.
  await page.run("document.activeElement.blur()");
  await page.key("Tab", 9);
  await page.until("a way around the head", `document.activeElement.className === "skip"`);
  for (const name of ["RingMQ", "Overview", "Clients"]) {
    await page.key("Tab", 9);
    await page.until(name, `document.activeElement.textContent === ${JSON.stringify(name)}`);
  }
  await page.key("Enter", 13, "\r");
  await page.until("the list of clients", has("Identifier begins with"));
}

async function search(page) {
  await page.run(`document.querySelector("input[name=id_prefix]").value = "nobody-is-called-so"`);
  await page.run(`document.querySelector("form.search button").click()`);
  await page.until("nobody", has("0 found"));
  await page.run(`document.querySelector("input[name=id_prefix]").value = ${JSON.stringify(client)}`);
  await page.run(`document.querySelector("form.search button").click()`);
  await page.until("the client", has("1 found"));
  await fits(page, "clients on a phone");
  await page.shot("clients-phone");
  await page.size(1200, 900);
  await page.run(`document.querySelector("main td a").click()`);
  await page.until("the client's page", `${has("plant/#")} && ${has("silence ms max")}`);
  await page.until("how fast its messages come", `/^[1-9]/.test(document.getElementById("client-out")?.textContent)`);
  await fits(page, "a client");
  await contrasts(page, "client");
  await page.shot("client");
  await page.size(375, 700);
  await fits(page, "a client on a phone");
  await page.shot("client-phone");
  await page.size(1200, 900);
}

async function follow(page) {
  const follows = `/^follows client/.test(document.getElementById("trace-state").textContent)`;
  await page.run(`[...document.querySelectorAll("main a")].find((one) => one.textContent === "Follow its packets").click()`);
  await page.until("that it follows", follows);
  await page.until("a packet of the client", `${has("PUBLISH")} && ${has("plant/")} && ${has("broker")}`);
  await contrasts(page, "trace");
  await page.shot("trace");
  await page.run(`document.getElementById("trace-stop").click()`);
  await page.until("that it has stopped", `/^stopped: [1-9]/.test(document.getElementById("trace-state").textContent)`);
  await page.run(`document.querySelector("select[name=what]").value = "topic"`);
  await page.run(`document.querySelector("input[name=name]").value = "plant/+"`);
  await page.run(`document.querySelector("form.search button").click()`);
  await page.until("the publisher and the subscriber", `["client", "broker"].every((side) =>
    [...document.querySelectorAll("main tbody tr")].some((row) => row.children[2]?.textContent === side))`);
  await page.size(375, 700);
  await fits(page, "trace on a phone");
  await page.shot("trace-phone");
  await page.size(1200, 900);
  await page.run(`location.hash = "#/client/" + encodeURIComponent(${JSON.stringify(client)})`);
  await page.until("the client's page", has("silence ms max"));
}

async function disconnect(page) {
  const click = `[...document.querySelectorAll("main button")].find((one) => one.textContent === "Disconnect").click()`;
  const yes = `document.getElementById("sure-yes").click()`;
  await page.run(click);
  await page.until("a question", `document.getElementById("sure-dialog").open`);
  await page.until("it says what it does", `document.getElementById("sure-yes").textContent === "Disconnect"`);
  await page.until("Enter does no harm", `document.activeElement.value === "no"`);
  await page.shot("sure");
  await page.run(yes);
  await page.until("that a token is needed", `/token/i.test(document.getElementById("problem").innerText)`);
  await page.shot("refused");
  await page.run(`document.getElementById("token-button").click()`);
  await page.run(`document.getElementById("token").value = ${JSON.stringify(token)}`);
  await page.run(`document.querySelector("#token-dialog button[value=use]").click()`);
  await page.until("it is used", `sessionStorage.getItem("token") && document.getElementById("problem").hidden`);
  await page.run(click);
  await page.run(yes);
  await page.until("it is gone", has("session ends in seconds"));
  await page.until("why it has gone", has("is disconnected"));
  await page.shot("client-gone");
}

async function retained(page) {
  await page.run(`location.hash = "#/retained"`);
  await page.until("what is retained", has("plant/1"));
  await page.shot("retained");
  await page.run(`[...document.querySelectorAll("main td a")].find((one) => one.textContent === "plant/1").click()`);
  await page.until("its payload", has("21.5"));
  await page.run(`location.hash = "#/explain"`);
  await page.until("a form", `document.querySelector("input[name=topic]")`);
  await page.run(`document.querySelector("input[name=topic]").value = "plant/1"`);
  await page.run(`document.querySelector("form.search button").click()`);
  await page.until("an explanation", has("1 subscription(s) match"));
  await page.dark(true);
  await contrasts(page, "explain in the dark");
  await page.shot("explain-dark");
}

async function look() {
  const browser = await start();
  try {
    const socket = new WebSocket(browser.address);
    await new Promise((open, failed) => { socket.on("open", open); socket.on("error", failed); });
    const page = new Page(socket);
    const { targetInfos } = await page.send("Target.getTargets");
    const { targetId } = targetInfos.find((target) => target.type === "page");
    page.session = (await page.send("Target.attachToTarget", { targetId, flatten: true })).sessionId;
    for (const part of ["Page", "Runtime", "Log"]) await page.send(part + ".enable");
    await page.size(1200, 900);
    for (const step of [overview, byKeyboard, search, follow, disconnect, retained]) await step(page);
    if (page.complaints.length) throw new Error("the browser complains: " + page.complaints.join("\n"));
  } finally {
    browser.end();
  }
}

look().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
