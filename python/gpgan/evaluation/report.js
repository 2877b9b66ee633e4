"use strict";
(() => {
  // Tables: a click on a header sorts by it, another one turns the order round.
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    const value = (row, column) => {
      const cell = row.cells[column];
      return cell.dataset.value === undefined ? cell.textContent : parseFloat(cell.dataset.value);
    };
    const compare = (a, b) => {
      if (typeof a === "string") return a.localeCompare(b);
      return Number.isNaN(a) || Number.isNaN(b) ? Number.isNaN(a) - Number.isNaN(b) : a - b;
    };
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const first = column === 0 ? "ascending" : "descending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      heads.forEach((each) => each.setAttribute("aria-sort", each === head ? order : "none"));
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [value(a, column), value(b, column)];
        const missing = Number.isNaN(x) || Number.isNaN(y);
        return order === "descending" && !missing ? compare(y, x) : compare(x, y);
      });
      table.tBodies[0].append(...rows);
    }));
  }

  for (const input of document.querySelectorAll("input[name=size]")) {
    input.addEventListener("change", () => { document.body.className = input.value; });
    if (input.checked) document.body.className = input.value;
  }
  for (const input of document.querySelectorAll("input[name=method]")) {
    const show = () => {
      for (const element of document.querySelectorAll("[data-method]")) {
        if (element.dataset.method === input.value) element.classList.toggle("hidden", !input.checked);
      }
    };
    input.addEventListener("change", show);
    if (!input.checked) show();
  }

  const dialog = document.querySelector("dialog");
  const [large, caption, link] = ["img", "figcaption span", "figcaption a"].map((name) => dialog.querySelector(name));
  let shown = null;
  const open = (figure) => {
    const image = figure && figure.querySelector("button img");
    if (!image) return;
    shown = figure;
    large.src = image.src;
    large.alt = image.alt;
    link.href = image.dataset.full;
    // Where the run's folder is still beside this page, the result itself takes the small picture's place.
    const full = new Image();
    full.addEventListener("load", () => { if (shown === figure) large.src = full.src; });
    full.src = image.dataset.full;
    const article = figure.closest("article");
    const said = [...figure.querySelectorAll("figcaption > *")].map((element) => element.textContent);
    caption.textContent = [article.querySelector("h3").textContent, ...said].join(" · ");
    if (!dialog.open) dialog.showModal();
  };
  const pictures = (article) =>
    [...article.querySelectorAll("figure")].filter((f) => !f.classList.contains("hidden") && f.querySelector("img"));
  const step = (by) => {
    const all = pictures(shown.closest("article"));
    open(all[(all.indexOf(shown) + by + all.length) % all.length]);
  };
  const turn = (by) => {
    const articles = [...document.querySelectorAll("article")];
    const label = shown.querySelector("figcaption b").textContent;
    let at = articles.indexOf(shown.closest("article")) + by;
    for (; at >= 0 && at < articles.length; at += by) {
      const same = pictures(articles[at]).find((f) => f.querySelector("figcaption b").textContent === label);
      if (same) {
        articles[at].scrollIntoView();
        open(same);
        return;
      }
    }
  };
  document.querySelector("#items").addEventListener("click", (event) => {
    const button = event.target.closest("figure > button");
    if (button) open(button.parentElement);
  });
  large.addEventListener("click", () => dialog.close());
  dialog.querySelector("button").addEventListener("click", () => dialog.close());
  dialog.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [step, -1], ArrowRight: [step, 1], ArrowUp: [turn, -1], ArrowDown: [turn, 1] }[event.key];
    if (!move) return;
    event.preventDefault();
    move[0](move[1]);
  });
})();
