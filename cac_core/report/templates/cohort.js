// The cohort report: choice of outcome and population, search, row of each number, points of plots.
(() => {
  "use strict";
  const form = document.querySelector(".switch");
  const apply = () => {
    const chosen = Object.fromEntries(
      Array.from(form.querySelectorAll("select"), (one) => [one.dataset.switch, one.value]));
    for (const block of document.querySelectorAll(".block, tr[data-outcome]")) {
      block.hidden = Object.entries(chosen).some(
        ([name, value]) => value && block.dataset[name] && block.dataset[name] !== value);
    }
  };
  if (form) {
    form.hidden = false;
    form.addEventListener("change", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    apply();
    window.dispatchEvent(new Event("resize"));
  }

  // Search: every row of every table that shows something, with its section, caption, titles and
  // synonyms. Whole words count more than beginnings of words, the row more than what is around it,
  // main analyses more than others.
  const MOST_FOUND = 40;
  const PART_OF_A_WORD = 0.1;
  const NOT_SEARCHED = new Set(["a", "at", "by", "for", "in", "of", "the", "to", "with"]);
  const plain = (node) => node?.textContent.replace(/\s+/g, " ").trim() ?? "";
  const wordsOf = (text) => text.toLowerCase().split(/[\s,;:()]+/).filter(Boolean);
  const find = document.querySelector(".find");
  const synonyms = Object.entries(JSON.parse(find?.dataset.synonyms ?? "{}")).map(
    ([phrase, others]) => [` ${wordsOf(phrase).join(" ")}`, others.join(" ")]);
  const withSynonyms = (text) => {
    const here = ` ${wordsOf(text).join(" ")} `;
    const has = ([phrase]) => here.includes(`${phrase} `) || here.includes(`${phrase}s `);
    return synonyms.filter(has).map(([, others]) => others).join(" ");
  };
  const rowsOf = (table) => {
    const titles = Array.from(table.tHead.rows[0].cells, plain), caption = plain(table.caption);
    const section = table.closest("section");
    const where = [plain(section?.querySelector("h2")),
      plain(table.closest(".block")?.querySelector("h3"))].filter(Boolean).join(", ");
    const around = wordsOf(`${where} ${caption} ${withSynonyms(`${where}; ${caption}`)}`);
    const heads = wordsOf(`${titles.slice(1).join(" ")} ${withSynonyms(titles.slice(1).join("; "))}`);
    const rank = section?.hasAttribute("data-aside") ? 1.5 : 0;
    let parent = "";
    return Array.from(table.tBodies[0].rows, (row) => {
      const [head, ...values] = row.cells;
      const inner = head.textContent.startsWith("\u2003");
      if (!inner) parent = plain(head);
      const name = inner ? `${parent}: ${plain(head)}` : plain(head);
      const shown = values.map((cell, at) => [titles[at + 1], plain(cell)]).filter(([, text]) => text);
      const texts = shown.map(([, text]) => text).join("; ");
      const known = `${name}; ${texts}`;
      const less = rank + (/\d/.test(texts) ? 0 : 3);
      return { row, table, name, shown, caption, less, heads, around,
        own: wordsOf(`${known} ${withSynonyms(known)}`) };
    }).filter(({ shown }) => shown.length);
  };
  const isHidden = ({ row, table }) => Boolean(row.hidden || table.closest(".block")?.hidden);
  // How well words have a word: 1 for itself or its plural, less for a beginning or a part.
  const fit = (words, word) => {
    const single = word.length > 3 ? word.replace(/s$/, "") : word;
    let best = 0;
    for (const one of words) {
      if (one === word || one === single || one === `${word}s`) return 1;
      if (one.startsWith(single)) best = Math.max(best, 0.6);
      else if (one.includes(word)) best = Math.max(best, PART_OF_A_WORD);
    }
    return best;
  };
  const score = (hit, words) => {
    let sum = 0;
    for (const word of words) {
      const best = Math.max(4 * fit(hit.own, word), 3 * fit(hit.heads, word), 2 * fit(hit.around, word));
      if (!best) return null;
      sum += best;
    }
    const closed = hit.table.closest("details") ? 0.3 : 0;
    return sum - hit.less - closed - (isHidden(hit) ? 1 : 0);
  };
  const reveal = (hit) => {
    const { row, table } = hit, block = table.closest(".block");
    if (form && isHidden(hit)) {
      const data = { ...block?.dataset, ...row.dataset };
      for (const select of form.querySelectorAll("select")) {
        if (data[select.dataset.switch]) select.value = data[select.dataset.switch];
      }
      apply();
    }
    for (let box = table.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
    document.querySelectorAll(".reached").forEach((one) => one.classList.remove("reached"));
    row.classList.add("reached");
    row.tabIndex = -1;
    row.focus({ preventScroll: true });
    row.scrollIntoView({ block: "center" });
  };
  if (find) {
    const input = find.querySelector("input"), list = find.querySelector(".found");
    const state = find.querySelector(".state");
    let index = null;
    const entry = (hit) => {
      const [item, button, where] = ["li", "a", "span"].map((name) => document.createElement(name));
      button.href = `#${hit.table.closest(".table").id}`;
      button.textContent = [hit.name, ...hit.shown.slice(0, 6).map(([title, text]) => `${title} ${text}`)].join("; ");
      where.className = "where";
      where.textContent = hit.caption;
      button.addEventListener("click", (event) => {
        event.preventDefault();
        list.replaceChildren();
        reveal(hit);
      });
      item.append(button, where);
      return item;
    };
    const search = () => {
      index ??= Array.from(document.querySelectorAll("main table"), rowsOf).flat();
      const typed = wordsOf(input.value);
      const wanted = typed.filter((word) => !NOT_SEARCHED.has(word));
      const words = wanted.length ? wanted : typed;
      const ranked = [];
      for (const hit of words.length ? index : []) {
        const points = score(hit, words);
        if (points !== null) ranked.push([points, hit]);
      }
      ranked.sort(([a], [b]) => b - a);
      list.replaceChildren(...ranked.slice(0, MOST_FOUND).map(([, hit]) => entry(hit)));
      state.textContent = words.length
        ? `${ranked.length} rows${ranked.length > MOST_FOUND ? `, the first ${MOST_FOUND} shown` : ""}` : "";
    };
    find.hidden = false;
    input.addEventListener("input", search);
    find.addEventListener("submit", (event) => {
      event.preventDefault();
      list.querySelector("a")?.click();
    });
    find.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { input.value = ""; search(); }
    });
  }

  // The title of a number is set on hover: there are thousands of numbers.
  document.addEventListener("pointerover", (event) => {
    const number = event.target.closest?.("data");
    if (number && !number.title) {
      const [row, column] = number.value.split(".");
      number.title = `${column} of row ${row} of tables/estimates.csv`;
    }
  });

  const SVG = "http://www.w3.org/2000/svg";
  const watch = (box) => {
    const svg = box.querySelector("svg"), status = box.querySelector(".reading");
    const points = JSON.parse(document.getElementById(box.dataset.points).textContent);
    if (!points.length) return;
    const mark = document.createElementNS(SVG, "circle");
    for (const [name, value] of [["r", 6], ["fill", "none"], ["stroke", "#000"], ["stroke-width", 1.6]]) {
      mark.setAttribute(name, value);
    }
    mark.style.display = "none";
    svg.append(mark);
    let at = -1;
    const show = (index) => {
      at = index;
      const [x, y, label] = points[index];
      mark.setAttribute("cx", x);
      mark.setAttribute("cy", y);
      mark.style.display = "";
      status.textContent = label;
    };
    svg.addEventListener("pointermove", (event) => {
      const place = new DOMPoint(event.clientX, event.clientY)
        .matrixTransform(svg.getScreenCTM().inverse());
      let best = -1, least = 100;
      points.forEach(([x, y], index) => {
        const apart = (x - place.x) ** 2 + (y - place.y) ** 2;
        if (apart < least) [best, least] = [index, apart];
      });
      if (best >= 0) show(best);
    });
    const plot = box.querySelector(".plot");
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      show((at + step + points.length) % points.length);
    });
  };
  document.querySelectorAll("[data-points]").forEach(watch);
})();
