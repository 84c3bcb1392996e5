"use strict";
const $ = (id) => document.getElementById(id);

// Tables sort by a click on a heading, by the number in data-value where there is one.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") === "descending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const order = (a, b) => key(a).localeCompare(key(b), "en", { numeric: true });
    const numeric = (a, b) => key(a) - key(b);
    const isNumber = [...table.tBodies[0].rows].every((row) => row.cells[column].dataset.value !== undefined);
    const rows = [...table.tBodies[0].rows].sort(isNumber ? numeric : order);
    table.tBodies[0].append(...(up ? rows : rows.reverse()));
  }));
}

// The viewer: one strip of grey images a slice (sources, truth, methods); errors are computed from it.
const data = JSON.parse($("data").textContent);
const [height, width] = data.size;
const heat = Uint8Array.from(atob(data.heat), (c) => c.charCodeAt(0));
const subjects = [...new Set(data.slices.map((slice) => slice.subject))];
const zoom = { on: false, x: 0.5, y: 0.5, share: 1 / 3 };
let current = null;

function panel(parent, title) {
  const figure = document.createElement("figure"), caption = document.createElement("figcaption");
  const name = document.createElement("strong"), note = document.createElement("span");
  name.textContent = title;
  caption.append(name, note);
  figure.append(caption);
  parent.append(figure);
  return { figure, caption, note };
}

function surface(figure, before, label) {
  const canvas = document.createElement("canvas"), scale = Math.max(1, Math.round(512 / Math.max(width, height)));
  canvas.width = width * scale;
  canvas.height = height * scale;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect();
    zoom.on = !zoom.on;
    zoom.x = (event.clientX - box.left) / box.width;
    zoom.y = (event.clientY - box.top) / box.height;
    draw();
  });
  figure.insertBefore(canvas, before);
  return canvas;
}

const given = [...data.sources, data.truth].map((name) => {
  const { figure, caption } = panel($("given"), name);
  return surface(figure, caption, name);
});
const made = data.methods.map((name) => {
  const { figure, caption, note } = panel($("made"), name);
  return { name, note, image: surface(figure, caption, name), error: surface(figure, caption, "absolute error of " + name) };
});

const greys = Uint8Array.from({ length: 768 }, (_, i) => Math.floor(i / 3));

function paint(canvas, levels, colours) {
  const plain = new OffscreenCanvas(width, height), pixels = new ImageData(width, height), rgba = pixels.data;
  for (let i = 0; i < levels.length; i++) {
    for (let c = 0; c < 3; c++) rgba[4 * i + c] = colours[3 * levels[i] + c];
    rgba[4 * i + 3] = 255;
  }
  plain.getContext("2d").putImageData(pixels, 0, 0);
  const share = zoom.on ? zoom.share : 1, limit = (v) => Math.min(Math.max(v - share / 2, 0), 1 - share);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = true;
  context.drawImage(plain, limit(zoom.x) * width, limit(zoom.y) * height, share * width, share * height, 0, 0, canvas.width, canvas.height);
  canvas.classList.toggle("zoomed", zoom.on);
}

function draw() {
  if (!current) return;
  const { grey, slice } = current, top = Number($("range").value);
  const truth = grey[data.sources.length];
  given.forEach((canvas, place) => paint(canvas, grey[place], greys));
  made.forEach(({ name, note, image, error }, m) => {
    const synthetic = grey[given.length + m];
    paint(image, synthetic, greys);
    paint(error, truth.map((v, i) => Math.min(255, Math.round(Math.abs(synthetic[i] - v) / top))), heat);
    const s = slice.scores[name];
    note.textContent = s ? `PSNR ${s.psnr} dB · SSIM ${s.ssim}` : "";
  });
  $("top").textContent = top;
}

function here() { return data.slices.filter((slice) => slice.subject === $("subject").value); }

async function show() {
  const slice = here()[$("slice").value], strip = new Image();
  $("number").textContent = `${slice.slice}  (${Number($("slice").value) + 1} of ${here().length})`;
  strip.src = "data:image/png;base64," + slice.strip;
  await strip.decode();
  if (slice !== here()[$("slice").value]) return;
  const canvas = new OffscreenCanvas(strip.width, strip.height), context = canvas.getContext("2d");
  context.drawImage(strip, 0, 0);
  const grey = Array.from({ length: strip.width / width }, (_, place) => {
    const { data: rgba } = context.getImageData(place * width, 0, width, height);
    return Uint8Array.from({ length: width * height }, (_, i) => rgba[4 * i]);
  });
  current = { grey, slice };
  draw();
}

function openSubject(subject, slice = 0) {
  $("subject").value = subject;
  $("slice").max = here().length - 1;
  $("slice").value = slice;
  show();
}

function move(by) {
  $("slice").value = Number($("slice").value) + by;
  show();
}

if (subjects.length) {
  subjects.forEach((subject) => $("subject").append(new Option(subject, subject)));
  $("subject").addEventListener("change", () => openSubject($("subject").value));
  $("slice").addEventListener("input", show);
  $("previous").addEventListener("click", () => move(-1));
  $("next").addEventListener("click", () => move(1));
  $("range").addEventListener("change", draw);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && zoom.on) { zoom.on = false; draw(); } });
  for (const link of document.querySelectorAll("a[data-subject]")) link.addEventListener("click", () => openSubject(link.dataset.subject));
  const scale = $("scale").getContext("2d"), bar = scale.createImageData(256, 1);
  for (let i = 0; i < 256; i++) bar.data.set([heat[3 * i], heat[3 * i + 1], heat[3 * i + 2], 255], 4 * i);
  scale.putImageData(bar, 0, 0);
  openSubject(data.first);
} else {
  document.querySelector(".controls").remove();
}
