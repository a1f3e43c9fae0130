// The end of the log: lines are added below, the oldest go. What a line says is only ever text.
export default {
  template: `
    <div class="log" ref="pane" role="log" tabindex="0" aria-label="Log lines" @scroll.passive="scrolled">
      <div v-if="!lines.length" class="empty"><b>{{ empty[0] }}</b><span>{{ empty[1] }}</span></div>
      <div v-for="l in lines" :key="l.n" class="log-line" :class="l.gap ? 'gap' : l.level">
        <template v-if="l.gap">{{ l.gap }}</template>
        <template v-else>
          <time class="at" :data-time="l.at" :title="l.ts">{{ l.ts.slice(11, 19) }}</time>
          <span class="level">{{ l.level }}</span>
          <span class="node" :title="l.node">{{ l.node }}</span>
          <span class="event"><b>{{ l.event }}</b><span>{{ l.words }}</span></span>
          <button v-if="l.trace" type="button" class="trace" :title="'Only what belongs to ' + l.trace" @click="$emit('trace', l.trace)">{{ l.trace.slice(0, 8) }}</button>
        </template>
      </div>
    </div>`,
  props: { initial: Array, empty: Array, kept: Number },
  data() {
    return { lines: this.initial || [], follows: true };
  },
  mounted() {
    this.down();
  },
  updated() {
    globalThis.hean?.tick();
  },
  methods: {
    append(lines) {
      this.lines = this.lines.concat(lines).slice(-this.kept);
      if (this.follows) this.$nextTick(this.down);
    },
    replace(lines) {
      this.lines = lines.slice(-this.kept);
      this.follows = true;
      this.$nextTick(this.down);
    },
    down() {
      const pane = this.$refs.pane;
      if (pane) pane.scrollTop = pane.scrollHeight;
    },
    scrolled() {
      // Who reads further up is left there; who comes back to the end goes on with it.
      const pane = this.$refs.pane;
      this.follows = pane.scrollHeight - pane.scrollTop - pane.clientHeight < 40;
    },
  },
};
