// The work list: filters, pages, keys.

import { get, post } from "./api.js";
import { element, fill, say } from "./page.js";

const LIMIT = 50;
const STATES = { unread: "unread", read: "read once", differs: "readers differ", settled: "settled" };
const ORDERS = { doubt: "most doubtful first", score: "highest score first", newest: "newest first", study: "study key" };
export const words = (code) => String(code).replaceAll("_", " ");

export class List {
  constructor(session, open) {
    this.session = session;
    this.open = open;
    this.offset = 0;
    this.rows = [];
    this.current = 0;
    this.form = document.querySelector("#filters");
    this.build();
    this.form.addEventListener("input", () => { this.offset = 0; this.load(); });
    this.form.addEventListener("submit", (event) => event.preventDefault());
    document.querySelector("#previous").onclick = () => this.turn(-1);
    document.querySelector("#next").onclick = () => this.turn(1);
    document.querySelector("#assign").addEventListener("submit", (event) => this.assign(event));
  }

  build() {
    const { facets } = this.session;
    const choice = (name, label, options) => element("div", {}, [
      element("label", { for: `f-${name}`, text: label }),
      element("select", { id: `f-${name}`, name }, [["", "all"], ...options].map(
        ([value, text]) => element("option", { value, text }))),
    ]);
    const same = (list) => list.map((value) => [value, words(value)]);
    fill(this.form, [
      element("div", {}, [element("label", { for: "f-search", text: "Study key" }),
        element("input", { id: "f-search", name: "search", size: "10", autocomplete: "off" })]),
      choice("category", "Category", facets.categories.map((c) => [c, c])),
      choice("needs_review", "Needs review", [["true", "yes"], ["false", "no"]]),
      choice("reason", "Reason", same(facets.reasons)),
      choice("flag", "Quality flag", same(facets.flags)),
      choice("disagrees", "Model differs from", [["any", "expert or visual"], ["expert", "expert"], ["visual", "visual grade"]]),
      choice("scanner", "Scanner", facets.scanners.map((s) => [s, s])),
      choice("state", "State", [...Object.entries(STATES), ["mine", "read by me"], ["not_mine", "not read by me"]]),
      choice("assigned", "Assigned", [["true", "to me"]]),
      element("div", {}, [element("label", { for: "f-order", text: "Order" }),
        element("select", { id: "f-order", name: "order" }, this.session.orders.map(
          (value) => element("option", { value, text: ORDERS[value] })))]),
    ]);
  }

  async load() {
    const query = new URLSearchParams(new FormData(this.form));
    for (const [name, value] of [...query]) if (!value) query.delete(name);
    query.set("offset", this.offset);
    query.set("limit", LIMIT);
    const asked = (this.asked = {});
    const page = await get(`studies?${query}`);
    if (asked !== this.asked) return;
    this.rows = page.rows;
    this.total = page.total;
    this.current = Math.min(this.current, Math.max(0, page.rows.length - 1));
    this.show(page.progress);
  }

  show(progress) {
    document.querySelector("#found").textContent = `${this.total.toLocaleString("en")} studies`;
    const last = Math.min(this.offset + LIMIT, this.total);
    document.querySelector("#page").textContent = this.total ? `${this.offset + 1} to ${last}` : "none";
    document.querySelector("#previous").disabled = this.offset === 0;
    document.querySelector("#next").disabled = last >= this.total;
    const assigned = progress.assigned ? `; assigned to you: ${progress.assigned_read} of ${progress.assigned}` : "";
    document.querySelector("#progress").textContent =
      `${progress.read} of ${progress.studies.toLocaleString("en")} studies read, ${progress.mine} by you, `
      + `${progress.differs} to adjudicate${assigned}`;
    fill(document.querySelector("#studies tbody"), this.rows.map((row, n) => this.line(row, n)));
    this.mark();
  }

  line(row, n) {
    const why = [...(row.review_reasons || "").split(";"), ...row.quality_flags.split(";")].filter(Boolean).map(words);
    const expert = [row.expert_cac_category, row.visual_grade].filter(Boolean).join(", ");
    const cells = [
      element("td", {}, [element("button", { type: "button", text: row.study_key.slice(0, 10), title: row.study_key, "data-study": row.study_key })]),
      element("td", { text: STATES[row.state] + (row.mine ? ", by you" : "") + (row.assigned ? ", assigned" : "") }),
      element("td", { class: "number", text: row.agatston.toFixed(1) }),
      element("td", { text: row.cac_category }),
      element("td", { class: "number", text: row.agatston_low === null ? "" : `${row.agatston_low.toFixed(0)} to ${row.agatston_high.toFixed(0)}` }),
      element("td", { class: "number", text: row.doubt.toFixed(2) }),
      element("td", { class: "why", text: why.join(", ") }),
      element("td", { text: expert }),
      element("td", { text: row.scanner ?? "" }),
    ];
    const line = element("tr", {}, cells);
    line.addEventListener("click", () => { this.current = n; this.open(row.study_key); });
    return line;
  }

  mark() {
    document.querySelectorAll("#studies tbody tr").forEach((line, n) => {
      if (n === this.current) line.setAttribute("aria-current", "true");
      else line.removeAttribute("aria-current");
    });
  }

  turn(step) { this.offset = Math.max(0, this.offset + step * LIMIT); this.current = 0; return this.load(); }

  /** The study after one, over pages; null after the last. */
  async following(study) {
    const at = this.rows.findIndex((row) => row.study_key === study);
    if (at + 1 < this.rows.length) { this.current = at + 1; return this.rows[at + 1].study_key; }
    if (this.offset + LIMIT >= this.total) return null;
    await this.turn(1);
    return this.rows[0]?.study_key ?? null;
  }

  upcoming(study) {
    const at = this.rows.findIndex((row) => row.study_key === study);
    return this.rows[at + 1]?.study_key;
  }

  async assign(event) {
    event.preventDefault();
    const field = document.querySelector("#assign-to");
    const studies = this.rows.map((row) => row.study_key);
    const { assigned } = await post("assignments", { studies, reader: field.value });
    say(`${assigned} studies assigned to ${field.value.trim()}.`);
    await this.load();
  }

  key(event) {
    const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
    if (step) {
      this.current = Math.max(0, Math.min(this.rows.length - 1, this.current + step));
      this.mark();
      document.querySelectorAll("#studies tbody tr")[this.current]?.scrollIntoView({ block: "nearest" });
    } else if (event.key === "Enter" && this.rows[this.current]) this.open(this.rows[this.current].study_key);
    else if (event.key === "/") document.querySelector("#f-search").focus();
    else return false;
    return true;
  }
}
