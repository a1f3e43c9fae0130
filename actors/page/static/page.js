// What the browser does by itself: ages that tick, the theme, times of day, and saying so when nothing is heard any more.
// The server says once a second how old each answer is (`hean.heard`); between, and when it falls silent, the ages go on.
globalThis.hean = (() => {
  const SILENT_S = 4;
  const root = document.documentElement;
  const kept = (name, otherwise) => {
    try { return localStorage.getItem("hean-" + name) || otherwise; } catch { return otherwise; }
  };
  const keep = (name, value) => {
    try { localStorage.setItem("hean-" + name, value); } catch { /* a browser that keeps nothing */ }
  };

  const ages = new Map(); // name of an answer → [its age when told, when it was told]
  let heardAt = null; // when the page's server last spoke, on this browser's own clock
  let skew = 0; // the server's clock less ours, seconds
  let link = { up: true, words: "", since: 0 };
  let utc = kept("clock", "utc") === "utc";

  const now = () => performance.now() / 1000;
  const words = (s) => {
    if (s < 0) s = 0;
    if (s < 90) return Math.round(s) + " s";
    if (s < 5400) return Math.round(s / 60) + " min";
    if (s < 129600) return Math.round(s / 3600) + " h";
    return Math.round(s / 86400) + " d";
  };
  const say = (element, text) => {
    if (element.textContent !== text) element.textContent = text;
  };

  function ageOf(name) {
    const told = ages.get(name);
    return told ? told[0] + now() - told[1] : null;
  }

  function heard(told) {
    const t = now();
    heardAt = t;
    skew = told.now - Date.now() / 1000;
    link = told.link;
    for (const [name, age] of Object.entries(told.ages)) {
      if (age === null) ages.delete(name);
      else ages.set(name, [age, t]);
    }
    tick();
  }

  // --- ages -------------------------------------------------------------------------------------

  function tick() {
    const clock = Date.now() / 1000 + skew;
    for (const e of document.querySelectorAll("[data-source]")) {
      const age = ageOf(e.dataset.source);
      const limit = Number(e.dataset.limit || 10);
      const stale = age !== null && age > limit;
      e.classList.toggle("stale", stale);
      const tag = e.querySelector(":scope > .panel-head .asof, :scope > .asof");
      if (!tag) continue;
      tag.classList.toggle("late", stale);
      if (age === null) say(tag, tag.dataset.never || "");
      else if (stale) say(tag, words(age) + " old: not live");
      else say(tag, age < 2 ? "now" : words(age) + " ago");
    }
    for (const e of document.querySelectorAll("[data-since]")) {
      const since = Number(e.dataset.since);
      if (!since) { say(e, "–"); continue; }
      const age = clock - since;
      say(e, words(age));
      if (e.dataset.limit) e.classList.toggle("late", age > Number(e.dataset.limit));
    }
    for (const e of document.querySelectorAll("time[data-time]")) say(e, timeOfDay(Number(e.dataset.time), clock));
    banner();
  }

  function timeOfDay(seconds, clock) {
    if (!seconds) return "–";
    const d = new Date(seconds * 1000);
    const two = (n) => String(n).padStart(2, "0");
    const [y, mo, da, h, mi, s] = utc
      ? [d.getUTCFullYear(), d.getUTCMonth(), d.getUTCDate(), d.getUTCHours(), d.getUTCMinutes(), d.getUTCSeconds()]
      : [d.getFullYear(), d.getMonth(), d.getDate(), d.getHours(), d.getMinutes(), d.getSeconds()];
    const time = `${two(h)}:${two(mi)}:${two(s)}`;
    return Math.abs((clock ?? seconds) - seconds) < 43200 ? time : `${y}-${two(mo + 1)}-${two(da)} ${time}`;
  }

  // --- a lost connection ------------------------------------------------------------------------

  function banner() {
    const bar = document.querySelector(".lost");
    if (!bar || heardAt === null) return;
    const silence = now() - heardAt;
    const words_ =
      silence > SILENT_S
        ? `This page lost its own server ${words(silence)} ago. What you see is as it was then. Trying again by itself.`
        : link.up ? "" : `${link.words}`;
    root.classList.toggle("is-lost", words_ !== "");
    say(bar.querySelector(".lost-words"), words_);
  }

  // --- theme and clock --------------------------------------------------------------------------

  function theme(name) {
    root.dataset.theme = name;
    keep("theme", name);
    globalThis.Quasar?.Dark?.set(name === "dark");
    document.querySelector("meta[name=theme-color]")?.setAttribute("content", name === "dark" ? "#0c0f14" : "#f4f5f7");
    globalThis.dispatchEvent(new CustomEvent("hean-theme", { detail: name }));
  }
  const flip = () => theme(root.dataset.theme === "dark" ? "light" : "dark");

  function clock(name) {
    utc = (name ?? (utc ? "local" : "utc")) === "utc";
    keep("clock", utc ? "utc" : "local");
    for (const e of document.querySelectorAll(".clock-name")) say(e, utc ? "UTC" : "local");
    globalThis.dispatchEvent(new CustomEvent("hean-clock"));
    tick();
  }

  const colour = (name) => getComputedStyle(root).getPropertyValue("--" + name).trim();

  root.dataset.theme = kept("theme", "dark");
  addEventListener("load", () => { theme(root.dataset.theme); clock(utc ? "utc" : "local"); });
  addEventListener("click", (e) => {
    const menu = document.querySelector(".nav.open");
    if (menu && !e.target.closest(".nav-toggle")) menu.classList.remove("open");
  });
  setInterval(tick, 1000);

  return {
    heard, tick, theme, flip, clock, colour, words, ageOf,
    isUtc: () => utc,
    timeOfDay,
    menu: () => document.querySelector(".nav")?.classList.toggle("open"),
    at: (path) => {
      for (const a of document.querySelectorAll(".nav a")) {
        const here = a.getAttribute("href") === path;
        a.classList.toggle("here", here);
        if (here) { a.setAttribute("aria-current", "page"); a.scrollIntoView({ block: "nearest", inline: "nearest" }); }
        else a.removeAttribute("aria-current");
      }
    },
  };
})();
