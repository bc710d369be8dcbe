// The dashboard. It asks the pages and the API of the listener that it came from, and nothing else; what clients
// choose (names, topics, payloads) only ever becomes text.
"use strict";

const EVERY_MS = 2000;
const POINTS_MAX = 90;
const main = document.getElementById("main");
let token = sessionStorage.getItem("token") || "";
let view = null;
let before = null;
let points = [];
// What the view goes on with once it is shown.
let live = null;

// ---- asking

async function ask(path, method = "GET", body) {
  const headers = token ? { Authorization: "Bearer " + token } : {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  if (answer.ok) return answer;
  let why = answer.status + " " + answer.statusText;
  try { why = (await answer.json()).error || why; } catch { /* no JSON: the status says it */ }
  throw new Error(answer.status === 401 || answer.status === 403 ? why + " (Token, above)" : why);
}

const json = async (path) => (await ask("/api/v1" + path)).json();
const part = encodeURIComponent;

function problem(error) {
  const place = document.getElementById("problem");
  place.hidden = !error;
  place.textContent = error ? String(error.message || error) : "";
}

// ---- making elements

function make(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

function table(caption, columns, rows) {
  const head = columns.map(([title, , kind]) => make("th", { scope: "col", class: kind }, title));
  const body = rows.map((row) => make("tr", {}, columns.map(([, cell, kind]) => make("td", { class: kind }, cell(row)))));
  if (!body.length) body.push(make("tr", {}, make("td", { colspan: columns.length }, "none")));
  return make("div", { class: "scroll" }, make("table", {}, make("caption", {}, caption),
    make("thead", {}, make("tr", {}, head)), make("tbody", {}, body)));
}

function tiles(list) {
  return make("dl", { class: "tiles" }, list.map(([name, value, id]) =>
    make("div", {}, make("dt", {}, name), make("dd", { id }, value))));
}

const count = (value) => Math.round(value).toLocaleString("en");
const rate = (value) => value === null ? "..." : value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });

function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (value >= 1024 && at < units.length - 1) { value /= 1024; at += 1; }
  return value.toFixed(at && value < 100 ? 1 : 0) + " " + units[at];
}

function seconds(value) {
  if (value === null || value === undefined) return "-";
  if (value < 120) return value + " s";
  if (value < 7200) return Math.floor(value / 60) + " min";
  return value < 172800 ? Math.floor(value / 3600) + " h" : Math.floor(value / 86400) + " d";
}

const micros = (value) => value === null ? "-" : value < 1e-3 ? Math.round(value * 1e6) + " us" : (value * 1e3).toFixed(1) + " ms";

// ---- metrics

function parse(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    const match = /^(\w+)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!match) continue;
    const labels = {};
    for (const [, name, value] of (match[2] || "").matchAll(/(\w+)="([^"]*)"/g)) labels[name] = value;
    if (!found.has(match[1])) found.set(match[1], []);
    found.get(match[1]).push([labels, Number(match[3])]);
  }
  return found;
}

const samples = (metrics, name) => metrics.get(name) || [];
const sum = (metrics, name) => samples(metrics, name).reduce((all, [, value]) => all + value, 0);

function by(metrics, name, label) {
  const all = new Map();
  for (const [labels, value] of samples(metrics, name)) all.set(labels[label], (all.get(labels[label]) || 0) + value);
  return all;
}

// How many samples each bucket has got since then, of all shards, by what `key` makes of its labels.
function buckets(now, then, name, key) {
  const old = new Map(samples(then, name + "_bucket").map(([labels, value]) => [JSON.stringify(labels), value]));
  const all = new Map();
  for (const [labels, value] of samples(now, name + "_bucket")) {
    const of = key(labels);
    if (!all.has(of)) all.set(of, new Map());
    const le = labels.le === "+Inf" ? Infinity : Number(labels.le);
    const more = value - (old.get(JSON.stringify(labels)) || 0);
    all.get(of).set(le, (all.get(of).get(le) || 0) + more);
  }
  return all;
}

function percentile(of, share) {
  const sorted = [...of].sort((one, other) => one[0] - other[0]);
  const all = sorted.length ? sorted[sorted.length - 1][1] : 0;
  if (!all) return null;
  return sorted.find(([, value]) => value >= all * share)[0];
}

// ---- overview

function overviewOf(now, then, passed) {
  const per = (name) => then ? Math.max(0, sum(now, name) - sum(then, name)) / passed : null;
  return {
    in: per("ringmq_messages_received_total"),
    out: per("ringmq_messages_sent_total"),
    dropped: per("ringmq_messages_dropped_total"),
    bytesIn: per("ringmq_bytes_received_total"),
    bytesOut: per("ringmq_bytes_sent_total"),
  };
}

function plot() {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const most = Math.max(1, ...points.map((point) => Math.max(point.in || 0, point.out || 0)));
  svg.setAttribute("viewBox", `0 0 ${POINTS_MAX} 100`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "plot");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Messages per second, at most ${rate(most)}`);
  for (const kind of ["in", "out"]) {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    const first = POINTS_MAX - points.length;
    const at = points.map((point, index) => `${first + index} ${98 - 95 * (point[kind] || 0) / most}`);
    path.setAttribute("d", "M" + at.join(" L"));
    path.setAttribute("class", kind);
    svg.append(path);
  }
  return [svg, make("p", { class: "key" }, `Messages per second over ${POINTS_MAX * EVERY_MS / 60000} min: in solid, out dashed; top is ${rate(most)}`)];
}

function latencies(now, then) {
  const kinds = buckets(now, then || new Map(), "ringmq_delivery_seconds", (labels) => `QoS ${labels.qos}, ${labels.path === "local" ? "same" : "other"} shard`);
  for (const [, all] of buckets(now, then || new Map(), "ringmq_puback_seconds", () => "")) kinds.set("to PUBACK", all);
  for (const [, all] of buckets(now, then || new Map(), "ringmq_turn_seconds", () => "")) kinds.set("a shard's turn", all);
  const rows = [...kinds].filter(([, of]) => percentile(of, 1) !== null);
  const at = (share) => ([, of]) => { const found = percentile(of, share); return found === Infinity ? "> 8 s" : micros(found); };
  return table("Latency since the last look, up to the next power of two", [["what", ([name]) => name],
    ["p50", at(0.5), "number"], ["p99", at(0.99), "number"], ["p99.9", at(0.999), "number"]], rows);
}

function reasons(title, now, name) {
  const rows = [...by(now, name, "reason")].filter(([, value]) => value > 0).sort((one, other) => other[1] - one[1]);
  return table(title, [["reason", ([reason]) => reason.replaceAll("_", " ")], ["count", ([, value]) => count(value), "number"]], rows);
}

function shards(now) {
  const of = (name) => by(now, name, "shard");
  const [up, connections, turns, letters, cpu] = ["ringmq_shard_up", "ringmq_connections", "ringmq_turn_us_max",
    "ringmq_mailbox_letters", "ringmq_messages_sent_total"].map(of);
  return table("Shards", [["shard", ([shard]) => shard],
    ["answers", ([, value]) => make("span", { class: value ? "good" : "bad" }, value ? "yes" : "no")],
    ["connections", ([shard]) => count(connections.get(shard) || 0), "number"],
    ["messages sent", ([shard]) => count(cpu.get(shard) || 0), "number"],
    ["longest turn", ([shard]) => micros((turns.get(shard) || 0) / 1e6), "number"],
    ["letters waiting", ([shard]) => count(letters.get(shard) || 0), "number"]], [...up]);
}

const LOOK = [
  ["client", (row) => make("a", { href: "#/client/" + part(row.client_id) }, row.client_id || "(none)")],
  ["user", (row) => row.user === null ? "-" : row.user],
  ["address", (row) => row.connected ? row.address || "-" : "away"],
  ["queued", (row) => count(row.queued_messages), "number"],
  ["unsent", (row) => bytes(row.unsent_bytes), "number"],
  ["dropped", (row) => count(row.dropped_messages), "number"],
  ["for", (row) => seconds(row.since_seconds), "number"],
];

const BRIDGES = [
  ["bridge", (row) => make("a", { href: "#/client/" + part(row.client_id) }, row.name)],
  ["state", (row) => make("span", { class: ["up", "idle", "paused"].includes(row.state) ? "good" : "bad" }, row.state)],
  ["for", (row) => seconds(row.since_seconds), "number"],
  ["address", (row) => row.address],
  ["queued", (row) => count(row.queued), "number"],
  ["bytes", (row) => bytes(row.queued_bytes), "number"],
  ["oldest", (row) => seconds(row.oldest_seconds), "number"],
  ["in flight", (row) => count(row.in_flight), "number"],
  ["dropped", (row) => count(row.dropped), "number"],
  ["last ended by", (row) => row.cause === null ? "-" : row.cause],
];

// Nothing where there are none.
function bridgesOf(rows) {
  return rows.length ? [make("h2", {}, "Bridges"), table("Bridges to other brokers", BRIDGES, rows)] : [];
}

async function overview(place) {
  const [text, status, slow, joined] = await Promise.all([
    ask("/metrics").then((answer) => answer.text()), json("/status"), json("/clients?sort=queue&limit=5"), json("/bridges")]);
  const now = { at: performance.now(), metrics: parse(text) };
  // Another view may have been looked at meanwhile: rates are over what has passed.
  const live = overviewOf(now.metrics, before && before.metrics, before && (now.at - before.at) / 1000);
  if (before) points = [...points, live].slice(-POINTS_MAX);
  const then = before && before.metrics;
  before = now;
  if (place !== view) return;
  place.replaceChildren(
    status.problems.length ? make("ul", { class: "bad" }, status.problems.map((text) => make("li", {}, String(text)))) : "",
    tiles([
      ["connections", count(status.connections), "connections"], ["sessions", count(status.sessions)],
      ["messages in /s", rate(live.in), "rate-in"], ["messages out /s", rate(live.out), "rate-out"],
      ["bytes in /s", live.bytesIn === null ? "..." : bytes(live.bytesIn)], ["bytes out /s", live.bytesOut === null ? "..." : bytes(live.bytesOut)],
      ["dropped /s", rate(live.dropped)], ["queued", count(status.queued_messages)],
      ["retained", count(status.retained_messages)], ["subscriptions", count(status.subscriptions)],
      ["memory", bytes(status.memory_bytes)], ["up", seconds(status.uptime_seconds)],
    ]),
    ...plot(), latencies(now.metrics, then),
    make("h2", {}, "Slowest subscribers"), table("Most messages waiting", LOOK, slow.clients),
    ...bridgesOf(joined.bridges),
    make("h2", {}, "Drops and refusals"),
    reasons("Messages that somebody did not get, since the start", now.metrics, "ringmq_messages_dropped_total"),
    reasons("Connections refused, since the start", now.metrics, "ringmq_connections_refused_total"),
    make("h2", {}, "Shards"), shards(now.metrics));
}

// ---- lists

function search(fields, go) {
  const form = make("form", { class: "search", role: "search" }, fields, make("button", {}, "Look"));
  form.addEventListener("submit", (event) => { event.preventDefault(); go(new FormData(form)); });
  return form;
}

const field = (label, name, value, more) => make("label", {}, label, make("input", { name, value, autocomplete: "off", spellcheck: "false", ...more }));

function choice(label, name, value, options) {
  return make("label", {}, label, make("select", { name }, options.map(([key, text]) =>
    make("option", { value: key, selected: key === value }, text))));
}

function pages(path, list, next) {
  return next ? make("p", {}, make("a", { href: `${path}&after=${part(next)}` }, "Next page")) : "";
}

async function clients(place, query) {
  const [prefix, sort, state] = [query.get("id_prefix") || "", query.get("sort") || "id", query.get("state") || ""];
  const path = `#/clients?id_prefix=${part(prefix)}&sort=${part(sort)}&state=${part(state)}`;
  const asked = new URLSearchParams({ limit: "50", sort });
  if (prefix) asked.set("id_prefix", prefix);
  if (state) asked.set("state", state);
  if (query.get("after")) asked.set("after", query.get("after"));
  const list = await json("/clients?" + asked);
  if (place !== view) return;
  place.replaceChildren(make("h2", {}, "Clients"),
    search([field("Identifier begins with", "id_prefix", prefix, { type: "search" }),
      choice("State", "state", state, [["", "all"], ["connected", "connected"], ["away", "away"]]),
      choice("Order", "sort", sort, [["id", "identifier"], ["queue", "longest queue"], ["bytes", "most bytes"], ["drops", "most drops"], ["age", "longest there"]])],
    (form) => { location.hash = "#/clients?" + new URLSearchParams(form); }),
    table(`${count(list.count)} found`, LOOK, list.clients), pages(path, list, list.next));
}

async function sure(text, label) {
  const dialog = document.getElementById("sure-dialog");
  document.getElementById("sure-text").textContent = text;
  document.getElementById("sure-yes").textContent = label;
  dialog.returnValue = "no";
  dialog.showModal();
  await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  return dialog.returnValue === "yes";
}

function act(label, question, does) {
  return make("button", { type: "button", onclick: async () => {
    if (!await sure(question, label)) return;
    try { await does(); problem(null); show(); } catch (error) { problem(error); }
  } }, label);
}

const WENT_WRONG = [["last ago", (row) => seconds(row.seconds_ago)], ["count", (row) => row.count, "number"], ["time (UTC)", (row) => new Date(row.at_ms).toISOString().slice(0, 19).replace("T", " ")],
  ["what", (row) => row.text]];

// One that has no session, perhaps since it was never let in.
async function stranger(place, id, error) {
  const { errors } = await json(`/clients/${part(id)}/errors`);
  if (place !== view) return;
  if (!errors.length) throw error;
  place.replaceChildren(make("h2", {}, "Client ", id), make("p", {}, error.message), table("What went wrong, newest first", WENT_WRONG, errors));
}

// What goes to and from a client, for as long as it is looked at.
async function rates(place, id) {
  while (place === view) {
    const one = await json(`/clients/${part(id)}?over_ms=1000`);
    if (place !== view) return;
    const of = one.rates || {};
    const tell = (name, value) => { document.getElementById(name).textContent = value === undefined ? "-" : value; };
    const number = (value) => value === undefined ? value : rate(value);
    tell("client-in", number(of.received_messages_per_second));
    tell("client-out", number(of.sent_messages_per_second));
    tell("client-bytes-in", of.received_bytes_per_second === undefined ? undefined : bytes(of.received_bytes_per_second));
    tell("client-bytes-out", of.sent_bytes_per_second === undefined ? undefined : bytes(of.sent_bytes_per_second));
    await new Promise((done) => setTimeout(done, EVERY_MS));
  }
}

function words(object) {
  const rows = Object.entries(object).filter(([, value]) => value !== null);
  return [[["what", ([key]) => key.replaceAll("_", " ")], ["value", ([, value]) => String(value)]], rows];
}

async function client(place, query, id) {
  let one;
  try { one = await json("/clients/" + part(id)); } catch (error) { await stranger(place, id, error); return; }
  if (place !== view) return;
  const { filters, tls, last_errors, rates: none, ...rest } = one;
  place.replaceChildren(make("h2", {}, "Client ", id),
    make("p", { class: "buttons" },
      one.connected ? act("Disconnect", `Disconnect ${id}?`, () => ask(`/api/v1/clients/${part(id)}/disconnect`, "POST", {})) : "",
      make("a", { href: `#/trace?what=client&name=${part(id)}` }, "Follow its packets"),
      act("End session", `End the session of ${id}, with all that waits in it?`, () => ask(`/api/v1/clients/${part(id)}`, "DELETE"))),
    tiles([["messages from it /s", "...", "client-in"], ["messages to it /s", "...", "client-out"],
      ["bytes from it /s", "...", "client-bytes-in"], ["bytes to it /s", "...", "client-bytes-out"]]),
    table("What went wrong, newest first", WENT_WRONG, last_errors),
    table("What is known", ...words(rest)),
    tls ? table("TLS", ...words(tls)) : "",
    table("Subscriptions", [["filter", (row) => row.filter], ["QoS", (row) => row.qos, "number"]], filters || []));
  live = () => rates(place, id);
}

async function retained(place, query) {
  const filter = query.get("filter") || "#";
  const asked = new URLSearchParams({ filter, limit: "50" });
  if (query.get("after")) asked.set("after", query.get("after"));
  const list = await json("/retained?" + asked);
  if (place !== view) return;
  place.replaceChildren(make("h2", {}, "Retained messages"),
    search([field("Filter", "filter", filter)], (form) => { location.hash = "#/retained?" + new URLSearchParams(form); }),
    table(`At ${filter}`, [["topic", (row) => make("a", { href: "#/message/" + part(row.topic) }, row.topic)],
      ["QoS", (row) => row.qos, "number"], ["bytes", (row) => count(row.payload_bytes), "number"],
      ["ends in", (row) => seconds(row.expires_in_seconds), "number"]], list.messages),
    pages(`#/retained?filter=${part(filter)}`, list, list.next));
}

async function message(place, query, topic) {
  const one = await json("/retained/message?topic=" + part(topic));
  if (place !== view) return;
  const is_text = one.payload !== null && one.payload !== undefined;
  place.replaceChildren(make("h2", {}, topic),
    make("p", {}, `QoS ${one.qos}, ${count(one.payload_bytes)} bytes${is_text ? "" : ", in base64 since it is no text"}`),
    make("pre", {}, is_text ? one.payload : one.payload_base64),
    make("p", { class: "buttons" }, act("Delete", `Delete what is retained at ${topic}?`, async () => {
      await ask("/api/v1/retained/message?topic=" + part(topic), "DELETE");
      location.hash = "#/retained";
    })));
}

async function explain(place, query) {
  const [topic, qos, publisher] = [query.get("topic") || "", query.get("qos") || "0", query.get("publisher") || ""];
  const form = search([field("Topic", "topic", topic, { required: true }),
    choice("QoS", "qos", qos, [["0", "0"], ["1", "1"], ["2", "2"]]), field("Published by (client, may be empty)", "publisher", publisher)],
  (form) => { location.hash = "#/explain?" + new URLSearchParams(form); });
  const head = [make("h2", {}, "Who would get a message, and why not"), form];
  if (!topic) { place.replaceChildren(...head); return; }
  const asked = new URLSearchParams({ topic, qos, limit: "100" });
  if (publisher) asked.set("publisher", publisher);
  const found = await json("/explain?" + asked);
  if (place !== view) return;
  place.replaceChildren(...head,
    found.nobody_because ? make("p", { class: "bad" }, "Nobody: " + found.nobody_because) : "",
    found.publisher_may === null ? "" : make("p", {}, found.publisher_may ? "The publisher may." : "The publisher may not."),
    table(`${count(found.count)} subscription(s) match`, [LOOK[0], LOOK[1], ["filter", (row) => row.filter], ["QoS", (row) => row.qos, "number"],
      ["gets it", (row) => make("span", { class: row.gets ? "good" : "bad" }, row.gets ? "yes" : "no")], ["why", (row) => row.why]], found.subscriptions));
}

// ---- packets as they come and go

const PACKETS_MAX = 200;

function said(row) {
  const filter = (one) => one.qos === undefined ? one.filter : `${one.filter} (QoS ${one.qos})`;
  const connect = row.connect;
  return [row.topic, connect && `MQTT ${connect.version}`, connect && connect.user !== null && `user ${connect.user}`,
    row.filters && row.filters.map(filter).join(", "), row.reasons && row.reasons.join(", "), row.reason,
    row.qos !== undefined && `QoS ${row.qos}`, row.packet_id && `id ${row.packet_id}`, row.retain && "retain", row.dup && "dup",
    row.filters_left_out && `and ${row.filters_left_out} more filters`, row.error && "broken: " + row.error].filter(Boolean).join(", ");
}

const PACKET = [
  ["time (UTC)", (row) => new Date(row.at_ms).toISOString().slice(11, 23)],
  ["client", (row) => row.client_id === null ? "-" : row.client_id],
  ["from", (row) => row.from],
  ["packet", (row) => row.packet],
  ["what", said],
  ["bytes", (row) => bytes(row.payload_bytes === undefined ? row.packet_bytes : row.payload_bytes), "number"],
];

// Tells line by line, until it ends or the view is another.
async function follow(place, asked, tell) {
  const reader = (await ask("/api/v1/trace?" + asked)).body.pipeThrough(new TextDecoderStream()).getReader();
  const stop = () => reader.cancel();
  (async () => {
    let unread = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      if (place !== view) { await stop(); return; }
      const lines = (unread + value).split("\n");
      unread = lines.pop();
      lines.map((line) => JSON.parse(line)).forEach(tell);
    }
  })().catch(problem);
  return stop;
}

async function trace(place, query) {
  const [what, name] = [query.get("what") || "client", query.get("name") || ""];
  const form = search([choice("Follow", "what", what, [["client", "client"], ["topic", "topic filter"], ["address", "address"]]),
    field("Which", "name", name, { required: true })], (form) => { location.hash = "#/trace?" + new URLSearchParams(form); });
  const head = [make("h2", {}, "Packets as they come and go"), form];
  if (!name) { place.replaceChildren(...head); return; }
  const state = make("p", { id: "trace-state", role: "status" }, "asks");
  const list = table(`The last ${PACKETS_MAX}, newest first; no payloads`, PACKET, []);
  const rows = list.querySelector("tbody");
  let told = 0;
  const tell = (line) => {
    if (line.kind === "packet") {
      if (!told) rows.replaceChildren();
      told += 1;
      rows.prepend(make("tr", {}, PACKET.map(([, cell, kind]) => make("td", { class: kind }, cell(line)))));
      if (rows.children.length > PACKETS_MAX) rows.lastElementChild.remove();
    }
    if (line.kind === "begin") state.textContent = `follows ${what} ${name} for ${seconds(line.seconds)}`;
    if (line.left_out) state.textContent = `${count(line.left_out)} left out: they come too fast`;
    if (line.kind === "end") state.textContent = `${line.why}: ${count(line.lines)} packets, ${count(line.left_out)} left out`;
  };
  const stop = await follow(place, new URLSearchParams({ [what]: name }), tell);
  if (place !== view) { await stop(); return; }
  const end = make("button", { type: "button", id: "trace-stop", onclick: async () => {
    await stop();
    end.disabled = true;
    state.textContent = `stopped: ${count(told)} packets`;
  } }, "Stop");
  place.replaceChildren(...head, make("p", { class: "buttons" }, end), state, list);
}

// ---- which view

const VIEWS = { "": overview, clients, client, retained, message, explain, trace };

async function show() {
  const [path, query] = location.hash.replace(/^#\//, "").split("?");
  const [name, ...rest] = path.split("/");
  const found = VIEWS[name] || overview;
  const of = { client: "clients", message: "retained" }[name] || name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === "#/" + of) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const place = make("div", {});
  view = place;
  live = null;
  try {
    await found(place, new URLSearchParams(query || ""), decodeURIComponent(rest.join("/")));
    if (place !== view) return;
    main.replaceChildren(place);
    problem(null);
    if (live) live().catch((error) => { if (place === view) problem(error); });
  } catch (error) {
    if (place !== view) return;
    if (found !== overview) main.replaceChildren();
    problem(error);
  }
}

async function tick() {
  const place = document.getElementById("state");
  try {
    const status = await json("/status");
    place.textContent = `${status.version}, ${status.problems.length ? "not well" : "serves"}`;
    place.className = status.problems.length ? "bad" : "good";
    const name = location.hash.replace(/^#\//, "").split(/[/?]/)[0];
    if (!VIEWS[name] || name === "") {
      view = view || make("div", {});
      if (main.firstChild !== view) main.replaceChildren(view);
      await overview(view);
      problem(null);
    }
  } catch (error) {
    place.textContent = "no answer";
    place.className = "bad";
    problem(error);
  }
  setTimeout(tick, EVERY_MS);
}

document.getElementById("token-button").addEventListener("click", () => {
  const dialog = document.getElementById("token-dialog");
  document.getElementById("token").value = token;
  dialog.returnValue = "cancel";
  dialog.showModal();
});
document.getElementById("token-dialog").addEventListener("close", (event) => {
  if (event.target.returnValue !== "use") return;
  token = document.getElementById("token").value.trim();
  sessionStorage.setItem("token", token);
  show();
});
addEventListener("hashchange", () => show().then(() => main.focus()));
show().then(tick);
