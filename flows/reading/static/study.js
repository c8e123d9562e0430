// One study: its score, lesions, corrections and signature.

import { get, newId, post } from "./api.js";
import { words } from "./list.js";
import { element, fill, say } from "./page.js";
import { COLOURS, PRESETS, projection, Scan } from "./scan.js";

const TOOLS = [
  ["select", "Select", "v"], ["grow", "Grow", "g"], ["brush", "Brush", "b"], ["erase", "Erase", "e"],
  ["heart-add", "Heart +", "h"], ["heart-remove", "Heart −", "u"], ["pan", "Move", "m"],
];
const LAYERS = [["coronary", "Coronary", "c"], ["other", "Other calcium", "o"], ["contour", "Heart contour", "t"]];
const KINDS = { reading: "", repeat: "second look, without sight of the first", correction: "correction of your reading", adjudication: "adjudication" };
const at = (id) => document.querySelector(`#${id}`);

export class Study {
  constructor(session, stage, done) {
    this.session = session;
    this.stage = stage;
    this.done = done;
    this.names = Object.fromEntries(session.sites.map(([code, , text]) => [code, text]));
    this.numbers = Object.fromEntries(session.sites.map(([code, number]) => [code, number]));
    this.build();
    setInterval(() => this.tick(), 1000);
  }

  build() {
    fill(at("tools"), TOOLS.map(([tool, label, key]) => element("button",
      { type: "button", "data-tool": tool, title: `${label} (${key})`, text: label })));
    at("tools").addEventListener("click", (event) => this.use(event.target.dataset.tool));
    fill(at("preset"), [...PRESETS.map(([name], n) => element("option", { value: n, text: name })),
      element("option", { value: "free", text: "Free" })]);
    const options = this.session.sites.map(([code, , text]) => element("option", { value: code, text }));
    fill(at("site"), options);
    at("site").value = "lad";
    at("cause").append(...this.session.causes.map(([code, text]) => element("option", { value: code, text })));
    at("layers").append(...LAYERS.map(([name, label]) => {
      const box = element("input", { type: "checkbox", id: `layer-${name}`, "data-layer": name });
      box.checked = true;
      box.onchange = () => { this.stage.layers[name] = box.checked; this.stage.draw(); };
      return element("label", { for: `layer-${name}` }, [box, ` ${label}`]);
    }));
    at("signer").textContent = this.session.reader;
    this.wire();
    this.use("select");
    this.showWindow(0);
  }

  wire() {
    const { stage } = this;
    stage.on = {
      scroll: (step) => this.go(stage.slice + step),
      window: () => this.showWindow("free"),
      click: (row, column) => this.clicked(row, column),
      stroke: (points) => this.painted(points),
    };
    at("slice").oninput = () => this.go(Number(at("slice").value));
    at("preset").onchange = () => this.preset(at("preset").value);
    for (const name of ["level", "width"]) at(name).onchange = () => {
      stage[name] = Number(at(name).value) || stage[name];
      this.showWindow("free");
      stage.draw();
    };
    at("radius").oninput = () => { stage.brush = Number(at("radius").value); stage.draw(); };
    at("apply").onclick = () => this.assign(at("site").value);
    at("remove").onclick = () => this.assign(null);
    at("undo").onclick = () => this.correct({ do: "undo" });
    at("redo").onclick = () => this.correct({ do: "redo" });
    at("sign").addEventListener("submit", (event) => { event.preventDefault(); this.sign(); });
    at("mip").onclick = (event) => {
      const box = at("mip").getBoundingClientRect();
      this.go(this.scan.count - 1 - Math.floor(((event.clientY - box.top) / box.height) * this.scan.count));
    };
  }

  async open(key) {
    const began = performance.now();
    const token = (this.token = {});
    this.key = key;
    this.timing = {};
    this.reset();
    const [info] = await Promise.all([get(`studies/${key}`)]);
    if (token !== this.token) return;
    this.info = info;
    this.scan = new Scan(key, info.shape, info.spacing_mm, this.session.chunk);
    this.stage.show(this.scan);
    this.stage.slice = this.scan.count >> 1;
    at("slice").max = this.scan.count - 1;
    const arrived = (begin, end) => {
      if (token !== this.token) return;
      this.timing.first ??= performance.now() - began;
      if (this.stage.slice >= begin && this.stage.slice < end) this.stage.draw();
      if (this.scan.complete && !this.timing.all) { this.timing.all = performance.now() - began; this.drawMip(); }
    };
    const slices = this.scan.load(this.stage.slice, arrived);
    const draft = await get(`studies/${key}/draft`);
    if (token !== this.token) return;
    this.began(draft);
    this.stage.fit(this.scan.heartBox);
    this.go(this.scan.busiest);
    await slices;
    at("viewer").dataset.ready = key;
  }

  reset() {
    delete at("viewer").dataset.ready;
    this.stage.selected = this.stage.compared = null;
    this.seconds = 0;
    this.active = Date.now();
    this.signing = newId();
    at("reason").value = ""; at("cause").value = "";
    at("study").textContent = `Study ${this.key.slice(0, 10)}`;
    fill(at("score"), ["Opening the study …"]);
    fill(at("lesions").tBodies[0], []);
    at("compare").hidden = true;
    at("kind").textContent = "";
  }

  /** Show a draft that was begun: by opening, or from the model or another reading. */
  began(draft) {
    this.draft = draft;
    at("kind").textContent = KINDS[draft.kind];
    at("kind").hidden = !KINDS[draft.kind];
    this.take(draft, true);
    this.showReadings();
    const stated = this.info.study.agatston;
    if (Math.abs(stated - draft.model_agatston) > 1e-6) {
      say(`The table of scores says ${stated.toFixed(1)}, and the model now finds ${draft.model_agatston.toFixed(1)}.`);
    }
  }

  take(answer, all = false) {
    this.score = answer.score;
    this.scan.mark(answer.slices, all);
    this.stage.selected = this.score.lesions.find((one) => same(one, this.stage.selected)) ?? null;
    this.showScore();
    this.showLesions();
    this.stage.draw();
    if (this.scan.complete) this.drawMip();
  }

  // -- what is shown

  showScore() {
    const { score, info, draft } = this;
    const coronary = ["lm", "lad", "lcx", "rca", "coronary"];
    const others = Object.keys(score.sites).filter((code) => !coronary.includes(code) && score.sites[code] > 0);
    const expert = info.study.expert_agatston === null ? null
      : `${info.study.expert_agatston.toFixed(1)} (${info.study.expert_cac_category})`;
    const line = (name, value) => [element("dt", { text: name }), element("dd", { text: value })];
    fill(at("score"), [
      element("div", { class: "total", text: score.agatston.toFixed(1) }),
      element("div", { text: `Agatston score, category ${score.category}` }),
      element("div", { class: score.category === info.study.cac_category ? "was" : "warn",
        text: `Model: ${draft.model_agatston.toFixed(1)} (${info.study.cac_category})` }),
      ...(expert ? [element("div", { class: "was", text: `Expert: ${expert}` })] : []),
      ...(info.study.visual_grade ? [element("div", { class: "was", text: `Visual grade: ${info.study.visual_grade}` })] : []),
      element("dl", {}, [
        ...coronary.flatMap((code) => line(code === "coronary" ? "Vessel not named" : code.toUpperCase(), score.sites[code].toFixed(1))),
        ...line("Other calcium", score.noncoronary.toFixed(1)),
        ...others.flatMap((code) => line(words(code), score.sites[code].toFixed(1))),
        ...line("Corrections", score.corrections),
      ]),
      element("div", { class: "was", text: [info.study.review_reasons, info.study.quality_flags].filter(Boolean).map((t) => words(t).replaceAll(";", ", ")).join("; ") }),
    ]);
    at("undo").disabled = !score.corrections;
    at("redo").disabled = !score.can_redo;
  }

  showLesions() {
    const rows = this.score.lesions.map((lesion, n) => {
      const swatch = element("span", { class: `swatch s${this.numbers[lesion.site]}`, "aria-hidden": "true" });
      const jump = element("button", { type: "button", text: String(lesion.slice + 1), "aria-label": `Lesion ${n + 1} in slice ${lesion.slice + 1}` });
      const line = element("tr", {}, [
        element("td", {}, [jump]),
        element("td", {}, [swatch, shortName(lesion.site)]),
        element("td", { class: "number", text: lesion.peak_hu }),
        element("td", { class: "number", text: lesion.area_mm2.toFixed(1) }),
        element("td", { class: "number", text: lesion.agatston.toFixed(1) }),
      ]);
      if (same(lesion, this.stage.selected)) line.setAttribute("aria-current", "true");
      line.onclick = () => this.pick(lesion);
      return line;
    });
    fill(at("lesions").tBodies[0], rows);
  }

  showReadings() {
    const place = at("compare");
    place.hidden = !this.info.readings.length && this.info.kinds.length < 2;
    const rows = this.info.readings.map((one) => {
      const show = element("button", { type: "button", text: "Show" });
      show.onclick = () => this.compare(one.reading_id);
      const begin = element("button", { type: "button", text: "Begin from it" });
      begin.onclick = () => this.begin({ begin: one.reading_id, kind: this.draft.kind });
      return element("p", {}, [
        element("strong", { text: one.kind === "adjudication" ? "Adjudication" : `Reader ${one.reader}` }),
        `: ${one.agatston.toFixed(1)} (${one.cac_category})${one.cause ? `, ${words(one.cause)}` : ""} ${one.reason ?? ""} `,
        show, " ", begin]);
    });
    const again = element("button", { type: "button", text: "Read again without sight of the first" });
    again.onclick = () => this.begin({ kind: "repeat" });
    fill(place, [element("h3", { text: "Signed readings" }),
      ...(this.draft.kind === "repeat" ? [] : rows),
      ...(this.info.kinds.includes("repeat") && this.draft.kind !== "repeat" ? [again] : [])]);
  }

  showWindow(preset) {
    at("preset").value = preset;
    at("level").value = this.stage.level;
    at("width").value = this.stage.width;
  }

  drawMip() {
    const shown = projection(this.scan);
    const canvas = at("mip");
    if (!shown) return;
    canvas.width = shown.width;
    canvas.height = shown.height;
    const context = canvas.getContext("2d");
    const image = context.createImageData(shown.width, shown.height);
    for (let i = 0; i < shown.values.length; i += 1) {
      const grey = Math.max(0, Math.min(255, (shown.values[i] + 100) * 0.32));
      const colour = COLOURS[shown.sites[i]] ?? [grey, grey, grey];
      image.data.set([...colour, 255], i * 4);
    }
    context.putImageData(image, 0, 0);
    this.mip = image;
    this.markMip();
    canvas.style.aspectRatio = `${shown.width * this.scan.spacing[2]} / ${shown.height * this.scan.spacing[0]}`;
  }

  markMip() {
    if (!this.mip) return;
    const context = at("mip").getContext("2d");
    context.putImageData(this.mip, 0, 0);
    context.fillStyle = "rgba(127,212,255,.8)";
    context.fillRect(0, this.scan.count - 1 - this.stage.slice, this.mip.width, 1);
  }

  // -- what the reader does

  go(slice) {
    const { stage, scan } = this;
    stage.slice = Math.max(0, Math.min(scan.count - 1, slice));
    at("slice").value = stage.slice;
    at("where").textContent = `${stage.slice + 1} of ${scan.count}`;
    stage.draw();
    this.markMip();
  }

  preset(value) {
    if (value === "free") return;
    [, this.stage.level, this.stage.width] = PRESETS[value];
    this.showWindow(value);
    this.stage.draw();
  }

  use(tool) {
    if (!tool) return;
    this.stage.tool = tool;
    for (const button of at("tools").children) button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
    this.stage.draw();
  }

  pick(lesion) {
    this.go(lesion.slice);
    this.stage.look(lesion);
    this.showLesions();
  }

  step(step) {
    const { lesions } = this.score;
    if (!lesions.length) return;
    const now = lesions.findIndex((one) => same(one, this.stage.selected));
    this.pick(lesions[(now + step + lesions.length) % lesions.length]);
  }

  clicked(row, column) {
    const here = { slice: this.stage.slice, row, column };
    if (this.stage.tool === "grow") {
      this.correct({ do: "grow", ...here, site: at("site").value, extent: at("extent").value });
      return;
    }
    const near = this.score.lesions.filter((one) => one.slice === here.slice)
      .map((one) => [Math.hypot(one.row - row, one.column - column), one]).sort((a, b) => a[0] - b[0])[0];
    const reach = near ? Math.sqrt(near[1].area_mm2) / this.scan.spacing[2] + 4 : 0;
    this.stage.selected = near && near[0] < reach ? near[1] : null;
    this.place = here;
    this.showLesions();
    this.stage.draw();
  }

  painted(points) {
    const { tool, radiusPx } = this.stage;
    const brush = { slice: this.stage.slice, points, radius_px: radiusPx };
    if (tool === "brush" || tool === "erase") {
      this.correct({ do: "paint", ...brush, site: tool === "erase" ? null : at("site").value });
    } else {
      this.correct({ do: "heart", ...brush, add: tool === "heart-add", reach: Number(at("reach").value) || 0 });
    }
  }

  assign(site) {
    const lesion = this.stage.selected;
    if (!lesion) { say("Select a lesion first: click on it, or press n."); return; }
    const [row, column] = this.pixelOf(lesion);
    this.correct({ do: "assign", slice: lesion.slice, row, column, site, extent: at("extent").value });
  }

  /** A pixel of a lesion: the marked one that is nearest to its centroid. */
  pixelOf(lesion) {
    const number = this.numbers[lesion.site];
    const [row, column] = [Math.round(lesion.row), Math.round(lesion.column)];
    for (let reach = 0; reach < 40; reach += 1) {
      for (let r = row - reach; r <= row + reach; r += 1) {
        for (let c = column - reach; c <= column + reach; c += 1) {
          if (Math.max(Math.abs(r - row), Math.abs(c - column)) === reach
            && r >= 0 && c >= 0 && r < this.scan.rows && c < this.scan.columns
            && this.scan.siteAt(lesion.slice, r, c) === number) return [r, c];
        }
      }
    }
    return [row, column];
  }

  async correct(correction) {
    const began = performance.now();
    try {
      const answer = await post(`studies/${this.key}/corrections`, correction);
      const jump = this.stage.selected;
      this.take(answer);
      if (correction.do === "assign" && jump) {
        const moved = this.score.lesions.find((one) => one.slice === jump.slice
          && Math.hypot(one.row - jump.row, one.column - jump.column) < 1);
        this.stage.selected = moved ?? null;
        this.showLesions();
      }
      this.timing.correction = performance.now() - began;
      at("score").dataset.corrections = this.score.corrections;
    } catch (error) { say(error.message); }
  }

  async begin(choice) {
    if (this.score.corrections && !window.confirm("Give up the corrections that are not signed?")) return;
    try {
      this.began(await post(`studies/${this.key}/draft`, choice));
      this.go(this.stage.slice);
    } catch (error) { say(error.message); }
  }

  async compare(reading) {
    try {
      const answer = await get(`studies/${this.key}/readings/${reading}`);
      const other = new Scan(this.key, this.info.shape, this.info.spacing_mm, this.session.chunk);
      other.slices = this.scan.slices;
      other.mark(answer.slices, true);
      const here = this.scan.marks;
      this.stage.compared = other;
      this.scan.marks = other.marks;
      this.stage.draw();
      say("The signed reading is shown for five seconds.");
      const { token } = this;
      setTimeout(() => {
        if (token !== this.token) return;
        this.scan.marks = here;
        this.stage.compared = null;
        this.stage.draw();
      }, 5000);
    } catch (error) { say(error.message); }
  }

  async sign() {
    const given = { reading_id: this.signing, reason: at("reason").value, cause: at("cause").value, seconds_active: this.seconds };
    try {
      const answer = await post(`studies/${this.key}/readings`, given);
      say(`Signed: ${answer.signed.agatston.toFixed(1)}, category ${answer.signed.cac_category}.`);
      await this.done(this.key);
    } catch (error) { say(error.message); }
  }

  /** Time with the study in view; pauses of more than a minute do not count. */
  tick() {
    const seen = !document.hidden && !at("viewer").hidden && Date.now() - this.active < 60000;
    if (this.key && seen) this.seconds += 1;
  }

  press(event) {
    this.active = Date.now();
    const tool = TOOLS.find(([, , key]) => key === event.key);
    const layer = LAYERS.find(([, , key]) => key === event.key);
    const known = {
      ArrowUp: () => this.go(this.stage.slice + 1), ArrowDown: () => this.go(this.stage.slice - 1),
      PageUp: () => this.go(this.stage.slice + 5), PageDown: () => this.go(this.stage.slice - 5),
      n: () => this.step(1), p: () => this.step(-1), x: () => this.assign(null),
      z: () => this.correct({ do: "undo" }), Z: () => this.correct({ do: "redo" }),
      "+": () => this.stage.zoomBy(1.25), "-": () => this.stage.zoomBy(0.8), 0: () => this.stage.whole(),
      w: () => this.preset((Number(at("preset").value) + 1 || 0) % PRESETS.length),
      S: () => at("reason").focus(),
    }[event.key];
    const site = { 1: "lm", 2: "lad", 3: "lcx", 4: "rca", 5: "mitral_valve", 6: "aortic_valve", 7: "ascending_aorta", 8: "descending_aorta", 9: "pericardium" }[event.key];
    if (known) known();
    else if (tool) this.use(tool[0]);
    else if (layer) at(`layer-${layer[0]}`).click();
    else if (site) { at("site").value = site; if (this.stage.selected) this.assign(site); } else return false;
    return true;
  }
}

const same = (a, b) => Boolean(a && b) && a.slice === b.slice && a.row === b.row && a.column === b.column;
const shortName = (site) => ({ lm: "LM", lad: "LAD", lcx: "LCX", rca: "RCA", coronary: "coronary", noncoronary: "other" }[site] ?? words(site));
