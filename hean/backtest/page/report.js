"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (selector, root = document) => root.querySelector(selector);
  const GUTTER = 66, AXIS = 18;
  const STEPS = [1, 2, 5, 10, 15, 30, 60, 180, 300, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800, 1209600, 2592000];

  // --- numbers and times -------------------------------------------------------------------------
  const figure = (x, decimals) =>
    x.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals }).replace("-", "\u2212");
  const signed = (x, decimals) => (x > 0 ? "+" : "") + figure(x, decimals);
  const two = (n) => String(n).padStart(2, "0");
  const when = (t) => {
    const d = new Date(t * 1000);
    const seconds = t % 60 ? ":" + two(d.getUTCSeconds()) : "";
    return `${d.getUTCFullYear()}-${two(d.getUTCMonth() + 1)}-${two(d.getUTCDate())} ${two(d.getUTCHours())}:${two(d.getUTCMinutes())}${seconds}`;
  };
  const length = (s) =>
    s >= 86400 ? `${+(s / 86400).toFixed(1)} d` : s >= 3600 ? `${+(s / 3600).toFixed(1)} h` : s >= 60 ? `${+(s / 60).toFixed(1)} min` : `${+s.toFixed(1)} s`;
  const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

  // --- what came with the page -------------------------------------------------------------------
  const reader = (text) => { // varints, seven bits to a byte, lowest first
    const raw = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    let place = 0;
    const next = () => {
      let value = 0, scale = 1, byte;
      do { byte = raw[place++]; value += (byte & 127) * scale; scale *= 128; } while (byte & 128);
      return value;
    };
    return { next, zigzag: () => { const u = next(); return u % 2 ? -(u + 1) / 2 : u / 2; } };
  };
  const curve = (() => {
    const { next, zigzag } = reader(data.curve.bytes), n = data.curve.count, unit = 10 ** data.curve.decimals;
    const t = new Float64Array(n), e = new Float64Array(n), d = new Float64Array(n);
    let at = data.curve.first, equity = 0, peak = -Infinity;
    for (let i = 0; i < n; i++) {
      t[i] = at += next(); e[i] = (equity += zigzag()) / unit;
      peak = Math.max(peak, e[i]); d[i] = 1 - e[i] / peak;
    }
    return { t, e, d };
  })();
  const unpack = (packed) => {
    const { next, zigzag } = reader(packed.bytes);
    const n = packed.count, unit = 10 ** packed.decimals;
    const of = { t: new Float64Array(n), o: new Float64Array(n), h: new Float64Array(n), l: new Float64Array(n), c: new Float64Array(n), step: packed.step, decimals: packed.decimals };
    let run = 0, before = 0;
    for (let i = 0; i < n; i++) {
      if (run < packed.runs.length && packed.runs[run][0] === i) of.t[i] = packed.runs[run++][1];
      else of.t[i] = of.t[i - 1] + packed.step;
      const open = before + zigzag(), close = open + zigzag();
      of.o[i] = open / unit; of.c[i] = close / unit;
      of.h[i] = (Math.max(open, close) + next()) / unit;
      of.l[i] = (Math.min(open, close) - next()) / unit;
      before = close;
    }
    return of;
  };
  for (const one of data.instruments) one.candles = one.candles ? unpack(one.candles) : null;
  const trips = data.trips.map(([number, strategy, legs, side, quantity, opened, closed, entry, exit, pnl, fees, funding, by]) =>
    ({ number, strategy, legs, side, quantity, opened, closed, entry, exit, pnl, fees, funding, by }));

  const after = (times, t) => { // first place later than t
    let low = 0, high = times.length;
    while (low < high) { const middle = (low + high) >> 1; if (times[middle] <= t) low = middle + 1; else high = middle; }
    return low;
  };

  // --- the view all charts share -----------------------------------------------------------------
  const whole = [data.start, Math.max(data.end, data.start + 1)];
  let view = [...whole];
  let hover = null; // a time, or null
  let selecting = null; // two times
  let shown = 0; // the instrument on the price chart
  let held = null; // buy and hold drawn, or not
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  let palette = {};
  const repaint = () => {
    for (const name of ["ink", "soft", "faint", "line", "grid", "gain", "loss", "gain-wash", "loss-wash", "candle", "curve", "other", "paper", "mark"]) palette[name] = color(name);
    draw();
  };

  class Panel {
    constructor(canvas, height, axis) {
      this.canvas = canvas; this.height = height; this.axis = axis; this.context = canvas.getContext("2d");
      this.name = document.createElement("div"); this.name.className = "panel-name";
      canvas.insertAdjacentElement("afterend", this.name);
    }
    begin(low, high) {
      const width = this.canvas.clientWidth, ratio = window.devicePixelRatio || 1, height = this.height;
      this.width = width;
      if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
        this.canvas.width = Math.round(width * ratio); this.canvas.height = Math.round(height * ratio);
        this.canvas.style.height = height + "px";
      }
      const c = this.context;
      c.setTransform(ratio, 0, 0, ratio, 0, 0); c.clearRect(0, 0, width, height);
      c.font = `11px ${getComputedStyle(document.body).fontFamily}`;
      this.right = width - GUTTER; this.bottom = height - (this.axis ? AXIS : 4);
      const top = 16;
      if (!(high > low)) { const pad = Math.abs(low) * 1e-3 || 1; low -= pad; high += pad; }
      this.x = (t) => ((t - view[0]) / (view[1] - view[0])) * this.right;
      this.time = (x) => view[0] + (x / this.right) * (view[1] - view[0]);
      this.y = (v) => this.bottom - ((v - low) / (high - low)) * (this.bottom - top);
      this.low = low; this.high = high;
      return c;
    }
    grid(label) {
      const c = this.context, wanted = Math.max(2, Math.floor(this.height / 36));
      const rough = (this.high - this.low) / wanted, power = 10 ** Math.floor(Math.log10(rough));
      const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough) || 10 * power;
      const decimals = Math.max(0, Math.min(8, -Math.floor(Math.log10(step) + 1e-9) + (Math.abs(step / power - 2.5) < 1e-9 && step < 10 ? 1 : 0)));
      c.lineWidth = 1; c.textBaseline = "middle"; c.textAlign = "left";
      for (let v = Math.ceil(this.low / step) * step; v <= this.high + step * 1e-9; v += step) {
        const y = Math.round(this.y(v)) + 0.5;
        c.strokeStyle = palette.grid; c.beginPath(); c.moveTo(0, y); c.lineTo(this.right, y); c.stroke();
        c.fillStyle = palette.faint; c.fillText(label(Math.abs(v) < step * 1e-9 ? 0 : v, decimals), this.right + 7, y);
      }
      this.times();
    }
    times() {
      const c = this.context, span = view[1] - view[0], most = Math.max(2, Math.floor(this.right / (this.right < 480 ? 62 : 96)));
      const step = [...STEPS, 5184000, 7776000, 15552000, 31536000].find((s) => span / s <= most) || 31536000;
      const stamps = [];
      if (step >= 2592000) {
        const d = new Date(view[0] * 1000), months = Math.round(step / 2592000);
        let month = d.getUTCFullYear() * 12 + d.getUTCMonth();
        month = Math.ceil(month / months) * months;
        for (; ; month += months) { const t = Date.UTC(Math.floor(month / 12), month % 12) / 1000; if (t > view[1]) break; if (t >= view[0]) stamps.push(t); }
      } else {
        const offset = step % 604800 ? 0 : 345600; // weeks begin on Monday
        for (let t = Math.ceil((view[0] - offset) / step) * step + offset; t <= view[1]; t += step) stamps.push(t);
      }
      c.textBaseline = "top"; c.textAlign = "center";
      for (const t of stamps) {
        const x = Math.round(this.x(t)) + 0.5, d = new Date(t * 1000);
        c.strokeStyle = palette.grid; c.beginPath(); c.moveTo(x, 0); c.lineTo(x, this.bottom); c.stroke();
        if (!this.axis) continue;
        const midnight = t % 86400 === 0;
        const text = step >= 2592000 ? (d.getUTCMonth() ? MONTHS[d.getUTCMonth()] : String(d.getUTCFullYear()))
          : midnight ? `${d.getUTCDate()} ${MONTHS[d.getUTCMonth()]}` : step < 60 ? when(t).slice(11) : `${two(d.getUTCHours())}:${two(d.getUTCMinutes())}`;
        const half = c.measureText(text).width / 2;
        if (x - half < 0 || x + half > this.right + GUTTER) continue;
        c.fillStyle = midnight ? palette.soft : palette.faint; c.fillText(text, x, this.bottom + 5);
      }
      c.strokeStyle = palette.line; c.beginPath(); c.moveTo(0, this.bottom + 0.5); c.lineTo(this.right, this.bottom + 0.5); c.stroke();
    }
    clip(paint) {
      const c = this.context;
      c.save(); c.beginPath(); c.rect(0, 0, this.right, this.bottom); c.clip(); paint(c); c.restore();
    }
    cross() {
      const c = this.context;
      if (selecting) {
        const [a, b] = selecting.map(this.x);
        c.save(); c.globalAlpha = 0.12; c.fillStyle = palette.ink; c.fillRect(Math.min(a, b), 0, Math.abs(b - a), this.bottom); c.restore();
      }
      if (hover === null || hover < view[0] || hover > view[1]) return;
      const x = Math.round(this.x(hover)) + 0.5;
      c.strokeStyle = palette.faint; c.setLineDash([3, 3]); c.beginPath(); c.moveTo(x, 0); c.lineTo(x, this.bottom); c.stroke(); c.setLineDash([]);
    }
  }

  const pixels = (panel, values, first, last, step) => { // of many points to a pixel: the first, the extremes and the last
    if (last - first <= 4 * panel.right) { for (let i = first; i < last; i++) step(i); return; }
    let i = first;
    while (i < last) {
      const x = Math.floor(panel.x(curve.t[i]));
      let low = i, high = i, j = i;
      for (; j < last && Math.floor(panel.x(curve.t[j])) === x; j++) { if (values[j] < values[low]) low = j; if (values[j] > values[high]) high = j; }
      for (const k of [...new Set([i, low, high, j - 1])].sort((a, b) => a - b)) step(k);
      i = j;
    }
  };
  const range = (times, count) => [Math.max(0, after(times, view[0]) - 1), Math.min(count, after(times, view[1]) + 1)];

  // --- equity and drawdown -----------------------------------------------------------------------
  const panels = {};
  const equityPanel = () => {
    const [first, last] = range(curve.t, curve.t.length);
    let low = Infinity, high = -Infinity;
    const see = (v) => { if (v < low) low = v; if (v > high) high = v; };
    for (let i = first; i < last; i++) see(curve.e[i]);
    const beside = held && data.instruments[shown].candles, line = [];
    if (beside) {
      const start = beside.o[0], [f, l] = range(beside.t, beside.t.length), skip = Math.max(1, Math.floor((l - f) / 1500));
      for (let i = f; i < l; i += skip) { const v = data.capital * beside.c[i] / start; line.push([beside.t[i] + beside.step, v]); see(v); }
    }
    if (data.capital >= low - (high - low) && data.capital <= high + (high - low)) see(data.capital);
    if (!(low <= high)) { low = high = data.capital; }
    const pad = (high - low) * 0.04;
    const panel = panels.equity, c = panel.begin(low - pad, high + pad);
    panel.grid((v, decimals) => figure(v, decimals));
    panel.clip(() => {
      const y = Math.round(panel.y(data.capital)) + 0.5;
      c.strokeStyle = palette.faint; c.setLineDash([2, 4]); c.beginPath(); c.moveTo(0, y); c.lineTo(panel.right, y); c.stroke(); c.setLineDash([]);
      if (line.length) {
        c.strokeStyle = palette.other; c.lineWidth = 1; c.beginPath();
        line.forEach(([t, v], i) => (i ? c.lineTo(panel.x(t), panel.y(v)) : c.moveTo(panel.x(t), panel.y(v)))); c.stroke();
      }
      c.strokeStyle = palette.curve; c.lineWidth = 1.35; c.lineJoin = "round"; c.beginPath();
      pixels(panel, curve.e, first, last, (i) => c.lineTo(panel.x(curve.t[i]), panel.y(curve.e[i])));
      c.stroke(); c.lineWidth = 1;
    });
    panel.cross();
    const below = panels.drawdown;
    let deepest = 0;
    for (let i = first; i < last; i++) if (curve.d[i] > deepest) deepest = curve.d[i];
    const d = below.begin(-(deepest * 1.08 || 0.001), 0);
    below.grid((v, decimals) => figure(v * 100, Math.max(0, decimals - 2)) + " %");
    below.clip(() => {
      d.beginPath(); d.moveTo(below.x(curve.t[first]), below.y(0));
      pixels(below, curve.d, first, last, (i) => d.lineTo(below.x(curve.t[i]), below.y(-curve.d[i])));
      d.lineTo(below.x(curve.t[last - 1]), below.y(0)); d.closePath();
      d.fillStyle = palette["loss-wash"]; d.fill();
      d.strokeStyle = palette.loss; d.lineWidth = 1; d.beginPath();
      pixels(below, curve.d, first, last, (i) => d.lineTo(below.x(curve.t[i]), below.y(-curve.d[i])));
      d.stroke();
    });
    below.cross();
    const at = hover === null ? curve.t.length - 1 : Math.max(0, after(curve.t, hover) - 1);
    if (curve.t.length) {
      $("#equity .readout").innerHTML = `<span>${when(curve.t[at])} UTC</span><span>equity <b>${figure(curve.e[at], 2)}</b></span>` +
        `<span>since the start <b>${signed(100 * (curve.e[at] / data.capital - 1), 2)} %</b></span><span>drawdown <b>${figure(-100 * curve.d[at] || 0, 2)} %</b></span>`;
    }
  };

  // --- price, trades, basis ----------------------------------------------------------------------
  let marks = []; // what can be pointed at: x, y, text
  const joined = (of, most) => {
    const [first, last] = range(of.t, of.t.length);
    const spanned = last > first ? of.t[last - 1] - of.t[first] + of.step : 0;
    const step = [of.step, ...STEPS.filter((s) => s > of.step && s % of.step === 0 && s <= 604800)].find((s) => spanned / s <= most) || 604800;
    const out = [];
    let bucket = null;
    for (let i = first; i < last; i++) {
      const t = step === of.step ? of.t[i] : Math.floor(of.t[i] / step) * step;
      if (bucket && bucket.t === t) { bucket.h = Math.max(bucket.h, of.h[i]); bucket.l = Math.min(bucket.l, of.l[i]); bucket.c = of.c[i]; }
      else out.push((bucket = { t, o: of.o[i], h: of.h[i], l: of.l[i], c: of.c[i] }));
    }
    return { step, all: out };
  };
  const triangle = (c, x, y, up, size) => {
    const s = up ? 1 : -1;
    c.beginPath(); c.moveTo(x, y); c.lineTo(x - size, y + s * size * 1.7); c.lineTo(x + size, y + s * size * 1.7); c.closePath();
  };
  const pricePanel = () => {
    const one = data.instruments[shown], panel = panels.price;
    marks = [];
    if (!one) return;
    const seen = trips.filter((trip) => trip.legs[0] === shown && trip.opened <= view[1] && (trip.closed === null ? whole[1] : trip.closed) >= view[0]);
    const fills = (one.fills || []).filter((fill) => fill[0] >= view[0] && fill[0] <= view[1]);
    const candles = one.candles ? joined(one.candles, Math.max(60, panel.canvas.clientWidth / 4.5)) : { step: 0, all: [] };
    let low = Infinity, high = -Infinity;
    const see = (v) => { if (v < low) low = v; if (v > high) high = v; };
    for (const k of candles.all) { see(k.l); see(k.h); }
    for (const trip of seen) { if (trip.opened >= view[0]) see(trip.entry); if (trip.exit !== null && trip.closed <= view[1]) see(trip.exit); }
    for (const fill of fills) see(fill[1]);
    if (!(low <= high)) { low = 0; high = 1; }
    const pad = (high - low) * 0.06, decimals = one.candles ? one.candles.decimals : 2;
    const c = panel.begin(low - pad, high + pad);
    panel.grid((v, d) => figure(v, Math.min(d, Math.max(decimals, 0))));
    panel.clip(() => {
      const wide = Math.max(1, ((candles.step / (view[1] - view[0])) * panel.right) * 0.68);
      c.strokeStyle = c.fillStyle = palette.candle; c.lineWidth = 1;
      for (const k of candles.all) {
        const x = panel.x(k.t + candles.step / 2), o = panel.y(k.o), e = panel.y(k.c), middle = Math.round(x) + 0.5;
        c.beginPath(); c.moveTo(middle, panel.y(k.h)); c.lineTo(middle, Math.min(o, e)); c.moveTo(middle, Math.max(o, e)); c.lineTo(middle, panel.y(k.l)); c.stroke();
        const left = Math.round(x - wide / 2), top = Math.min(o, e), tall = Math.max(1, Math.abs(o - e));
        if (wide < 2.2) c.fillRect(middle - 0.5, top, 1, tall);
        else if (k.c < k.o) c.fillRect(left, top, Math.round(wide), tall);
        else { c.clearRect(left, top, Math.round(wide), tall); c.strokeRect(left + 0.5, top + 0.5, Math.max(1, Math.round(wide) - 1), Math.max(0.5, tall - 1)); }
      }
      const size = seen.length > 300 ? 2.6 : seen.length > 120 ? 3.6 : 4.8;
      for (const trip of seen) {
        const ink = trip.closed === null ? palette.mark : trip.pnl >= 0 ? palette.gain : palette.loss;
        const x = panel.x(trip.opened), y = panel.y(trip.entry);
        c.strokeStyle = c.fillStyle = ink;
        if (trip.exit !== null) {
          const x2 = panel.x(trip.closed), y2 = panel.y(trip.exit);
          c.setLineDash([2, 2]); c.beginPath(); c.moveTo(x, y); c.lineTo(x2, y2); c.stroke(); c.setLineDash([]);
          c.beginPath(); c.arc(x2, y2, size * 0.72, 0, 7); c.fillStyle = palette.paper; c.fill(); c.lineWidth = 1.5; c.stroke(); c.lineWidth = 1;
          marks.push({ x: x2, y: y2, trip }); c.fillStyle = ink;
        }
        triangle(c, x, y, trip.side > 0, size); c.fill();
        marks.push({ x, y: y + (trip.side > 0 ? 1 : -1) * size, trip });
      }
      c.fillStyle = palette.other;
      for (const fill of fills) { const x = panel.x(fill[0]), y = panel.y(fill[1]); triangle(c, x, y, fill[2] > 0, 4); c.fill(); marks.push({ x, y, fill }); }
    });
    panel.cross();
    $("#price .candles").textContent = one.candles
      ? `one candle is ${length(candles.step)}` + (candles.step > one.step || one.joined ? `, joined from ${one.recorded}` : "") : "no prices of it are on the tape";
    const parts = [];
    if (hover !== null && one.candles) {
      const i = candles.all.findIndex((k) => hover < k.t + candles.step), k = candles.all[i];
      if (k && hover >= k.t) {
        parts.push(`<span>${when(k.t)} UTC</span>`);
        for (const [name, v] of [["open", k.o], ["high", k.h], ["low", k.l], ["close", k.c]]) parts.push(`<span>${name} <b>${figure(v, decimals)}</b></span>`);
      } else parts.push(`<span>${when(Math.round(hover))} UTC</span><span>no candle here</span>`);
    }
    const box = $("#basis"), pair = data.pairs.find((p) => p.includes(shown));
    box.hidden = !pair;
    if (pair) {
      const [a, b] = pair.map((i) => data.instruments[i].candles), below = panels.basis, points = [];
      if (a && b) {
        const [f, l] = range(a.t, a.t.length), skip = Math.max(1, Math.floor((l - f) / 3000));
        for (let i = f; i < l; i += skip) {
          const end = a.t[i] + a.step, j = after(b.t, end - b.step) - 1;
          if (j >= 0 && end - (b.t[j] + b.step) <= 2 * Math.max(a.step, b.step)) points.push([end, 1e4 * (a.c[i] / b.c[j] - 1)]);
        }
      }
      let from = 0, to = 0;
      for (const [, v] of points) { if (v < from) from = v; if (v > to) to = v; }
      const d = below.begin(from - (to - from) * 0.06, to + (to - from) * 0.06);
      below.grid((v, decimals) => figure(v, decimals) + " bp");
      below.clip(() => {
        d.fillStyle = palette["gain-wash"];
        for (const trip of trips) if (trip.legs.length > 1 && trip.legs.includes(shown)) { const x = below.x(trip.opened); d.fillRect(x, 0, below.x(trip.closed === null ? whole[1] : trip.closed) - x, below.bottom); }
        d.strokeStyle = palette.curve; d.lineWidth = 1; d.beginPath();
        points.forEach(([t, v], i) => (i ? d.lineTo(below.x(t), below.y(v)) : d.moveTo(below.x(t), below.y(v)))); d.stroke();
        d.strokeStyle = palette.faint; d.beginPath(); d.moveTo(0, below.y(0)); d.lineTo(below.right, below.y(0)); d.stroke();
      });
      below.cross();
      below.name.textContent = `basis: ${data.instruments[pair[0]].label} over ${data.instruments[pair[1]].label}; shaded while the pair was held`;
      if (hover !== null && points.length) {
        const at = points.findIndex((p) => p[0] >= hover), p = points[at < 0 ? points.length - 1 : at];
        parts.push(`<span>basis <b>${figure(p[1], 1)} bp</b></span>`);
      }
    }
    $("#price .readout").innerHTML = parts.length ? parts.join("") : "<span>point at the chart for figures; drag to zoom, double-click for all</span>";
  };

  let asked = false;
  const draw = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; equityPanel(); if (panels.price) pricePanel(); });
  };

  // --- pointing, zooming, choosing ---------------------------------------------------------------
  const look = (from, to) => {
    const least = 60, span = Math.max(least, Math.min(to - from, whole[1] - whole[0]));
    const start = Math.min(Math.max(from, whole[0]), whole[1] - span);
    marks = [];
    view = span >= whole[1] - whole[0] ? [...whole] : [start, start + span];
    for (const button of document.querySelectorAll("[data-range]")) {
      const wanted = button.dataset.range === "all" ? whole[1] - whole[0] : +button.dataset.range;
      button.setAttribute("aria-pressed", String(Math.abs(view[1] - view[0] - wanted) < 1));
    }
    draw();
  };
  const tip = document.createElement("div");
  tip.className = "tip"; tip.hidden = true;
  const say = (list, name, value, className) => {
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name; dd.textContent = value; if (className) dd.className = className;
    list.append(dt, dd);
  };
  const point = (x, y) => {
    let best = null, least = 14 * 14;
    for (const mark of marks) { const far = (mark.x - x) ** 2 + (mark.y - y) ** 2; if (far < least) { least = far; best = mark; } }
    tip.hidden = !best;
    for (const row of document.querySelectorAll("tr.lit")) row.classList.remove("lit");
    if (!best) return;
    tip.textContent = "";
    const title = document.createElement("b"), list = document.createElement("dl");
    tip.append(title, list);
    if (best.fill) {
      const [t, price, side, quantity] = best.fill;
      title.textContent = `${side > 0 ? "bought" : "sold"} ${quantity}`;
      say(list, "at", figure(price, 2)); say(list, "when", when(t));
    } else {
      const trip = best.trip;
      title.textContent = `#${trip.number} ${trip.side > 0 ? "long" : "short"} ${trip.quantity}${trip.legs.length > 1 ? ", a pair" : ""}`;
      const tone = trip.pnl > 0 ? "gain" : trip.pnl < 0 ? "loss" : "";
      say(list, trip.closed === null ? "P&L so far" : "P&L", signed(trip.pnl, 2), tone);
      say(list, "entry", trip.entry.toLocaleString("en-US", { maximumFractionDigits: 8 }));
      say(list, "exit", trip.exit === null ? "open" : trip.exit.toLocaleString("en-US", { maximumFractionDigits: 8 }));
      say(list, "fees", figure(trip.fees, 2));
      if (trip.funding) say(list, "funding", signed(trip.funding, 2));
      say(list, "opened", when(trip.opened));
      say(list, "held", length((trip.closed === null ? whole[1] : trip.closed) - trip.opened));
      if (trip.by) say(list, "closed by", trip.by);
      if (data.strategies.length > 1) say(list, "strategy", data.strategies[trip.strategy]);
      const row = document.querySelector(`tr[data-trip="${trip.number}"]`);
      if (row) row.classList.add("lit");
    }
    const width = panels.price.width, left = best.x > width / 2 ? best.x - tip.offsetWidth - 14 : best.x + 14;
    tip.style.left = `${Math.max(0, Math.min(left, width - tip.offsetWidth))}px`;
    tip.style.top = `${Math.max(0, Math.min(best.y - 20, panels.price.height - tip.offsetHeight))}px`;
  };
  const listen = (panel) => {
    const canvas = panel.canvas;
    const at = (event) => { const box = canvas.getBoundingClientRect(); return [Math.max(0, Math.min(event.clientX - box.left, panel.right)), event.clientY - box.top]; };
    let from = null;
    canvas.addEventListener("pointerdown", (event) => { from = at(event)[0]; canvas.setPointerCapture(event.pointerId); });
    canvas.addEventListener("pointermove", (event) => {
      const [x, y] = at(event);
      hover = panel.time(x);
      selecting = from !== null && Math.abs(x - from) > 5 ? [panel.time(from), hover] : null;
      if (panel === panels.price) point(x, y);
      draw();
    });
    canvas.addEventListener("pointerup", () => { if (selecting) look(Math.min(...selecting), Math.max(...selecting)); from = selecting = null; draw(); });
    canvas.addEventListener("pointercancel", () => { from = selecting = null; draw(); });
    canvas.addEventListener("pointerleave", () => { hover = null; tip.hidden = true; draw(); });
    canvas.addEventListener("dblclick", () => look(...whole));
  };

  panels.equity = new Panel($("#equity-canvas"), 250, false);
  panels.drawdown = new Panel($("#drawdown-canvas"), 112, true);
  panels.equity.name.textContent = "equity"; panels.drawdown.name.textContent = "drawdown";
  if ($("#price")) {
    panels.price = new Panel($("#price-canvas"), 380, true);
    panels.basis = new Panel($("#basis-canvas"), 120, true);
    $("#price .chart").append(tip);
  }
  Object.values(panels).forEach(listen);
  for (const button of document.querySelectorAll("[data-range]")) button.addEventListener("click", () => {
    if (button.dataset.range === "all") look(...whole);
    else { const end = view[1] - view[0] < whole[1] - whole[0] ? (view[0] + view[1]) / 2 + button.dataset.range / 2 : whole[1]; look(end - button.dataset.range, end); }
  });
  for (const button of document.querySelectorAll("[data-move]")) button.addEventListener("click", () => {
    const by = (view[1] - view[0]) * 0.5 * +button.dataset.move; look(view[0] + by, view[1] + by);
  });
  const choose = (index) => {
    shown = index;
    for (const tab of document.querySelectorAll("[data-tab]")) tab.setAttribute("aria-selected", String(+tab.dataset.tab === index));
    const name = $("#held-name"); if (name && data.instruments[index]) name.textContent = data.instruments[index].label;
    draw();
  };
  for (const tab of document.querySelectorAll("[data-tab]")) tab.addEventListener("click", () => choose(+tab.dataset.tab));
  const check = $("#held");
  if (check) check.addEventListener("change", () => { held = check.checked; draw(); });

  const table = $("#trips table");
  if (table) {
    const heads = [...table.querySelectorAll("th")], body = table.tBodies[0];
    const sort = (head, column) => {
      const down = head.getAttribute("aria-sort") === "descending" ? false : true;
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => { const text = row.cells[column].dataset.key ?? row.cells[column].textContent; const number = Number(text); return text === "" ? -Infinity : Number.isNaN(number) ? text : number; };
      const rows = [...body.rows].map((row) => [key(row), row]);
      rows.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1));
      body.append(...rows.map(([, row]) => row));
    };
    heads.forEach((head, column) => {
      head.tabIndex = 0;
      head.addEventListener("click", () => sort(head, column));
      head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(head, column); });
    });
    body.addEventListener("click", (event) => {
      const row = event.target.closest("tr"), trip = row && trips.find((each) => each.number === +row.dataset.trip);
      if (!trip) return;
      const end = trip.closed === null ? whole[1] : trip.closed, around = Math.max(end - trip.opened, 1800);
      choose(trip.legs[0]); look(trip.opened - around, end + around);
      $("#price").scrollIntoView({ behavior: "smooth", block: "start" });
    });
  }
  window.addEventListener("resize", draw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  choose(data.first || 0); look(...whole); repaint();
})();
