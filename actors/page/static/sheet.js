// A table whose rows are known by a key: only rows that changed are sent, only cells that changed are drawn.
// On a narrow screen each row is a small card (page.css), so that nothing has to be scrolled sideways.
export default {
  template: `
    <div class="sheet-box">
      <table class="sheet" v-if="order.length" :class="{ clickable: clickable }">
        <thead><tr>
          <th v-for="c in columns" :key="c.name" :class="[c.kind, { wide: c.wide }]" :title="c.hint || null" scope="col">{{ c.title }}</th>
        </tr></thead>
        <tbody>
          <tr v-for="k in order" :key="k" :class="held[k].tone" :tabindex="clickable ? 0 : null" :data-key="k"
              @click="open(k)" @keydown.enter="open(k)">
            <td v-for="(c, i) in columns" :key="c.name" :class="[c.kind, held[k].cells[i].tone, { wide: c.wide }]"
                :data-title="c.title" :title="held[k].cells[i].hint || null">
              <span v-if="held[k].cells[i].bar !== undefined" class="meter"><i :style="{ width: held[k].cells[i].bar + '%' }"></i></span>
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
  props: { columns: Array, rows: Array, empty: Array, clickable: Boolean },
  data() {
    return { order: [], held: {} };
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
    open(key) {
      if (this.clickable) this.$emit("row", key);
    },
  },
};
