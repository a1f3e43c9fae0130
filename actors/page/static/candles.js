// Candles with our fills on them and volume below. The newest candle is told alone; what is zoomed to stays where it is.
import { amount, clockLabel, colour, escaped, font, moment, open, places, row, tip, zoom } from "hean-chart";

export default {
  template: `<div class="chart" role="img" aria-label="Candles with our fills, and volume below"></div>`,
  props: { candles: Array, fills: Array },
  mounted() {
    this.held = (this.candles || []).slice();
    this.marks = (this.fills || []).slice();
    requestAnimationFrame(() => {
      if (!this.$el.isConnected) return;
      this.canvas = open(this.$el, this);
      this.canvas.chart.on("datazoom", () => { this.touched = true; });
      this.canvas.chart.getZr().on("dblclick", () => { this.touched = false; this.look(); });
      this.restyle();
    });
  },
  beforeUnmount() {
    this.canvas?.close();
  },
  methods: {
    // Candles are [milliseconds, open, high, low, close, volume, closed], fills {t, price, side, quantity, fee, …}.
    patch(told) {
      if (told.all) { this.held = told.all; this.touched = false; }
      else if (told.more) {
        const from = told.more.length ? told.more[0][0] : Infinity;
        this.held = this.held.filter((c) => c[0] < from).concat(told.more).slice(-1000);
      }
      if (told.fills) this.marks = told.fills;
      this.draw();
      if (told.all) this.look();
    },
    resized() {
      this.restyle();
    },
    look() {
      if (!this.canvas || this.touched) return;
      const room = Math.max(40, Math.floor(this.$el.clientWidth / 8));
      this.canvas.chart.dispatchAction({ type: "dataZoom", dataZoomIndex: 0, start: Math.max(0, 100 - (100 * room) / Math.max(this.held.length, 1)), end: 100 });
      this.touched = false;
    },
    restyle() {
      if (!this.canvas) return;
      const up = colour("good"), down = colour("bad");
      const h = this.$el.clientHeight;
      const right = this.$el.clientWidth < 520 ? 74 : 76;
      const axis = (i, show) => ({
        type: "category", gridIndex: i, boundaryGap: true, data: [], axisLine: { show: false }, axisTick: { show: false }, splitLine: { show: false },
        axisLabel: { ...font(), show, hideOverlap: true, formatter: (v) => clockLabel(Number(v), this.span()) },
        axisPointer: { label: { show, ...font(), backgroundColor: colour("line-strong"), color: colour("text"), formatter: (p) => clockLabel(Number(p.value), this.span()) } },
      });
      this.canvas.chart.setOption({
        animation: false,
        textStyle: font(),
        grid: [{ left: 6, right, top: 10, height: Math.round(h * 0.7) }, { left: 6, right, top: Math.round(h * 0.7) + 18, bottom: 24 }],
        axisPointer: { link: [{ xAxisIndex: "all" }], lineStyle: { color: colour("mute"), type: "dashed" }, crossStyle: { color: colour("mute") } },
        xAxis: [axis(0, false), axis(1, true)],
        yAxis: [
          { scale: true, position: "right", splitNumber: 5, axisLine: { show: false }, axisTick: { show: false }, splitLine: { lineStyle: { color: colour("grid") } },
            axisLabel: { ...font(), formatter: (v) => amount(v, v >= 1000 && v % 1 === 0 ? 0 : Math.min(places(v), 4)) },
            axisPointer: { label: { ...font(), backgroundColor: colour("line-strong"), color: colour("text"), formatter: (p) => amount(p.value, places(p.value)) } } },
          { gridIndex: 1, position: "right", splitNumber: 2, axisLine: { show: false }, axisTick: { show: false }, splitLine: { show: false }, axisLabel: { show: false },
            axisPointer: { show: false } },
        ],
        tooltip: { trigger: "axis", axisPointer: { type: "cross" }, ...tip(), confine: true, formatter: (at) => this.told(at) },
        dataZoom: [zoom([0, 1], true)],
        series: [
          { id: "candles", type: "candlestick", data: [], itemStyle: { color: up, color0: down, borderColor: up, borderColor0: down, borderWidth: 1 }, emphasis: { disabled: true },
            markLine: { symbol: "none", silent: true, animation: false, lineStyle: { color: colour("accent"), type: "dashed", width: 1 },
              label: { position: "end", ...font(), fontWeight: 600, color: colour("surface"), backgroundColor: colour("accent"), padding: [3, 5], borderRadius: 3, distance: 3,
                formatter: (p) => amount(p.value, places(p.value)) }, data: [] } },
          { id: "volume", type: "bar", xAxisIndex: 1, yAxisIndex: 1, data: [], emphasis: { disabled: true }, barCategoryGap: "30%" },
          { id: "bought", type: "scatter", data: [], symbol: "triangle", symbolSize: 11, symbolOffset: [0, 9], z: 6, cursor: "default",
            itemStyle: { color: colour("good"), borderColor: colour("surface"), borderWidth: 1.5 } },
          { id: "sold", type: "scatter", data: [], symbol: "triangle", symbolRotate: 180, symbolSize: 11, symbolOffset: [0, -9], z: 6, cursor: "default",
            itemStyle: { color: colour("bad"), borderColor: colour("surface"), borderWidth: 1.5 } },
        ],
      });
      this.draw();
      this.look();
    },
    span() {
      const held = this.held;
      if (held.length < 2) return 0;
      const step = held[held.length - 1][0] - held[held.length - 2][0];
      const z = this.canvas.chart.getOption()?.dataZoom?.[0] ?? {};
      const seen = (held.length * ((z.end ?? 100) - (z.start ?? 0))) / 100;
      return Math.max(step * seen, 600_000);
    },
    draw() {
      if (!this.canvas) return;
      const held = this.held;
      const times = held.map((c) => c[0]);
      const up = colour("good"), down = colour("bad");
      const at = (t) => { // the candle that a fill belongs to
        if (!times.length || t < times[0]) return -1;
        let low = 0, high = times.length - 1;
        while (low < high) { const m = (low + high + 1) >> 1; if (times[m] <= t) low = m; else high = m - 1; }
        return low;
      };
      const bought = [], sold = [];
      this.byCandle = new Map();
      for (const f of this.marks) {
        const i = at(f.t);
        if (i < 0) continue;
        (f.side === "BUY" ? bought : sold).push([i, f.price]);
        if (!this.byCandle.has(i)) this.byCandle.set(i, []);
        this.byCandle.get(i).push(f);
      }
      const last = held[held.length - 1];
      this.canvas.chart.setOption({
        xAxis: [{ data: times }, { data: times }],
        series: [
          { id: "candles", data: held.map((c) => [c[1], c[4], c[3], c[2]]), markLine: { data: last ? [{ yAxis: last[4] }] : [] } },
          { id: "volume", data: held.map((c) => ({ value: c[5], itemStyle: { color: c[4] >= c[1] ? up : down, opacity: 0.35 } })) },
          { id: "bought", data: bought },
          { id: "sold", data: sold },
        ],
      }, { lazyUpdate: true });
    },
    told(at) {
      const one = at.find((a) => a.seriesId === "candles") ?? at[0];
      const i = one?.dataIndex;
      const index = one?.seriesType === "scatter" ? one.value[0] : i;
      const c = this.held[index];
      if (!c) return "";
      const p = places(c[4]);
      const change = c[1] ? (c[4] / c[1] - 1) * 100 : 0;
      let out = `<div style="color:var(--mute);margin-bottom:4px">${escaped(moment(c[0]))}${c[6] ? "" : ", still open"}</div>`;
      out += row("Open", amount(c[1], p)) + row("High", amount(c[2], p)) + row("Low", amount(c[3], p)) + row("Close", amount(c[4], p));
      out += row("Change", (change > 0 ? "+" : "") + amount(change, 2) + " %") + row("Volume", amount(c[5], 3));
      for (const f of (this.byCandle?.get(index) ?? []).slice(0, 4)) {
        const tone = f.side === "BUY" ? "var(--good)" : "var(--bad)";
        out += `<div style="margin:6px 0 2px;color:${tone};font-weight:600">${f.side === "BUY" ? "▲ bought" : "▼ sold"} ${escaped(f.quantity)} at ${escaped(amount(f.price, p))}</div>`;
        out += row("Strategy", f.strategy || "the owner") + row("Fee", f.fee) + (f.liquidity ? row("As", f.liquidity) : "");
        if (f.reason) out += row("Why", f.reason);
      }
      const more = (this.byCandle?.get(index)?.length ?? 0) - 4;
      if (more > 0) out += `<div style="color:var(--mute);margin-top:4px">and ${more} more</div>`;
      return out;
    },
  },
};
