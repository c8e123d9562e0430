/* Search from disk. Browsers refuse workers at file:// addresses; here the script of the worker runs
   in a hidden frame instead, with the part of the Worker interface that the search uses. The theme
   would load such a substitute from a server. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inside = this.frame.contentWindow;
      // As with a worker, messages are copies and arrive later.
      inside.postMessage = (message) => {
        const data = structuredClone(message);
        setTimeout(() => this.deliver(new MessageEvent("message", { data })));
      };
      const script = inside.document.createElement("script");
      script.src = new URL(url, document.baseURI).href;
      this.ready = new Promise((resolve) => {
        script.onload = () => resolve(inside);
      });
      script.onerror = () => this.deliver(new ErrorEvent("error"));
      inside.document.body.append(script);
    }

    deliver(event) {
      this["on" + event.type]?.(event);
      this.dispatchEvent(event);
    }

    async postMessage(message) {
      const inside = await this.ready;
      const data = inside.structuredClone(message);
      inside.dispatchEvent(new inside.MessageEvent("message", { data }));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
