// Requests to the application. Every answer is JSON but for pixels.

export class Refused extends Error {
  constructor(status, answer) {
    super([answer.error, answer.hint].filter(Boolean).join(" "));
    this.status = status;
  }
}

async function ask(method, path, value) {
  const options = { method, headers: {} };
  if (value !== undefined) {
    options.body = JSON.stringify(value);
    options.headers["content-type"] = "application/json";
  }
  const answer = await fetch(`/api/${path}`, options);
  if (answer.ok) return answer;
  let said = {};
  try { said = await answer.json(); } catch { said = { error: `Refused (${answer.status}).` }; }
  throw new Refused(answer.status, said);
}

export const get = async (path) => (await ask("GET", path)).json();
export const post = async (path, value = {}) => (await ask("POST", path, value)).json();
export const remove = async (path) => (await ask("DELETE", path)).json();

/** Slices begin to end - 1 of a study as Int16Array. */
export async function pixels(study, begin, end) {
  const answer = await ask("GET", `studies/${study}/pixels?begin=${begin}&end=${end}`);
  return new Int16Array(await answer.arrayBuffer());
}

/** 32 random hexadecimal digits: a request that is repeated signs once. */
export const newId = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0"))
    .join("");
