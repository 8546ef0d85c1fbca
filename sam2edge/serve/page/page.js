// The page of `sam2edge serve`: pictures and masks come over one WebSocket, commands go out over it.

const $ = (id) => document.getElementById(id);
const view = $("view"), paint = view.getContext("2d");
const HIT_PIXELS = 6; // a press that moves less is a click

let socket = null, requests = new Map(), nextRequest = 1;
let shown = null;    // the frame on the screen: { header, bitmap, layers }
let pending = null;  // the newest message that was not decoded yet
let decoding = false;
let selected = null; // the object that clicks correct; null: a click is a new object
let lastAdded = null;
let press = null;    // a press in progress: { frame, start, end, off }
let cross = null;    // the keyboard's cross, in frame pixels
let corner = null;   // first corner of a keyboard's box
let marks = [];      // what was clicked, shown for a moment
let arrivals = [];   // times of the last frames, for the rate
let waitSeconds = 0, retryTimer = 0;
let known = new Map(); // object -> state, to tell what has changed

// ---- the connection

function readToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem("token", given);
    history.replaceState(null, "", location.pathname); // not left in the address
  }
  return sessionStorage.getItem("token");
}

function connect() {
  clearTimeout(retryTimer);
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/ws`);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => socket.send(JSON.stringify({ type: "hello", token: readToken() }));
  socket.onmessage = (event) => {
    if (waitSeconds) { tell("The server is back."); }
    waitSeconds = 0;
    typeof event.data === "string" ? takeText(JSON.parse(event.data)) : takeFrame(event.data);
  };
  socket.onclose = (event) => {
    for (const [, answer] of requests) { answer({ ok: false, error: "the server is gone" }); }
    requests.clear();
    document.body.dataset.connected = "no";
    if (event.code === 1008) { askToken(event.reason); return; }
    waitSeconds = Math.min(10, waitSeconds ? waitSeconds * 2 : 1);
    const why = event.reason ? `: ${event.reason}` : "";
    showBanner(`The server cannot be reached${why}. Trying again every ${waitSeconds} s.`);
    retryTimer = setTimeout(connect, waitSeconds * 1000);
  };
}

function askToken(reason) {
  showBanner(reason === "wrong token" ? "The token is wrong or missing." : `Refused: ${reason}`);
  if (!$("login").open) { $("login").showModal(); }
}
$("login-form").onsubmit = () => { sessionStorage.setItem("token", $("token").value.trim()); connect(); };

function send(type, rest = {}) {
  return new Promise((answer) => {
    if (!socket || socket.readyState !== WebSocket.OPEN) { answer({ ok: false, error: "the server cannot be reached" }); return; }
    const request = nextRequest++;
    requests.set(request, answer);
    socket.send(JSON.stringify({ type, request, ...rest }));
  }).then((reply) => {
    if (!reply.ok) { tell(reply.error, true); }
    return reply;
  });
}

function takeText(message) {
  if (message.type === "reply") {
    const answer = requests.get(message.request);
    requests.delete(message.request);
    if (answer) { answer(message); }
  } else if (message.type === "status") { showStatus(message); }
}

// ---- frames

function takeFrame(buffer) {
  pending = buffer;
  if (!decoding) { decode(); }
}

async function decode() {
  decoding = true;
  while (pending) {
    const buffer = pending;
    pending = null;
    try {
      const length = new DataView(buffer).getUint32(0, true);
      const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
      const bitmap = await createImageBitmap(new Blob([new Uint8Array(buffer, 4 + length)], { type: "image/jpeg" }));
      if (shown) { shown.bitmap.close(); }
      shown = { header, bitmap, layers: header.objects.map((object) => makeLayer(object, header.picture)) };
      show();
    } catch (error) { console.error(error); }
  }
  decoding = false;
}

// COCO's compressed run-length encoding: runs down the columns, in groups of five bits (maskApi.c of pycocotools).
function readRuns(text) {
  const runs = [];
  for (let at = 0; at < text.length;) {
    let value = 0, shift = 0, more = true;
    while (more) {
      const bits = text.charCodeAt(at++) - 48;
      value |= (bits & 31) << shift;
      more = (bits & 32) !== 0;
      shift += 5;
      if (!more && (bits & 16)) { value |= -1 << shift; }
    }
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  return runs;
}

// The object's mask as a picture: its colour inside, opaque at the edge. `inside` is one byte a pixel.
function makeLayer(object, [width, height]) {
  const inside = new Uint8Array(width * height);
  let at = 0, value = 0, left = width, right = -1, top = height, bottom = -1;
  for (const run of readRuns(object.mask.counts)) {
    if (value) {
      for (let i = at; i < at + run; i++) {
        const x = Math.floor(i / height), y = i % height;
        inside[y * width + x] = 1;
        if (y < top) { top = y; }
        if (y > bottom) { bottom = y; }
      }
      left = Math.min(left, Math.floor(at / height));
      right = Math.max(right, Math.floor((at + run - 1) / height));
    }
    at += run;
    value = 1 - value;
  }
  if (right < 0) { return { object, inside, canvas: null }; }
  const w = right - left + 1, h = bottom - top + 1;
  const canvas = new OffscreenCanvas(w, h), context = canvas.getContext("2d"), pixels = context.createImageData(w, h);
  const [red, green, blue] = [1, 3, 5].map((i) => parseInt(object.color.slice(i, i + 2), 16));
  const has = (x, y) => x >= 0 && y >= 0 && x < width && y < height && inside[y * width + x];
  for (let y = top; y <= bottom; y++) {
    for (let x = left; x <= right; x++) {
      if (!inside[y * width + x]) { continue; }
      const edge = !has(x - 1, y) || !has(x + 1, y) || !has(x, y - 1) || !has(x, y + 1)
        || !has(x - 2, y) || !has(x + 2, y) || !has(x, y - 2) || !has(x, y + 2);
      pixels.data.set([red, green, blue, edge ? 255 : 105], 4 * ((y - top) * w + x - left));
    }
  }
  context.putImageData(pixels, 0, 0);
  return { object, inside, canvas, left, top };
}

function show() {
  const { header } = shown;
  const [width, height] = header.picture;
  if (view.width !== width || view.height !== height) { view.width = width; view.height = height; }
  $("waiting").hidden = true;
  $("paused-mark").hidden = !header.paused;
  $("pause").textContent = header.paused ? "Go on" : "Pause";
  document.body.dataset.connected = "yes";
  document.body.dataset.frame = header.frame;
  document.body.dataset.shown = Number(document.body.dataset.shown ?? 0) + 1;
  const now = performance.now();
  arrivals = [...arrivals.filter((time) => now - time < 2000), now];
  showBanner(header.problem);
  if (selected !== null && !header.objects.some((object) => object.object === selected)) { select(null); }
  showObjects(header.objects);
  showFigures(header);
  draw();
}

function draw() {
  if (!shown) { return; }
  const scale = view.width / shown.header.size[0];
  paint.drawImage(shown.bitmap, 0, 0);
  for (const layer of shown.layers) {
    if (!layer.canvas) { continue; }
    paint.globalAlpha = selected === null || layer.object.object === selected ? 1 : 0.55;
    paint.drawImage(layer.canvas, layer.left, layer.top);
  }
  paint.globalAlpha = 1;
  const line = Math.max(1.5, view.width / 400);
  marks = marks.filter((mark) => mark.until > performance.now());
  for (const mark of marks) {
    if (mark.box) { strokeBox(mark.box.map((value) => value * scale), line); continue; }
    paint.beginPath();
    paint.arc(mark.point[0] * scale, mark.point[1] * scale, 3 * line, 0, 7);
    paint.fillStyle = mark.off ? "#eb3232" : "#28c83c";
    paint.fill();
    paint.lineWidth = line;
    paint.strokeStyle = "#fff";
    paint.stroke();
  }
  if (press && press.isBox) { strokeBox([...press.start, ...press.end].map((value) => value * scale), line); }
  if (cross && document.activeElement === view) {
    const [x, y] = cross.map((value) => value * scale);
    for (const [colour, wide] of [["#000", 3], ["#fff", 1]]) {
      paint.strokeStyle = colour;
      paint.lineWidth = line * wide / 1.5;
      paint.beginPath();
      paint.moveTo(x - 14 * line, y); paint.lineTo(x + 14 * line, y);
      paint.moveTo(x, y - 14 * line); paint.lineTo(x, y + 14 * line);
      paint.stroke();
    }
    if (corner) { strokeBox([...corner, ...cross].map((value) => value * scale), line); }
  }
}

function strokeBox([x1, y1, x2, y2], line) {
  for (const [colour, wide] of [["#fff", 2.4], ["#28c83c", 1.2]]) {
    paint.strokeStyle = colour;
    paint.lineWidth = line * wide;
    paint.strokeRect(x1, y1, x2 - x1, y2 - y1);
  }
}

// ---- clicks

// From the pointer to pixels of the frame; the picture is fitted into the canvas' place.
function toFrame(event) {
  const place = view.getBoundingClientRect(), [width, height] = shown.header.size;
  const scale = Math.min(place.width / width, place.height / height);
  const x = (event.clientX - place.left - (place.width - width * scale) / 2) / scale;
  const y = (event.clientY - place.top - (place.height - height * scale) / 2) / scale;
  return [Math.min(width - 1, Math.max(0, x)), Math.min(height - 1, Math.max(0, y))];
}

const mode = () => document.querySelector("input[name=mode]:checked").value;

view.onpointerdown = (event) => {
  if (!shown || event.button > 0) { return; }
  view.setPointerCapture(event.pointerId);
  const start = toFrame(event);
  press = { frame: shown.header.frame, start, end: start, from: [event.clientX, event.clientY], isBox: false,
    off: event.shiftKey || mode() === "off" };
};
view.onpointermove = (event) => {
  if (!press) { return; }
  press.end = toFrame(event);
  const moved = Math.hypot(event.clientX - press.from[0], event.clientY - press.from[1]);
  press.isBox = press.isBox || (!press.off && moved > (event.pointerType === "touch" && mode() !== "box" ? 24 : HIT_PIXELS));
  draw();
};
view.onpointerup = () => {
  if (!press) { return; }
  const { frame, start, end, off, isBox } = press;
  press = null;
  cross = null;
  if (isBox) { promptBox(start, end, frame); } else { promptPoint(start, off, frame); }
};
view.onpointercancel = () => { press = null; draw(); };

function objectAt([x, y]) {
  const [width, height] = shown.header.picture, scale = width / shown.header.size[0];
  const px = Math.min(width - 1, Math.floor(x * scale)), py = Math.min(height - 1, Math.floor(y * scale));
  const hit = shown.layers.find((layer) => layer.inside[py * width + px]);
  return hit ? hit.object.object : null;
}

// A point that takes away needs an object: the selected one, else the one under it, else the last that was added.
function promptPoint(point, off, frame) {
  const object = off ? (selected ?? objectAt(point) ?? lastAdded) : selected;
  if (off && object === null) { tell("There is nothing yet to take away from.", true); return; }
  prompt({ points: [point], labels: [off ? 0 : 1], frame, object }, { point, off });
}

function promptBox(a, b, frame) {
  const box = [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])];
  if (box[2] - box[0] < 2 || box[3] - box[1] < 2) { return; }
  prompt({ box, frame, object: selected }, { box });
}

async function prompt(body, mark) {
  marks.push({ ...mark, until: performance.now() + 1500 });
  draw();
  const reply = await send("prompt", body);
  if (!reply.ok) { return; }
  lastAdded = reply.object;
  tell(body.object === null ? `Object ${reply.object} is followed.` : `Object ${reply.object} is corrected.`);
}

// ---- the list of objects

function showObjects(objects) {
  $("no-objects").hidden = objects.length > 0;
  $("reset").hidden = objects.length === 0;
  const list = $("objects");
  const rows = new Map([...list.children].map((row) => [Number(row.dataset.object), row]));
  for (const object of objects) {
    let row = rows.get(object.object);
    if (!row) { row = makeRow(object); list.append(row); }
    rows.delete(object.object);
    fillRow(row, object);
    if (known.has(object.object) && known.get(object.object) !== object.state) {
      tell(`${object.name} is ${object.state === "seen" ? "seen again" : "hidden or gone"}.`);
    }
  }
  for (const row of rows.values()) { row.remove(); }
  known = new Map(objects.map((object) => [object.object, object.state]));
}

function makeRow(object) {
  const row = document.createElement("li"), number = object.object;
  row.dataset.object = number;
  const name = document.createElement("input");
  name.maxLength = 40;
  name.setAttribute("aria-label", `Name of object ${number}`);
  name.onchange = () => { if (name.value.trim()) { send("rename", { object: number, name: name.value.trim() }); } };
  name.onkeydown = (event) => { if (event.key === "Enter") { name.blur(); } };
  const correct = document.createElement("button");
  correct.type = "button";
  correct.className = "correct";
  correct.textContent = "Correct";
  correct.onclick = () => select(selected === number ? null : number);
  const remove = document.createElement("button");
  remove.type = "button";
  remove.className = "remove";
  remove.textContent = "Remove";
  remove.onclick = () => send("remove", { object: number });
  const state = document.createElement("span");
  state.className = "state";
  row.append(name, correct, remove, state);
  return row;
}

function fillRow(row, object) {
  const [name, correct, remove, state] = row.children;
  row.className = `object ${object.state}${object.object === selected ? " selected" : ""}`;
  row.style.setProperty("--color", object.color);
  if (document.activeElement !== name) { name.value = object.name; }
  correct.setAttribute("aria-pressed", String(object.object === selected));
  correct.setAttribute("aria-label", `Correct ${object.name}`);
  remove.setAttribute("aria-label", `Remove ${object.name}`);
  state.textContent = object.state === "seen"
    ? `seen · score ${object.score.toFixed(2)} · ${object.area_pixels.toLocaleString("en")} pixels`
    : "hidden or gone";
}

function select(number) {
  selected = number;
  $("new").hidden = number === null;
  $("target").textContent = number === null
    ? "" : `Clicks now correct object ${number}. Click what is missing; Shift+click, or “takes away”, what is too much.`;
  if (shown) { showObjects(shown.header.objects); draw(); }
}

// ---- figures and messages

function showFigures(header) {
  const rate = arrivals.length > 1 ? (arrivals.length - 1) * 1000 / (arrivals.at(-1) - arrivals[0]) : 0;
  const figures = [["frames a second", rate.toFixed(1)], ["dropped", header.dropped]];
  if (header.tracker_ms) { figures.unshift(["model", `${header.tracker_ms.toFixed(0)} ms`]); }
  $("figures").replaceChildren(...figures.map(([name, value]) => {
    const item = document.createElement("li"), strong = document.createElement("b");
    strong.textContent = value;
    item.append(`${name} `, strong);
    return item;
  }));
}

function showStatus(status) {
  $("about").textContent = `${status.source} · ${status.model} at ${status.image_size} · ${status.backend} · ${status.device}`;
  document.title = `sam2edge · ${status.source}`;
  const { recorder } = status, record = $("record"), was = record.getAttribute("aria-pressed") === "true";
  record.setAttribute("aria-pressed", String(recorder.recording));
  record.textContent = recorder.recording ? `Stop (${recorder.frames})` : "Record";
  if (recorder.problem) { tell(recorder.problem, true); }
  if (was && !recorder.recording && recorder.file) { tell(`Recorded ${recorder.file}.`); listRecordings(); }
  const hot = Object.entries(status.temperatures_c).map(([zone, value]) => `${zone} ${value.toFixed(0)} °C`);
  const latency = status.latency_ms;
  const facts = [
    ["Device", status.device], ["Backend", status.backend],
    ["Model’s time", latency ? `${latency.median} ms, 99th of 100 ${latency.p99} ms` : "nothing followed yet"],
    ["Temperature", hot.join(", ") || "not told"], ["Slowed by", status.slowed_by.join(", ") || "nothing"],
    ["Memory left", status.memory_available_bytes ? `${(status.memory_available_bytes / 2 ** 30).toFixed(1)} GiB` : "not told"],
    ["Viewers", status.clients],
  ];
  $("machine").querySelector("dl").replaceChildren(...facts.flatMap(([name, value]) => {
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = value;
    return [dt, dd];
  }));
}

async function listRecordings() {
  const token = sessionStorage.getItem("token");
  const answer = await fetch("api/recordings", token ? { headers: { Authorization: `Bearer ${token}` } } : {});
  const files = answer.ok ? await answer.json() : [];
  const query = token ? `?token=${encodeURIComponent(token)}` : "";
  $("recordings").querySelector("ul").replaceChildren(...files.map((file) => {
    const item = document.createElement("li"), link = document.createElement("a");
    link.href = `api/recordings/${encodeURIComponent(file.file)}${query}`;
    link.download = file.file;
    link.textContent = `${file.file} (${(file.bytes / 1e6).toFixed(1)} MB)`;
    item.append(link);
    return item;
  }));
}
$("recordings").ontoggle = () => { if ($("recordings").open) { listRecordings(); } };

let newsTimer = 0;
function tell(text, bad = false) {
  const news = $("news");
  news.textContent = text;
  news.className = bad ? "bad" : "";
  clearTimeout(newsTimer);
  newsTimer = setTimeout(() => { news.textContent = ""; }, bad ? 6000 : 3000);
}

function showBanner(text) {
  const banner = $("banner");
  if (banner.textContent !== text) { banner.textContent = text; }
  banner.hidden = !text;
}

// ---- buttons and keys

const togglePause = () => send(shown && shown.header.paused ? "resume" : "pause");
const toggleRecord = () => send("record", { on: $("record").getAttribute("aria-pressed") !== "true" })
  .then((reply) => { if (reply.recorder && reply.recorder.recording) { $("record").setAttribute("aria-pressed", "true"); } });
$("pause").onclick = togglePause;
$("step").onclick = () => send("step");
$("record").onclick = toggleRecord;
$("new").onclick = () => select(null);
$("reset").onclick = () => send("reset");
$("help").onclick = () => $("keys").showModal();

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
view.onkeydown = (event) => {
  if (!shown) { return; }
  const [width, height] = shown.header.size, frame = shown.header.frame;
  if (ARROWS[event.key]) {
    const by = event.shiftKey ? 0.1 : 0.01;
    const [x, y] = cross ?? [width / 2, height / 2], [dx, dy] = ARROWS[event.key];
    cross = [Math.min(width - 1, Math.max(0, x + dx * by * width)), Math.min(height - 1, Math.max(0, y + dy * by * width))];
  } else if (event.key === "Enter") {
    cross = cross ?? [width / 2, height / 2];
    promptPoint(cross, event.shiftKey || mode() === "off", frame);
  } else if (event.key === "b" || event.key === "B") {
    cross = cross ?? [width / 2, height / 2];
    if (corner) { promptBox(corner, cross, frame); corner = null; } else { corner = cross; }
  } else { return; }
  event.preventDefault();
  draw();
};
view.onfocus = () => { if (shown && view.matches(":focus-visible")) { cross = cross ?? shown.header.size.map((v) => v / 2); draw(); } };
view.onblur = () => { corner = null; draw(); };

document.onkeydown = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) { return; }
  const typing = event.target.matches("input:not([type=radio])"), onButton = event.target.matches("button, summary, a");
  if (typing || (onButton && (event.key === " " || event.key === "Enter"))) { return; }
  const objects = shown ? shown.header.objects : [];
  if (event.key === " ") { togglePause(); }
  else if (event.key === ".") { send("step"); }
  else if (event.key === "r" || event.key === "R") { toggleRecord(); }
  else if (event.key === "n" || event.key === "N" || event.key === "Escape") { select(null); corner = null; draw(); }
  else if (event.key === "?") { $("keys").showModal(); }
  else if (event.key === "Delete" && selected !== null) { send("remove", { object: selected }); }
  else if (/^[1-9]$/.test(event.key) && objects.some((object) => object.object === Number(event.key))) { select(Number(event.key)); }
  else { return; }
  event.preventDefault();
};

select(null);
connect();
