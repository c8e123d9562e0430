// Small helpers of the page.

export function element(name, attributes = {}, children = []) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") made.textContent = value;
    else if (value !== undefined && value !== null) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

export const fill = (parent, children) => parent.replaceChildren(...children);

let timer;
/** Show a message; it goes away by itself. */
export function say(text) {
  const place = document.querySelector("#message");
  clearTimeout(timer);
  place.textContent = text;
  place.hidden = !text;
  if (text) timer = setTimeout(() => { place.hidden = true; }, 8000);
}
