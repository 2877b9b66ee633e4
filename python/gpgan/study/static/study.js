"use strict";

const form = document.getElementById("trial");
const stage = form.querySelector(".stage");
const pictures = [...stage.querySelectorAll("img")];
const options = [...form.querySelectorAll(".option")];
const skip = form.querySelector(".skip");
const status = document.getElementById("status");
const large = document.getElementById("large");
const line = document.getElementById("line");

// A second click on what was there before must not fall on the next question.
const CALM_MS = 400;
// Pictures whose longer side is below this are not worth a comparison: rather scroll.
const SMALLEST = 240;

const loadedAt = performance.now();
let shownAt = null;
let sent = false;

// ----------------------------------------------------------------------------------------------------- layout

function place() {
  const count = Number(stage.dataset.count);
  const aspect = stage.dataset.width / stage.dataset.height;
  const style = getComputedStyle(document.documentElement);
  const gap = parseFloat(style.getPropertyValue("--gap"));
  const caption = parseFloat(style.getPropertyValue("--caption"));
  const padding = getComputedStyle(form);
  const width = form.clientWidth - parseFloat(padding.paddingLeft) - parseFloat(padding.paddingRight);
  const others = [...form.children].filter((child) => child !== stage && child.offsetHeight > 0);
  const taken = others.reduce((sum, child) => sum + child.offsetHeight + parseFloat(padding.rowGap), 0);
  const edges = parseFloat(padding.paddingTop) + parseFloat(padding.paddingBottom);
  const height = window.innerHeight - taken - edges;

  // The composite above the options, at their left, or as the first of one grid: the largest pictures win, of
  // equals those with the most options side by side, and a grid, which tears options apart, only if it is worth it.
  const widest = (columns) => (width - (columns - 1) * gap) / columns;
  let best = null;
  for (const side of ["top", "left", "grid"]) {
    for (let columns = count; columns >= 1; columns--) {
      const across = side === "left" ? columns + 1 : columns;
      const cells = side === "grid" ? count + 1 : count;
      const down = Math.ceil(cells / columns) + (side === "top" ? 1 : 0);
      const tall = (height - (down - 1) * gap) / down - caption;
      const tile = Math.floor(Math.min(widest(across), tall * aspect));
      if (best === null || tile > 1 + best.tile * (side === "grid" ? 1.1 : 1)) {
        best = { columns, side, tile };
      }
    }
  }
  if (Math.max(best.tile, best.tile / aspect) < SMALLEST) {
    const least = Math.min(SMALLEST, SMALLEST * aspect);
    const columns = Math.min(count, Math.max(1, Math.floor((width + gap) / (least + gap))));
    best = { columns, side: "top", tile: Math.floor(Math.min(widest(columns), 1.5 * SMALLEST)) };
  }
  // Never larger than it is: enlarging would add a blur of its own.
  const tile = Math.max(Math.min(best.tile, Number(stage.dataset.width) * 2), 64);
  stage.style.setProperty("--tile", `${tile}px`);
  stage.style.setProperty("--columns", best.columns);
  for (const side of ["top", "left", "grid"]) {
    stage.classList.toggle(side, best.side === side);
  }
  stage.classList.add("placed");
}

// ---------------------------------------------------------------------------------------------------- loading

async function load() {
  const waited = await Promise.allSettled(pictures.map((picture) => picture.decode()));
  const broken = waited.some((one) => one.status === "rejected");
  await new Promise((done) => setTimeout(done, Math.max(0, CALM_MS - (performance.now() - loadedAt))));
  skip.disabled = false;
  if (broken) {
    status.textContent = "A picture cannot be shown. Please skip this question.";
    return;
  }
  stage.classList.remove("loading");
  for (const option of options) {
    option.disabled = false;
  }
  shownAt = performance.now();
  const keys = window.matchMedia("(hover: none)").matches ? "" : `, or press 1 to ${Math.min(options.length, 9)}`;
  status.textContent = `Click the one that looks most real${keys}`;
  fetchUpcoming();
}

// The next question's pictures, one by one, while this one is looked at.
async function fetchUpcoming() {
  for (const address of stage.dataset.upcoming.split(" ").filter(Boolean)) {
    const picture = new Image();
    picture.src = address;
    await picture.decode().catch(() => {});
  }
}

// ------------------------------------------------------------------------------------------------------ choice

form.addEventListener("submit", (event) => {
  const button = event.submitter;
  if (sent || !button || button.name !== "choice") {
    event.preventDefault();
    return;
  }
  sent = true;
  if (shownAt !== null) {
    form.elements.response_ms.value = Math.round(performance.now() - shownAt);
  }
  button.classList.add("chosen");
  form.classList.add("sent");
  status.textContent = "Saving";
});

function choose(button) {
  if (button && !button.disabled && !sent) {
    if (large.open) {
      large.close();
    }
    form.requestSubmit(button);
  }
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) {
    return;
  }
  if (/^[1-9]$/.test(event.key)) {
    choose(options[event.key - 1]);
  } else if (event.key === "s" || event.key === "S") {
    choose(skip);
  } else if ((event.key === "o" || event.key === "O") && line) {
    line.click();
  } else if (large.open && event.key === "ArrowLeft") {
    enlarge(enlarged - 1);
  } else if (large.open && event.key === "ArrowRight") {
    enlarge(enlarged + 1);
  }
});

if (line) {
  line.addEventListener("click", () => {
    const hidden = stage.classList.toggle("no-line");
    line.setAttribute("aria-pressed", hidden);
    line.lastChild.textContent = hidden ? "Show line" : "Hide line";
  });
}

// ------------------------------------------------------------------------------------------------- one alone

let enlarged = 0;

function enlarge(number) {
  if (shownAt === null) {
    return;
  }
  enlarged = (number + pictures.length) % pictures.length;
  const image = large.querySelector("img");
  const picture = pictures[enlarged];
  image.src = picture.src;
  image.alt = picture.alt;
  large.querySelector("span").textContent = enlarged === 0 ? "Pasted, untouched" : `Picture ${enlarged}`;
  if (!large.open) {
    large.showModal();
  }
}

for (const button of form.querySelectorAll(".enlarge")) {
  button.addEventListener("click", () => enlarge(Number(button.dataset.place)));
}
for (const button of large.querySelectorAll("[data-step]")) {
  button.addEventListener("click", () => enlarge(enlarged + Number(button.dataset.step)));
}
document.getElementById("close").addEventListener("click", () => large.close());

// A page that the browser kept would show a question that was answered.
window.addEventListener("pageshow", (event) => {
  if (event.persisted) {
    window.location.reload();
  }
});
window.addEventListener("resize", place);
place();
load();
