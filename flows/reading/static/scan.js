// The open scan: slices in HU, marks by pixel, and windows.

import { pixels } from "./api.js";

export const PRESETS = [
  ["Mediastinum", 40, 400], ["Calcium", 130, 700], ["Lung", -500, 1500], ["Bone", 400, 1800],
];
/** Colours of the sites by their number, as in review.css. */
export const COLOURS = [
  null, [255, 77, 77], [255, 90, 209], [255, 77, 77], [255, 160, 51], [255, 225, 77],
  [53, 208, 127], [53, 208, 127], [53, 208, 127], [53, 208, 127], [53, 208, 127],
  [77, 178, 255], [77, 178, 255], [77, 178, 255], [183, 146, 255],
];
const HEART = 128;

export class Scan {
  constructor(key, shape, spacing, chunk) {
    [this.count, this.rows, this.columns] = shape;
    this.key = key;
    this.spacing = spacing;
    this.chunk = chunk;
    this.slices = new Array(this.count).fill(null);
    this.marks = new Array(this.count).fill(null);
    this.wanted = new Map();
  }

  /** Fetch one slice at once; the others follow in chunks. */
  async load(first, arrived) {
    await this.fetch(first, first + 1, arrived);
    const starts = [];
    for (let begin = 0; begin < this.count; begin += this.chunk) starts.push(begin);
    starts.sort((a, b) => Math.abs(a + this.chunk / 2 - first) - Math.abs(b + this.chunk / 2 - first));
    const next = async () => {
      while (starts.length) {
        const begin = starts.shift();
        await this.fetch(begin, Math.min(begin + this.chunk, this.count), arrived);
      }
    };
    await Promise.all([next(), next()]);
  }

  async fetch(begin, end, arrived) {
    const data = await pixels(this.key, begin, end);
    const size = this.rows * this.columns;
    for (let k = begin; k < end; k += 1) {
      this.slices[k] ??= data.subarray((k - begin) * size, (k - begin + 1) * size);
    }
    arrived(begin, end);
  }

  get complete() { return this.slices.every(Boolean); }

  /** Take in runs of marks by slice; slices that are not named are cleared where `all`. */
  mark(runs, all) {
    if (all) this.marks.fill(null);
    for (const [k, list] of Object.entries(runs)) this.marks[k] = unpacked(list, this.rows * this.columns);
  }

  siteAt(k, row, column) {
    const plane = this.marks[k];
    return plane ? plane[row * this.columns + column] & 127 : 0;
  }

  /** Paint a slice with its calcium into an image, window given by level and width. */
  paint(image, k, level, width, layers) {
    const out = new Uint32Array(image.data.buffer);
    const hu = this.slices[k];
    const marks = this.marks[k];
    if (!hu) { out.fill(0xff000000); return; }
    const low = level - width / 2;
    const scale = 255 / width;
    for (let i = 0; i < hu.length; i += 1) {
      let v = (hu[i] - low) * scale;
      v = v < 0 ? 0 : v > 255 ? 255 : v | 0;
      out[i] = 0xff000000 | (v << 16) | (v << 8) | v;
    }
    if (!marks) return;
    for (let i = 0; i < marks.length; i += 1) {
      const site = marks[i] & 127;
      if (!site || !(site <= 5 ? layers.coronary : layers.other)) continue;
      const [r, g, b] = COLOURS[site];
      const grey = out[i] & 255;
      const mix = (c) => (grey * 0.35 + c * 0.65) | 0;
      out[i] = 0xff000000 | (mix(b) << 16) | (mix(g) << 8) | mix(r);
    }
  }

  /** Edges of the heart in a slice: x1, y1, x2, y2, in pixel corners. */
  contour(k) { return edges(this.marks[k], this.rows, this.columns); }

  /** First row, last row, first column, last column of the heart; null without a heart. */
  get heartBox() {
    let [r0, r1, c0, c1] = [this.rows, -1, this.columns, -1];
    for (const plane of this.marks) {
      if (!plane) continue;
      for (let i = 0; i < plane.length; i += 1) {
        if (plane[i] < HEART) continue;
        const c = i % this.columns; const r = (i - c) / this.columns;
        if (r < r0) r0 = r;
        if (r > r1) r1 = r;
        if (c < c0) c0 = c;
        if (c > c1) c1 = c;
      }
    }
    return r1 < 0 ? null : [r0, r1, c0, c1];
  }

  /** Slice with the most marked coronary pixels, else the middle of the heart. */
  get busiest() {
    let best = -1; let most = 0; const heart = [];
    this.marks.forEach((plane, k) => {
      if (!plane) return;
      let n = 0; let any = false;
      for (const mark of plane) { const site = mark & 127; if (site && site <= 5) n += 1; any ||= mark > 127; }
      if (any) heart.push(k);
      if (n > most) { most = n; best = k; }
    });
    return best >= 0 ? best : heart[heart.length >> 1] ?? this.count >> 1;
  }
}

function unpacked(runs, size) {
  const plane = new Uint8Array(size);
  for (let i = 0; i < runs.length; i += 3) plane.fill(runs[i + 2], runs[i], runs[i] + runs[i + 1]);
  return plane;
}

export function edges(plane, rows, columns) {
  const found = [];
  if (!plane) return found;
  for (let i = 0; i < plane.length; i += 1) {
    if (plane[i] < HEART) continue;
    const c = i % columns; const r = (i - c) / columns;
    if (r === 0 || plane[i - columns] < HEART) found.push(c, r, c + 1, r);
    if (r === rows - 1 || plane[i + columns] < HEART) found.push(c, r + 1, c + 1, r + 1);
    if (c === 0 || plane[i - 1] < HEART) found.push(c, r, c, r + 1);
    if (c === columns - 1 || plane[i + 1] < HEART) found.push(c + 1, r, c + 1, r + 1);
  }
  return found;
}

/** Maximum projection of the heart from the front: a line per slice, the head on top. */
export function projection(scan) {
  const box = scan.heartBox;
  if (!box) return null;
  const [r0, r1, c0, c1] = box;
  const width = c1 - c0 + 1;
  const values = new Int16Array(scan.count * width).fill(-1024);
  const sites = new Uint8Array(scan.count * width);
  for (let k = 0; k < scan.count; k += 1) {
    const hu = scan.slices[k]; const marks = scan.marks[k];
    if (!hu) return null;
    if (!marks) continue;
    const line = (scan.count - 1 - k) * width;
    for (let r = r0; r <= r1; r += 1) {
      for (let c = c0; c <= c1; c += 1) {
        const i = r * scan.columns + c; const at = line + c - c0;
        if (marks[i] < HEART) continue;
        if (hu[i] > values[at]) values[at] = hu[i];
        const site = marks[i] & 127;
        if (site && (!sites[at] || site < sites[at])) sites[at] = site;
      }
    }
  }
  return { values, sites, width, height: scan.count };
}
