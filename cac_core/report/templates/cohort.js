// The cohort report: choice of outcome and population, row of each number, points of plots.
(() => {
  "use strict";
  const form = document.querySelector(".switch");
  const apply = () => {
    const chosen = Object.fromEntries(
      Array.from(form.querySelectorAll("select"), (one) => [one.dataset.switch, one.value]));
    for (const block of document.querySelectorAll(".block")) {
      block.hidden = Object.entries(chosen).some(
        ([name, value]) => value && block.dataset[name] && block.dataset[name] !== value);
    }
  };
  if (form) {
    form.hidden = false;
    form.addEventListener("change", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    apply();
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
