// The keyboard. All of it happens in the browser: no key that is pressed is told to anybody.
(() => {
  const VIEWS = [
    ["/", "d", "Dashboard"],
    ["/strategies", "s", "Strategies"],
    ["/risk", "r", "Risk"],
    ["/orders", "o", "Orders"],
    ["/positions", "p", "Positions"],
    ["/carry", "c", "Carry"],
    ["/processes", "j", "Processes (jobs)"],
    ["/actors", "a", "Actors"],
    ["/logs", "l", "Logs"],
  ];
  const PATIENCE_MS = 1200; // between g and the letter

  const go = (path) => document.querySelector(`.nav a[href="${path}"]`)?.click();
  const find = () => {
    const field = document.querySelector(".page .filter input") || document.querySelector(".page input:not([type=checkbox])");
    field?.focus();
    field?.select?.();
  };
  const kill = () => document.querySelector(".controls .kill")?.click(); // asks; it kills only once the word is typed
  const ACTIONS = [
    ["?", "What the keys do", () => help()],
    ["/", "To the filter", find],
    ["k", "The kill switch: asks first", kill],
    ["t", "Dark or light", () => globalThis.hean?.flip()],
    ["u", "Times in UTC or local", () => globalThis.hean?.clock()],
  ];

  let waiting = 0; // until when a letter after g names a view

  const isTyping = (e) =>
    e.target.closest?.("input, textarea, select, [contenteditable=true]") || e.ctrlKey || e.metaKey || e.altKey;
  const isAsking = () => document.querySelector(".q-dialog") || document.querySelector("dialog[open]");

  addEventListener("keydown", (e) => {
    if (isTyping(e) || isAsking() || e.defaultPrevented) return;
    const took = act(e.key);
    if (took) e.preventDefault();
  });

  function act(key) {
    if (performance.now() < waiting) {
      waiting = 0;
      const view = VIEWS.find((v) => v[1] === key);
      if (view) go(view[0]);
      return Boolean(view);
    }
    if (key === "g") {
      waiting = performance.now() + PATIENCE_MS;
      return true;
    }
    const number = Number(key);
    if (number >= 1 && number <= VIEWS.length) {
      go(VIEWS[number - 1][0]);
      return true;
    }
    const action = ACTIONS.find((a) => a[0] === key);
    action?.[2]();
    return Boolean(action);
  }

  // --- what the keys do -------------------------------------------------------------------------

  const made = (name, text = "", parent = null) => {
    const element = document.createElement(name);
    element.textContent = text;
    parent?.append(element);
    return element;
  };

  function help() {
    let overlay = document.getElementById("keys");
    if (!overlay) {
      overlay = made("dialog", "", document.body);
      overlay.id = "keys";
      overlay.setAttribute("aria-labelledby", "keys-title");
      made("h2", "Keys", overlay).id = "keys-title";
      const list = made("dl", "", overlay);
      const row = (keys, words) => {
        const term = made("dt", "", list);
        for (const key of keys) made("kbd", key, term);
        made("dd", words, list);
      };
      VIEWS.forEach(([, letter, title], i) => row([String(i + 1), "g", letter], title));
      for (const [key, words] of ACTIONS) row([key], words);
      row(["Esc"], "Close what is open");
      const close = made("button", "Close", overlay);
      close.addEventListener("click", () => overlay.close());
      overlay.addEventListener("click", (e) => e.target === overlay && overlay.close());
    }
    overlay.showModal();
  }
})();
