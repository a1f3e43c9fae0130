// Equity, how far below its highest it is, and what changed it, one above the other on one axis of time.
import { amount, clockLabel, colour, escaped, font, moment, open, row, signed, tip, zoom } from "hean-chart";

const BUCKETS = 60;

export default {
  template: `<div class="chart" role="img" aria-label="Equity over time, with its drawdown and what each part added"></div>`,
  props: { points: Array, parts: Array },
  mounted() {
    this.held = (this.points || []).slice();
    this.hidden = {};
    requestAnimationFrame(() => {
      if (!this.$el.isConnected) return;
      this.canvas = open(this.$el, this);
      this.canvas.chart.on("datazoom", () => this.draw());
      this.canvas.chart.getZr().on("dblclick", () => this.canvas.chart.dispatchAction({ type: "dataZoom", start: 0, end: 100 }));
      this.restyle();
    });
  },
  beforeUnmount() {
    this.canvas?.close();
  },
  methods: {
    // Points are [milliseconds, equity, whether marks are known, [parts …] or null], oldest first.
    patch(told) {
      if (told.all) this.held = told.all;
      else {
        const from = told.more.length ? told.more[0][0] : Infinity;
        this.held = this.held.filter((p) => p[0] >= told.first && p[0] < from).concat(told.more);
      }
      this.draw();
    },
    hide(name, off) {
      this.hidden[name] = off;
      this.draw();
    },
    resized() {
      this.restyle();
    },
    restyle() {
      if (!this.canvas) return;
      const narrow = this.$el.clientWidth < 520;
      const right = narrow ? 52 : 66;
      const axis = (i, show) => ({
        type: "time", gridIndex: i, axisLine: { show: false }, axisTick: { show: false }, splitLine: { show: false },
        axisLabel: { ...font(), show, hideOverlap: true, formatter: (v) => clockLabel(v, this.span()) },
        axisPointer: { show: true, label: { show: false }, lineStyle: { color: colour("line-strong"), type: "solid" } }, animation: false,
      });
      const value = (i, extra) => ({
        type: "value", gridIndex: i, position: "right", scale: true, splitNumber: i ? 1 : 4, axisLine: { show: false }, axisTick: { show: false },
        axisLabel: { ...font(), margin: 8 }, splitLine: { lineStyle: { color: colour("grid") } }, ...extra,
      });
      const h = this.$el.clientHeight;
      const [a, b, c] = [Math.round(h * 0.5), Math.round(h * 0.12), Math.round(h * 0.19)];
      this.canvas.chart.setOption({
        animation: false,
        textStyle: font(),
        grid: [
          { left: 6, right, top: 8, height: a }, { left: 6, right, top: a + 22, height: b }, { left: 6, right, top: a + b + 40, height: c },
        ],
        axisPointer: { link: [{ xAxisIndex: "all" }] },
        xAxis: [axis(0, false), axis(1, false), axis(2, true)],
        yAxis: [
          value(0, { axisLabel: { ...font(), formatter: (v) => amount(v, v % 1 ? 2 : 0) } }),
          value(1, { max: 0, splitNumber: 1, axisLabel: { ...font(), formatter: (v) => (v ? amount(v, 2) + " %" : "") } }),
          value(2, { axisLabel: { ...font(), formatter: (v) => signed(v, Math.abs(v) < 10 ? 1 : 0) } }),
        ],
        tooltip: { trigger: "axis", ...tip(), confine: true, formatter: (at) => this.told(at) },
        dataZoom: [zoom([0, 1, 2], "shift")],
        series: this.series(),
      }, { replaceMerge: ["series"] });
      this.draw();
    },
    series() {
      const accent = colour("accent");
      const bars = this.parts.map((name) => ({
        id: "part " + name, type: "bar", stack: "parts", xAxisIndex: 2, yAxisIndex: 2, barCategoryGap: "15%", data: [],
        itemStyle: { color: colour("part-" + name) }, emphasis: { disabled: true }, barMaxWidth: 14, barMinWidth: 2,
      }));
      return [
        {
          id: "equity", type: "line", xAxisIndex: 0, yAxisIndex: 0, showSymbol: false, sampling: "lttb", lineStyle: { width: 1.6, color: accent },
          itemStyle: { color: accent }, emphasis: { disabled: true }, data: [],
          areaStyle: { origin: "start", color: { type: "linear", x: 0, y: 0, x2: 0, y2: 1,
            colorStops: [{ offset: 0, color: colour("accent-area") }, { offset: 1, color: "rgba(0,0,0,0)" }] } },
        },
        {
          id: "drawdown", type: "line", xAxisIndex: 1, yAxisIndex: 1, showSymbol: false, sampling: "min", lineStyle: { width: 1, color: colour("bad") },
          itemStyle: { color: colour("bad") }, areaStyle: { color: colour("bad-wash"), origin: 0 }, emphasis: { disabled: true }, data: [],
        },
        ...bars,
      ];
    },
    span() {
      const shown = this.shown();
      return shown[1] - shown[0];
    },
    shown() {
      const first = this.held[0]?.[0] ?? 0;
      const last = this.held[this.held.length - 1]?.[0] ?? 1;
      const z = this.canvas.chart.getOption()?.dataZoom?.[0] ?? { start: 0, end: 100 };
      return [first + ((last - first) * (z.start ?? 0)) / 100, first + ((last - first) * (z.end ?? 100)) / 100];
    },
    draw() {
      if (!this.canvas || !this.held.length) return;
      const equity = [], fall = [];
      let peak = -Infinity;
      for (const [t, v] of this.held) {
        peak = Math.max(peak, v);
        equity.push([t, v]);
        fall.push([t, peak > 0 ? (v / peak - 1) * 100 : 0]);
      }
      this.fall = new Map(fall);
      const series = [{ id: "equity", data: equity }, { id: "drawdown", data: fall }];
      const buckets = this.buckets();
      this.parts.forEach((name, i) => {
        series.push({ id: "part " + name, data: this.hidden[name] ? [] : buckets.map(([t, change]) => [t, change[i]]) });
      });
      const reach = { min: this.held[0][0], max: Math.max(this.held[this.held.length - 1][0], this.held[0][0] + 1000) };
      this.canvas.chart.setOption({ xAxis: [reach, reach, reach], series }, { lazyUpdate: true });
    },
    // What each part added to the equity, in equal spans of what is shown. A span in which nothing is known draws nothing.
    buckets() {
      const known = this.held.filter((p) => p[3]);
      if (known.length < 2) return [];
      const [from, to] = this.shown();
      const width = Math.max((to - from) / BUCKETS, 1000);
      const ends = new Map();
      for (const p of known) ends.set(Math.floor(p[0] / width), p);
      const out = [];
      let before = known[0];
      for (const [bucket, p] of [...ends].sort((x, y) => x[0] - y[0])) {
        const middle = Math.min(Math.max((bucket + 0.5) * width, this.held[0][0]), this.held[this.held.length - 1][0]);
        out.push([middle, p[3].map((v, i) => v - before[3][i])]);
        before = p;
      }
      return out;
    },
    told(at) {
      const t = at[0].axisValue;
      let low = 0, high = this.held.length - 1;
      while (low < high) { const m = (low + high + 1) >> 1; if (this.held[m][0] <= t) low = m; else high = m - 1; }
      const p = this.held[low];
      if (!p) return "";
      let out = `<div style="color:var(--mute);margin-bottom:4px">${escaped(moment(p[0]))}</div>` + row("Equity", amount(p[1]) + (p[2] ? "" : " (marks unknown)"));
      out += row("Below its highest", amount(this.fall.get(p[0]), 2) + " %");
      if (p[3]) {
        out += `<div style="color:var(--mute);margin:6px 0 2px">since the beginning</div>`;
        this.parts.forEach((name, i) => { if (p[3][i]) out += row(name, signed(p[3][i]), `var(--part-${name})`); });
      }
      return out;
    },
  },
};
