"use strict";
const $ = (id) => document.getElementById(id);
const panels = JSON.parse($("data").textContent);

// One picture at a time, the newest first; the slider and the buttons move through them.
function show(place) {
  const at = Math.min(Math.max(place, 0), panels.length - 1);
  $("panel").value = at;
  $("step").textContent = panels[at].title;
  $("shown").src = panels[at].image;
  $("shown").alt = panels[at].title;
  $("previous").disabled = at === 0;
  $("next").disabled = at === panels.length - 1;
}

if (panels.length) {
  $("panel").max = panels.length - 1;
  $("panel").addEventListener("input", () => show(Number($("panel").value)));
  $("previous").addEventListener("click", () => show(Number($("panel").value) - 1));
  $("next").addEventListener("click", () => show(Number($("panel").value) + 1));
  show(panels.length - 1);
} else {
  $("images").hidden = true;
}
