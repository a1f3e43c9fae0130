// What both charts share: colours of the theme, numbers as people write them, and a canvas that follows its box.
import { echarts } from "nicegui-echart";

export const colour = (name) => globalThis.hean.colour(name);

export function open(element, host) {
  const chart = echarts.init(element, null, { renderer: "canvas" });
  const resize = new ResizeObserver(() => { chart.resize(); host.resized?.(); });
  resize.observe(element);
  const restyle = () => requestAnimationFrame(() => host.restyle());
  addEventListener("hean-theme", restyle);
  addEventListener("hean-clock", restyle);
  return {
    chart,
    close() {
      removeEventListener("hean-theme", restyle);
      removeEventListener("hean-clock", restyle);
      resize.disconnect();
      chart.dispose();
    },
  };
}

export const font = () => ({ fontFamily: colour("sans"), fontSize: 11, color: colour("mute") });

export function amount(value, places = 2) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  return value.toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: places }).replace("-", "−");
}

export const signed = (value, places = 2) => (value > 0 ? "+" : "") + amount(value, places);

export function places(size) {
  size = Math.abs(size);
  return size >= 100 ? 2 : size >= 1 ? 4 : 6;
}

export const escaped = (text) =>
  String(text).replace(/[&<>"']/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" })[c]);

export function clockLabel(ms, span) {
  const d = new Date(ms);
  const utc = globalThis.hean.isUtc();
  const two = (n) => String(n).padStart(2, "0");
  const day = utc ? d.getUTCDate() : d.getDate();
  const month = (utc ? d.getUTCMonth() : d.getMonth()) + 1;
  const hm = `${two(utc ? d.getUTCHours() : d.getHours())}:${two(utc ? d.getUTCMinutes() : d.getMinutes())}`;
  if (span < 600_000) return `${hm}:${two(utc ? d.getUTCSeconds() : d.getSeconds())}`;
  if (span > 2 * 86_400_000) return `${two(month)}-${two(day)}`;
  return hm;
}

export const moment = (ms) => {
  const d = new Date(ms);
  const two = (n) => String(n).padStart(2, "0");
  const utc = globalThis.hean.isUtc();
  const date = utc ? d.toISOString().slice(0, 10) : `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}`;
  return `${date} ${clockLabel(ms, 0)}`;
};

export const tip = () => ({
  backgroundColor: colour("raised"), borderColor: colour("line-strong"), borderWidth: 1, padding: [8, 10],
  textStyle: { fontFamily: colour("sans"), fontSize: 12, color: colour("text") },
  extraCssText: "box-shadow: 0 6px 24px var(--shade); border-radius: 6px; font-variant-numeric: tabular-nums; max-width: 320px; white-space: normal;",
});

export const row = (name, value, dot = "") =>
  `<div style="display:flex;gap:18px;justify-content:space-between"><span style="color:var(--mute)">` +
  (dot ? `<i style="display:inline-block;width:8px;height:8px;border-radius:2px;margin-right:6px;background:${dot}"></i>` : "") +
  `${escaped(name)}</span><span>${escaped(value)}</span></div>`;

// A finger scrolls the page; a chart that took it would hold the reader fast.
const isTouch = matchMedia("(pointer: coarse)").matches;

export const zoom = (axes, wheel) => ({
  type: "inside", xAxisIndex: axes, filterMode: "filter", zoomOnMouseWheel: wheel, moveOnMouseMove: true, preventDefaultMouseMove: !isTouch,
  disabled: isTouch, throttle: 40, minSpan: 2,
});
