// Sorting and filtering of tables, and the list of contents. Without the script a page shows the
// same tables, unsorted.
(() => {
  "use strict";
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  const valueOf = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.sort ?? cell.textContent.trim();
  };

  const compare = (a, b) => {
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? collator.compare(a, b) : x - y;
  };

  const sortBy = (table, header) => {
    const order = header.ariaSort === "ascending" ? "descending" : "ascending";
    const sign = order === "ascending" ? 1 : -1;
    for (const other of table.tHead.rows[0].cells) other.ariaSort = null;
    header.ariaSort = order;
    const body = table.tBodies[0];
    const rows = Array.from(body.rows, (row) => [valueOf(row, header.cellIndex), row]);
    // Empty cells come last in either order; the sort is stable.
    rows.sort(([a], [b]) => (a === "" || b === "" ? (a === "") - (b === "") : sign * compare(a, b)));
    body.append(...rows.map(([, row]) => row));
  };

  const makeSortable = (table) => {
    for (const header of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      button.addEventListener("click", () => sortBy(table, header));
      header.append(button);
    }
  };

  const makeFilterable = (table) => {
    const [bar, label, input, count] = ["div", "label", "input", "span"].map((name) =>
      document.createElement(name));
    bar.className = "filter";
    input.type = "search";
    input.id = `${table.caption.id}-filter`;
    label.htmlFor = input.id;
    label.textContent = "Show rows that contain";
    count.setAttribute("role", "status");
    const rows = Array.from(table.tBodies[0].rows, (row) => [row.textContent.toLowerCase(), row]);
    const apply = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const [text, row] of rows) {
        row.hidden = !words.every((word) => text.includes(word));
        shown += row.hidden ? 0 : 1;
      }
      count.textContent = `${shown} of ${rows.length} rows`;
    };
    input.addEventListener("input", apply);
    bar.append(label, input, count);
    table.closest(".scroll").before(bar);
    apply();
  };

  // The list of contents stays in view: beside a wide page, as a bar above a narrow one.
  const watchContents = (nav) => {
    const root = document.documentElement, list = nav.querySelector("details");
    const wide = window.matchMedia("(min-width: 75rem)");
    const links = new Map(Array.from(nav.querySelectorAll("a"), (link) => [link.hash.slice(1), link]));
    const measure = () => {
      const bar = wide.matches ? document.querySelector(".switch:not([hidden])") : nav;
      root.style.setProperty("--stuck", `${bar?.offsetHeight ?? 0}px`);
    };
    const adapt = () => { list.open = wide.matches; measure(); };
    root.classList.add("scripted");
    wide.addEventListener("change", adapt);
    window.addEventListener("resize", measure);
    list.addEventListener("toggle", measure);
    nav.addEventListener("click", (event) => {
      if (event.target.closest("a[href^='#']") && !wide.matches) list.open = false;
    });
    const seen = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) {
          for (const link of links.values()) link.removeAttribute("aria-current");
          links.get(target.id)?.setAttribute("aria-current", "true");
        }
      }
    }, { rootMargin: "-15% 0px -80% 0px" });
    for (const name of links.keys()) {
      const part = document.getElementById(name);
      if (part) seen.observe(part);
    }
    adapt();
  };

  document.querySelectorAll("nav.contents").forEach(watchContents);
  document.querySelectorAll("table[data-filterable]").forEach(makeFilterable);
  document.querySelectorAll("table[data-sortable]").forEach(makeSortable);
  // On paper everything is open.
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((item) => { item.open = true; });
  });
})();
