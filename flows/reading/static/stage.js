// The canvas: draws the slice with its marks, and turns the pointer into pixels of the scan.

import { PRESETS } from "./scan.js";

const LINE = "#7fd4ff";

export class Stage {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.plane = document.createElement("canvas");
    this.layers = { coronary: true, other: true, contour: true };
    [, this.level, this.width] = PRESETS[0];
    this.slice = 0;
    this.tool = "select";
    this.brush = 3;
    this.stroke = null;
    this.hover = null;
    this.selected = null;
    this.compared = null;
    this.on = {};
    this.timing = { draw: 0 };
    this.listen();
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  show(scan) {
    this.scan = scan;
    this.plane.width = scan.columns;
    this.plane.height = scan.rows;
    this.image = this.plane.getContext("2d").createImageData(scan.columns, scan.rows);
    this.whole();
  }

  whole() { this.zoom = 1; this.centre = [this.scan.columns / 2, this.scan.rows / 2]; this.draw(); }

  /** Show a box (first row, last row, first column, last column) with a margin around it. */
  fit(box) {
    if (!box) return;
    const [r0, r1, c0, c1] = box;
    const share = Math.max((r1 - r0) / this.scan.rows, (c1 - c0) / this.scan.columns);
    this.zoom = Math.min(16, Math.max(1, 0.75 / share));
    this.centre = [(c0 + c1 + 1) / 2, (r0 + r1 + 1) / 2];
    this.draw();
  }

  /** Pixels of the canvas per pixel of the scan, across and down. */
  get scale() {
    const { scan, canvas } = this;
    const ratio = scan.spacing[1] / scan.spacing[2];
    const fit = Math.min(canvas.width / scan.columns, canvas.height / (scan.rows * ratio));
    return [fit * this.zoom, fit * this.zoom * ratio];
  }

  draw() {
    if (!this.scan || this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.render(); });
  }

  render() {
    const began = performance.now();
    const { canvas, context, scan } = this;
    const dense = Math.min(2, window.devicePixelRatio || 1);
    const [w, h] = [Math.round(canvas.clientWidth * dense), Math.round(canvas.clientHeight * dense)];
    if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
    scan.paint(this.image, this.slice, this.level, this.width, this.layers);
    this.plane.getContext("2d").putImageData(this.image, 0, 0);
    const [sx, sy] = this.scale;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, w, h);
    context.setTransform(sx, 0, 0, sy, w / 2 - this.centre[0] * sx, h / 2 - this.centre[1] * sy);
    context.imageSmoothingEnabled = this.zoom < 4;
    context.drawImage(this.plane, 0, 0);
    if (this.layers.contour) this.outline(scan.contour(this.slice), LINE, []);
    if (this.compared) this.outline(this.compared.contour(this.slice), "#ffc46b", [2, 2]);
    this.drawMarks(sx);
    this.timing = { draw: performance.now() - began };
    canvas.dataset.drawn = String(this.slice);
  }

  outline(list, colour, dash) {
    const { context } = this;
    context.beginPath();
    for (let i = 0; i < list.length; i += 4) {
      context.moveTo(list[i], list[i + 1]);
      context.lineTo(list[i + 2], list[i + 3]);
    }
    context.lineWidth = 1.5 / this.scale[0];
    context.setLineDash(dash.map((n) => (n * 2) / this.scale[0]));
    context.strokeStyle = colour;
    context.stroke();
    context.setLineDash([]);
  }

  drawMarks(sx) {
    const { context, selected, hover } = this;
    context.lineWidth = 2 / sx;
    if (selected && selected.slice === this.slice) {
      context.strokeStyle = "#fff";
      context.beginPath();
      const radius = Math.sqrt(selected.area_mm2) / this.scan.spacing[2] + 6;
      context.arc(selected.column + 0.5, selected.row + 0.5, radius, 0, 7);
      context.stroke();
    }
    if (this.stroke) {
      context.strokeStyle = "rgba(255,255,255,.35)";
      context.lineWidth = 2 * this.radiusPx;
      context.lineCap = context.lineJoin = "round";
      context.beginPath();
      this.stroke.forEach(([r, c], n) => context[n ? "lineTo" : "moveTo"](c + 0.5, r + 0.5));
      if (this.stroke.length === 1) context.lineTo(this.stroke[0][1] + 0.51, this.stroke[0][0] + 0.5);
      context.stroke();
    } else if (hover && this.brushes) {
      context.strokeStyle = "#fff";
      context.beginPath();
      context.arc(hover[1] + 0.5, hover[0] + 0.5, this.radiusPx, 0, 7);
      context.stroke();
    }
  }

  get brushes() { return ["brush", "erase", "heart-add", "heart-remove"].includes(this.tool); }

  get radiusPx() { return Math.max(0.6, this.brush / this.scan.spacing[2]); }

  /** Row and column under the pointer, in fractions of pixels from the centre of the first. */
  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const dense = this.canvas.width / box.width;
    const [sx, sy] = this.scale;
    const x = (event.clientX - box.left) * dense - this.canvas.width / 2;
    const y = (event.clientY - box.top) * dense - this.canvas.height / 2;
    return [y / sy + this.centre[1] - 0.5, x / sx + this.centre[0] - 0.5];
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (event.ctrlKey || event.metaKey) this.zoomBy(event.deltaY < 0 ? 1.2 : 1 / 1.2);
      else this.on.scroll?.(event.deltaY < 0 ? 1 : -1);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.up(event));
    canvas.addEventListener("pointercancel", () => { this.stroke = null; this.drag = null; });
    canvas.addEventListener("pointerleave", () => { this.hover = null; this.draw(); });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  down(event) {
    if (!this.scan) return;
    this.canvas.setPointerCapture(event.pointerId);
    const at = this.place(event);
    if (event.button === 2) this.drag = { kind: "window", event, level: this.level, width: this.width };
    else if (event.button === 1 || event.shiftKey || this.tool === "pan") this.drag = { kind: "pan", at };
    else if (this.brushes) { this.stroke = [at]; this.draw(); } else this.drag = { kind: "click", at, event };
  }

  move(event) {
    if (!this.scan) return;
    const at = this.place(event);
    this.hover = at;
    if (this.stroke) {
      const last = this.stroke[this.stroke.length - 1];
      if (Math.hypot(at[0] - last[0], at[1] - last[1]) > 0.4) this.stroke.push(at);
    } else if (this.drag?.kind === "pan") {
      this.centre[0] -= at[1] - this.drag.at[1];
      this.centre[1] -= at[0] - this.drag.at[0];
    } else if (this.drag?.kind === "window") {
      this.level = Math.round(this.drag.level + (this.drag.event.clientY - event.clientY) * 2);
      this.width = Math.max(1, Math.round(this.drag.width + (event.clientX - this.drag.event.clientX) * 3));
      this.on.window?.();
    }
    this.draw();
  }

  up(event) {
    const { drag, stroke } = this;
    this.drag = null; this.stroke = null;
    if (stroke) this.on.stroke?.(stroke);
    else if (drag?.kind === "click") {
      const moved = Math.hypot(event.clientX - drag.event.clientX, event.clientY - drag.event.clientY);
      const [row, column] = drag.at.map(Math.round);
      const inside = row >= 0 && column >= 0 && row < this.scan.rows && column < this.scan.columns;
      if (inside && moved < 6) this.on.click?.(row, column);
    }
    this.draw();
  }

  zoomBy(factor) { this.zoom = Math.min(16, Math.max(1, this.zoom * factor)); this.draw(); }

  /** Bring a lesion to the middle where the image is enlarged. */
  look(lesion) {
    this.selected = lesion;
    if (lesion && this.zoom > 1) this.centre = [lesion.column + 0.5, lesion.row + 0.5];
    this.draw();
  }
}
