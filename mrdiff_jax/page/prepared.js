"use strict";
const $ = (id) => document.getElementById(id);
const exams = JSON.parse($("data").textContent);
const names = [...new Set(exams.flatMap((exam) => exam.scans.map((scan) => scan.contrast)))];
const HINTS = {
  flick: "Click a picture, or press a number, to flick from contrast to contrast: what belongs together must not move.",
  beside: "The contrasts of each exam, the reference first.",
  colour: "The reference in cyan, the chosen contrast in red: edges that lie on each other show no colour of their own. Click for the next.",
};
let shown = 0, timer = null;

function element(tag, parent, name = "", text = "") {
  const made = document.createElement(tag);
  made.className = name;
  made.textContent = text;
  parent.append(made);
  return made;
}

const cards = exams.map((exam) => {
  const card = element("article", $("exams"), exam.reason ? "exam failed" : "exam");
  const head = element("h2", card, "", exam.exam);
  element("small", head, "", exam.reason ? "failed" : `${exam.split}${exam.split && ", "}${exam.slices} slices`);
  if (exam.reason) element("p", card, "reason", exam.reason);
  const words = `${exam.exam} ${exam.split} ${exam.reason}`.toLowerCase();
  if (!exam.scans.length) return { card, words, layers: [] };
  const stack = element("button", card, "stack");
  stack.type = "button";
  stack.setAttribute("aria-label", `next contrast of ${exam.exam}`);
  stack.addEventListener("click", () => show(shown + 1));
  const notes = element("ul", card, "notes");
  const layers = exam.scans.map((scan) => {
    const holder = element("span", stack, "tint"), image = element("img", holder);
    image.src = scan.image;
    image.alt = `${scan.contrast} of ${exam.exam}`;
    image.loading = "lazy";
    const note = element("li", notes);
    element("b", note, "", scan.contrast);
    note.append(` ${scan.note}`);
    return { holder, image, note };
  });
  return { card, words, stack, layers };
});

function show(index) {
  const view = $("view").value, first = view === "colour" && names.length > 1 ? 1 : 0;
  shown = index >= names.length ? first : Math.max(index, first);
  cards.filter((card) => card.stack).forEach(({ stack, layers }) => {
    stack.className = `stack ${view}`;
    layers.forEach(({ holder, image, note }, place) => {
      const on = view === "beside" || place === shown || (view === "colour" && place === 0);
      [holder, image, note].forEach((each) => each.classList.toggle("on", on));
      holder.style.setProperty("--tint", place ? "#f00" : "#0ff");
    });
  });
  buttons.forEach((button, place) => button.setAttribute("aria-pressed", String(view !== "beside" && place === shown)));
  $("hint").textContent = HINTS[view];
}

const buttons = names.map((name, place) => {
  const button = element("button", $("contrasts"), "", `${place + 1} ${name}`);
  button.type = "button";
  button.addEventListener("click", () => show(place));
  return button;
});

$("view").addEventListener("change", () => show(shown));
$("find").addEventListener("input", () => {
  const words = $("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  cards.forEach((card) => { card.card.hidden = !words.every((word) => card.words.includes(word)); });
});
$("play").addEventListener("change", () => {
  clearInterval(timer);
  if ($("play").checked) timer = setInterval(() => show(shown + 1), 700);
});
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input[type=search], select")) return;
  if (Number(event.key) >= 1 && Number(event.key) <= names.length) show(Number(event.key) - 1);
});
show(0);
