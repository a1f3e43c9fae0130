// A table whose rows are known by a key: only rows that changed are sent, only cells that changed are drawn.
// On a narrow screen each row is a small card (page.css), so that nothing has to be scrolled sideways.
export default {
  template: `
    <div class="sheet-box">
      <table class="sheet" v-if="order.length" :class="{ clickable: clickable }">
        <thead><tr>
          <th v-for="c in columns" :key="c.name" :class="[c.kind, { wide: c.wide, sortable: sortable }]" :title="c.hint || null" scope="col"
              :aria-sort="sortable && by === c.name ? (down ? 'descending' : 'ascending') : null">
            <button v-if="sortable" type="button" @click="sort(c.name)">{{ c.title }}<i aria-hidden="true">{{ by === c.name ? (down ? "▾" : "▴") : "" }}</i></button>
            <template v-else>{{ c.title }}</template>
          </th>
        </tr></thead>
        <tbody>
          <tr v-for="k in shown" :key="k" :class="held[k].tone" :tabindex="clickable ? 0 : null" :data-key="k"
              @click="open(k)" @keydown.enter="open(k)">
            <td v-for="(c, i) in columns" :key="c.name" :class="[c.kind, held[k].cells[i].tone, { wide: c.wide, unknown: held[k].cells[i].unknown }]"
                :data-title="c.title" :title="held[k].cells[i].hint || null">
              <span v-if="held[k].cells[i].bar !== undefined" class="meter"><i :style="{ width: held[k].cells[i].bar + '%' }"></i></span>
              <svg v-if="held[k].cells[i].spark" class="spark" viewBox="0 0 60 16" preserveAspectRatio="none" aria-hidden="true">
                <polyline v-for="(line, n) in lines(held[k].cells[i].spark)" :key="n" :points="line" />
              </svg>
              <span v-if="held[k].cells[i].since" class="since" :data-since="held[k].cells[i].since"></span>
              <time v-else-if="held[k].cells[i].time" :data-time="held[k].cells[i].time"></time>
              <span v-else-if="c.flash" :key="held[k].cells[i].text" class="flash">{{ held[k].cells[i].text }}</span>
              <span v-else :class="{ chip: held[k].cells[i].badge }">{{ held[k].cells[i].text }}</span>
              <small v-if="held[k].cells[i].note">{{ held[k].cells[i].note }}</small>
            </td>
          </tr>
        </tbody>
      </table>
      <div class="empty" v-else><b>{{ empty[0] }}</b><span>{{ empty[1] }}</span></div>
    </div>`,
  props: { columns: Array, rows: Array, empty: Array, clickable: Boolean, sortable: Boolean },
  data() {
    return { order: [], held: {}, by: "", down: false };
  },
  computed: {
    shown() {
      const i = this.columns.findIndex((c) => c.name === this.by);
      if (i < 0) return this.order;
      const worth = new Map(this.order.map((k) => [k, this.worth(this.held[k].cells[i], this.columns[i].kind)]));
      const way = this.down ? -1 : 1;
      return [...this.order].sort((a, b) => {
        const [x, y] = [worth.get(a), worth.get(b)];
        if (x === null || y === null) return (x === null) - (y === null); // what is not known comes last, either way
        return x < y ? -way : x > y ? way : 0;
      });
    },
  },
  created() {
    for (const [key, row] of this.rows || []) this.held[key] = row;
    this.order = (this.rows || []).map((r) => r[0]);
  },
  mounted() {
    globalThis.hean?.tick();
  },
  updated() {
    globalThis.hean?.tick();
  },
  methods: {
    patch(order, changed) {
      for (const key of Object.keys(changed)) this.held[key] = changed[key];
      if (order) {
        const kept = {};
        for (const key of order) kept[key] = this.held[key];
        this.order = order;
        this.held = kept;
      }
    },
    sort(name) {
      // Upwards, downwards, and then as it was.
      if (this.by !== name) [this.by, this.down] = [name, false];
      else if (!this.down) this.down = true;
      else this.by = "";
    },
    worth(cell, kind) {
      if (cell.sort !== undefined) return cell.sort;
      if (cell.since) return -cell.since;
      if (cell.time) return cell.time;
      if (cell.unknown) return null;
      if (kind !== "number") return cell.text.toLowerCase();
      const number = parseFloat(cell.text.replace(/,/g, "").replace("−", "-"));
      return Number.isNaN(number) ? null : number;
    },
    lines(values) {
      // Where a value is not known the line is broken. It ends at the right edge, however short it is.
      const most = Math.max(...values.filter((v) => v !== null), 1e-9);
      const found = [[]];
      values.forEach((v, i) => {
        if (v === null) found.push([]);
        else found.at(-1).push(`${61 - values.length + i},${(15 - (14 * v) / most).toFixed(1)}`);
      });
      return found.filter((points) => points.length > 1).map((points) => points.join(" "));
    },
    open(key) {
      if (this.clickable) this.$emit("row", key);
    },
  },
};
