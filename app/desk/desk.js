// The review desk in the browser: shows the pair, takes keys, shows the next pair at once and hands answers to the server.
//
// Texts come as trees of plain data (app/reading) and become nodes by createElement and textContent only: nothing in them is
// markup. Answers wait in an outbox until the server names them done; it survives a reload, and the server counts no showing
// twice, so an answer is neither lost nor doubled when the connection or the server goes away.

const FASTEST_MS = 300; // the engine refuses answers that came sooner after the pair (review/votes.py)
const IDLE_MS = 60000; // without a key, a move or a scroll for so long a person is not reading any more
const RESEND_MS = 2000; // what is sent while the connection is down is gone
// words.js, which stands before this in the same module, has the answers, the keys in words, `make` and `tree`

class Desk {
  constructor(root) {
    this.root = root;
    this.pairs = [];
    this.settled = new Set(); // tokens answered here
    this.outbox = [];
    this.shown = null;
    this.look = { mode: "rendered", diff: false, linked: true };
    try { Object.assign(this.look, JSON.parse(localStorage.getItem("ser-desk") || "{}")); } catch { /* private window */ }
    this.build();
    this.onKey = (event) => this.key(event);
    this.onUp = (event) => { if (event.code === this.held) this.held = null; };
    this.onSeen = () => this.tick();
    // reading takes its time: says so now and then, or the pair would go to somebody else
    setInterval(() => {
      if (this.attached && this.watching && this.shown && performance.now() - this.alive < 10 * IDLE_MS) this.push({ kind: "alive" });
    }, 2 * IDLE_MS);
    this.onAlive = () => { this.tick(); this.alive = performance.now(); };
    this.attach();
  }

  attach() {
    if (this.attached) return;
    this.attached = true;
    document.addEventListener("keydown", this.onKey, true);
    document.addEventListener("keyup", this.onUp, true);
    for (const name of ["visibilitychange"]) document.addEventListener(name, this.onSeen);
    for (const name of ["focus", "blur"]) window.addEventListener(name, this.onSeen);
    for (const name of ["mousemove", "wheel", "touchstart"]) document.addEventListener(name, this.onAlive, { passive: true });
  }

  detach() {
    this.attached = false;
    clearTimeout(this.again);
    document.removeEventListener("keydown", this.onKey, true);
    document.removeEventListener("keyup", this.onUp, true);
    document.removeEventListener("visibilitychange", this.onSeen);
    for (const name of ["focus", "blur"]) window.removeEventListener(name, this.onSeen);
    for (const name of ["mousemove", "wheel", "touchstart"]) document.removeEventListener(name, this.onAlive);
  }

  build() {
    const desk = (this.desk = make("div", "desk"));
    desk.setAttribute("role", "group");
    desk.setAttribute("aria-label", "Review desk");
    const bar = make("div", "bar");
    this.progress = make("span", "progress");
    bar.append(this.progress);
    this.toggles = {};
    for (const [name, label, key] of [
      ["mode", "Rendered", "M"], ["diff", "Differences", "D"], ["linked", "Linked scroll", "L"],
      ["flag", "Flag", "F"], ["note", "Note", "N"], ["guidelines", "Guidelines", "G"], ["help", "Keys", "H"],
    ]) {
      const button = this.button(label, key, "toggle", () => this.toggle(name));
      this.toggles[name] = button;
      bar.append(button);
    }
    this.prompt = make("div", "prompt");
    this.prompt.tabIndex = 0;
    this.prompt.setAttribute("role", "region");
    this.prompt.setAttribute("aria-label", "Prompt");
    this.panes = {};
    const panes = make("div", "panes");
    for (const side of ["left", "right"]) {
      const pane = make("section", "pane");
      pane.setAttribute("aria-label", side === "left" ? "Left response" : "Right response");
      const head = make("div", "name");
      const text = make("div", "text");
      text.tabIndex = 0;
      text.addEventListener("scroll", () => this.scrolled(side), { passive: true });
      pane.append(head, text);
      panes.append(pane);
      this.panes[side] = { head, text };
    }
    this.note = make("textarea", "note");
    this.note.rows = 2;
    this.note.maxLength = 2000;
    this.note.placeholder = "Note on this pair; Esc to go back to the keys";
    this.note.setAttribute("aria-label", "Note on this pair");
    this.note.hidden = true;
    this.choices = make("div", "choices");
    this.buttons = [];
    for (const [verdict, strength, label, key, kind] of VERDICTS) {
      const button = this.button(label, key, "vote " + kind, () => this.answer(verdict, strength));
      button.dataset.verdict = verdict + (strength === 2 ? "-much" : "");
      if (strength === 2) button.setAttribute("aria-label", (verdict === "left" ? "Left" : "Right") + " is much better");
      this.choices.append(button);
      this.buttons.push(button);
    }
    const skip = this.button("Skip", "S", "vote", () => this.askReason());
    skip.dataset.verdict = "skip";
    this.buttons.push(skip);
    this.choices.append(skip);
    this.reasons = make("div", "choices reasons");
    this.reasons.hidden = true;
    this.reasons.append(make("span", "ask", "Why skip?"));
    REASONS.forEach((reason, i) => {
      this.reasons.append(this.button(reason, String(i + 1), "vote", () => this.skip(reason)));
    });
    this.reasons.append(this.button("no reason", "Enter", "vote", () => this.skip("")));
    this.reasons.append(this.button("Back", "Esc", "toggle", () => this.askReason(false)));
    const line = make("div", "line");
    this.last = make("span", "last");
    this.change = this.button("Change my mind", "B", "toggle", () => this.changeMind());
    this.undo = this.button("Undo", "U", "toggle", () => this.undoLast());
    line.append(this.last, this.change, this.undo);
    this.live = make("div", "unseen");
    this.live.setAttribute("aria-live", "polite");
    this.overlay = make("div", "overlay");
    this.overlay.setAttribute("role", "dialog");
    this.overlay.hidden = true;
    this.empty = make("div", "empty");
    this.body = make("div", "body");
    this.body.append(this.prompt, panes, this.note, this.choices, this.reasons);
    desk.append(bar, this.empty, this.body, line, this.live, this.overlay);
    this.root.append(desk);
  }

  button(label, key, kind, act) {
    const button = make("button", kind);
    button.type = "button";
    button.append(make("span", "label", label), make("kbd", "", key));
    button.setAttribute("aria-keyshortcuts", key.replace("⇧", "Shift+"));
    button.addEventListener("click", () => { act(); button.blur(); });
    return button;
  }

  // ---- what the server says

  update(data, send) {
    this.send = send;
    this.attach();
    if (data.key !== this.name) {
      this.name = data.key; // run, person and queue: nothing of another one may be shown or sent
      this.pairs = [];
      this.shown = null;
      this.settled = new Set();
      this.outbox = this.kept();
      if (this.outbox.length) setTimeout(() => this.post(), 0);
    }
    const before = this.outbox.length;
    const done = new Set(data.done);
    this.outbox = this.outbox.filter((entry) => !done.has(entry.id));
    if (this.outbox.length !== before) {
      this.keep();
      this.tries = 0;
    }
    this.data = data;
    this.offer(data.verdicts);
    for (const entry of this.outbox) if (entry.token) this.settled.add(entry.token);
    const front = data.front;
    if (front) this.settled.delete(front);
    this.pairs = data.pairs.filter((pair) => !this.settled.has(pair.token));
    if (front) this.pairs.sort((a, b) => (b.token === front) - (a.token === front));
    const now = this.shown && this.pairs.find((pair) => pair.token === this.shown.token);
    if (now && (!front || this.shown.token === front)) {
      if (now.size !== this.shown.size) this.show(now, true);
    } else {
      this.show(this.pairs[0] || null);
    }
    this.tell();
  }

  offer(verdicts) { // only these answers, and no word on how much better; without a list everything
    this.verdicts = verdicts;
    for (const button of this.buttons) button.hidden = !!verdicts && !verdicts.includes(button.dataset.verdict);
    this.change.hidden = !!verdicts;
  }

  tell() {
    this.progress.textContent = this.data.progress || "";
    if (!this.outbox.length || this.data.trouble) this.last.textContent = this.data.last || this.data.hint;
    this.last.classList.toggle("trouble", !!this.data.trouble);
    this.change.disabled = !this.data.changeable || this.outbox.length > 0;
    this.toggles.guidelines.hidden = !this.data.guidelines;
    if (this.data.trouble && !this.outbox.length) this.live.textContent = this.data.last;
  }

  // ---- drawing

  show(pair, again) {
    this.shown = pair;
    this.desk.dataset.token = pair ? pair.token : "";
    this.body.hidden = !pair;
    this.empty.hidden = !!pair;
    if (!pair) {
      this.empty.textContent = this.outbox.length ? "One moment …" : (this.data && this.data.empty) || "";
      return;
    }
    if (!again) {
      this.at = this.ticked = this.alive = performance.now();
      this.active = 0;
      this.flagged = false;
      this.note.value = "";
      this.note.hidden = true;
      this.reasons.hidden = true;
      this.choices.hidden = false;
      this.live.textContent = "Next pair.";
    }
    this.draw();
    if (!again) {
      for (const side of ["left", "right"]) this.panes[side].text.scrollTop = 0;
      this.prompt.scrollTop = 0;
    }
  }

  draw() {
    const pair = this.shown;
    if (!pair) return;
    const { view } = pair;
    const rendered = this.look.mode === "rendered" && !this.look.diff;
    const body = (part) => (this.look.diff && part.diff) || (rendered && part.rendered) || part.raw;
    const isRaw = (part) => !(rendered && part.rendered) ;
    this.prompt.replaceChildren();
    this.prompt.hidden = !view.prompt.chars;
    this.prompt.dir = view.prompt.dir;
    if (view.prompt.earlier) this.prompt.append(make("div", "more", `… ${view.prompt.earlier} earlier turns not shown`));
    for (const turn of view.prompt.turns) {
      const box = make("div", turn.role ? "turn role-" + turn.role : "turn");
      if (turn.role) box.append(make("div", "name", turn.role));
      const text = rendered && turn.rendered ? turn.rendered : turn.raw;
      box.append(tree(text, make("div", rendered && turn.rendered ? "rich" : "raw")));
      if (turn.hidden) box.append(make("div", "more", `… ${turn.hidden.toLocaleString()} characters not shown`));
      this.prompt.append(box);
    }
    for (const side of ["left", "right"]) {
      const part = view[side];
      const { head, text } = this.panes[side];
      head.textContent = `${side === "left" ? "Left" : "Right"} · ${part.words.toLocaleString()} ${part.words === 1 ? "word" : "words"}`;
      text.replaceChildren(tree(body(part), make("div", isRaw(part) ? "raw" : "rich")));
      text.dir = part.dir;
      if (!part.chars) text.append(make("div", "more", "(empty)"));
      if (part.hidden && pair.most) {
        text.append(make("div", "more", `… ${part.hidden.toLocaleString()} characters are not shown here; the export has them`));
      } else if (part.hidden) {
        const more = make("button", "toggle", `Show more: ${part.hidden.toLocaleString()} characters are folded`);
        more.type = "button";
        more.addEventListener("click", () => this.push({ kind: "more", token: null, of: this.shown.token }));
        text.append(more);
      }
    }
    const canRender = view.left.rendered || view.right.rendered || view.prompt.turns.some((turn) => turn.rendered);
    this.state("mode", rendered, !canRender || this.look.diff);
    this.state("diff", this.look.diff, !view.left.diff);
    this.state("linked", this.look.linked);
    this.state("flag", this.flagged);
    this.state("note", !this.note.hidden || !!this.note.value);
  }

  state(name, on, disabled) {
    this.toggles[name].setAttribute("aria-pressed", String(!!on));
    this.toggles[name].disabled = !!disabled;
  }

  scrolled(side) {
    if (!this.look.linked || this.following === side) { this.following = null; return; }
    const from = this.panes[side].text;
    const other = side === "left" ? "right" : "left";
    const to = this.panes[other].text;
    const share = from.scrollTop / Math.max(1, from.scrollHeight - from.clientHeight);
    const wanted = Math.round(share * (to.scrollHeight - to.clientHeight));
    if (Math.abs(to.scrollTop - wanted) > 1) { this.following = other; to.scrollTop = wanted; }
  }

  tick() {
    const now = performance.now();
    if (this.watching && this.ticked !== undefined) this.active += Math.max(0, Math.min(now, this.alive + IDLE_MS) - this.ticked);
    this.ticked = now;
    this.watching = document.visibilityState === "visible" && document.hasFocus();
    if (!this.watching) this.held = null; // its release may have gone elsewhere
  }

  // ---- what the person does

  key(event) {
    this.onAlive();
    const at = event.composedPath()[0];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const take = () => { event.preventDefault(); event.stopImmediatePropagation(); };
    if (at === this.note) {
      if (event.key === "Escape" || (event.key === "Enter" && !event.shiftKey)) { take(); this.toggle("note"); }
      return;
    }
    const ticked = at.type === "checkbox" || at.type === "radio"; // takes no letters
    if (at.isContentEditable || (/^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName || "") && !ticked)) return;
    if (!this.desk.isConnected || document.querySelector('[role="dialog"][aria-modal="true"]')) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const digit = (event.code || "").match(/^(?:Digit|Numpad)([0-9])$/);
    if (!this.overlay.hidden) {
      if (["Escape", "?", "h", "g", "Enter"].includes(key)) { take(); this.overlay.hidden = true; }
      return;
    }
    if (key === "Enter" || key === " ") {
      if (this.reasons.hidden || at.tagName === "BUTTON") return; // a focused button is pressed as anywhere else
    }
    if (key === "j" || key === "k") { // scrolling may repeat
      take();
      const { text } = this.panes.left;
      text.scrollBy({ top: (key === "j" ? 0.8 : -0.8) * text.clientHeight });
      if (!this.look.linked) this.panes.right.text.scrollBy({ top: (key === "j" ? 0.8 : -0.8) * text.clientHeight });
      return;
    }
    const acts = this.reasons.hidden ? this.keys(digit && digit[1], event.shiftKey, key) : this.reasonKeys(digit && digit[1], key);
    if (!acts) return;
    take();
    if (event.repeat || (event.code && this.held === event.code)) return; // a held key answers one pair, however long
    this.held = event.code;
    acts();
  }

  keys(digit, shift, key) {
    if (digit === "1") return () => this.answer("left", shift ? 2 : 1);
    if (digit === "2") return () => this.answer("right", shift ? 2 : 1);
    if (key === "!") return () => this.answer("left", 2);
    if (digit === "3" || digit === "4" || digit === "0") {
      return () => this.answer({ 3: "tie", 4: "both_good", 0: "both_bad" }[digit], null);
    }
    const plain = {
      s: () => this.askReason(), u: () => this.undoLast(), b: () => this.changeMind(), f: () => this.toggle("flag"),
      n: () => this.toggle("note"), m: () => this.toggle("mode"), d: () => this.toggle("diff"),
      l: () => this.toggle("linked"), g: () => this.toggle("guidelines"), h: () => this.toggle("help"),
      "?": () => this.toggle("help"),
    };
    return plain[key];
  }

  reasonKeys(digit, key) {
    if (digit && +digit >= 1 && +digit <= REASONS.length) return () => this.skip(REASONS[+digit - 1]);
    if (key === "Enter") return () => this.skip("");
    if (key === "Escape" || key === "s") return () => this.askReason(false);
    return null;
  }

  toggle(name) {
    if (this.toggles[name].disabled || this.toggles[name].hidden) return;
    if (name === "help" || name === "guidelines") return this.open(name);
    if (name === "flag") { this.flagged = !this.flagged; return this.draw(); }
    if (name === "note") {
      this.note.hidden = !this.note.hidden;
      if (!this.note.hidden) this.note.focus();
      else this.note.blur();
      return this.draw();
    }
    if (name === "mode") this.look.mode = this.look.mode === "rendered" ? "raw" : "rendered";
    else this.look[name] = !this.look[name];
    try { localStorage.setItem("ser-desk", JSON.stringify(this.look)); } catch { /* private window */ }
    this.draw();
  }

  open(name) {
    const box = make("div", "sheet");
    box.append(make("div", "title", name === "help" ? "Keys" : `Guidelines, version ${this.data.guidelines.version}`));
    if (name === "help") {
      const table = make("dl");
      for (const [keys, what, full] of HELP) {
        if (!full || !this.verdicts) table.append(make("dt", "", keys), make("dd", "", what));
      }
      box.append(table);
    } else {
      box.append(tree(this.data.guidelines.nodes, make("div", "rich")));
    }
    const close = this.button("Close", "Esc", "toggle", () => { this.overlay.hidden = true; });
    box.append(close);
    this.overlay.setAttribute("aria-label", name === "help" ? "Keys" : "Guidelines");
    this.overlay.replaceChildren(box);
    this.overlay.hidden = false;
    close.focus();
  }

  askReason(on = true) {
    if (!this.shown) return;
    this.reasons.hidden = !on;
    this.choices.hidden = on;
  }

  skip(reason) { this.answer("skip", null, reason); }

  answer(verdict, strength, reason = "") {
    const now = performance.now();
    if (!this.shown || now - this.at < FASTEST_MS) return;
    if (this.verdicts && !this.verdicts.includes(verdict)) return;
    if (this.verdicts) strength = null;
    this.tick();
    const entry = {
      kind: "vote", id: crypto.getRandomValues(new Uint32Array(2)).join("-"), token: this.shown.token, verdict, strength,
      reason, note: this.note.value, flagged: this.flagged, seen_ms: Math.round(now - this.at),
      active_ms: Math.round(this.active), guidelines: this.data.guidelines ? this.data.guidelines.version : 0,
    };
    this.settled.add(entry.token);
    this.pairs = this.pairs.filter((pair) => pair.token !== entry.token);
    this.last.textContent = `${SAID[verdict]}.`;
    this.last.classList.remove("trouble");
    this.outbox.push(entry);
    this.show(this.pairs[0] || null);
    this.flush();
  }

  push(entry) {
    this.outbox.push({ id: crypto.getRandomValues(new Uint32Array(2)).join("-"), ...entry });
    this.flush();
  }

  undoLast() { this.push({ kind: "undo", desk: this.name }); }

  changeMind() { if (!this.change.disabled) this.push({ kind: "change", of: this.data.changeable }); }

  flush() { this.keep(); this.post(); }

  post() {
    clearTimeout(this.again);
    if (!this.send || !this.outbox.length) return;
    this.send("entries", this.outbox.slice());
    this.tries = Math.min(4, (this.tries || 0) + 1);
    this.again = setTimeout(() => this.post(), this.tries * RESEND_MS);
  }

  keep() {
    try { sessionStorage.setItem("ser-outbox " + this.name, JSON.stringify(this.outbox)); } catch { /* full or private */ }
  }

  kept() {
    try { return JSON.parse(sessionStorage.getItem("ser-outbox " + this.name) || "[]"); } catch { return []; }
  }
}

const desks = new WeakMap();

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const place = parentElement.querySelector("#desk");
  let desk = desks.get(place);
  if (!desk) desks.set(place, (desk = new Desk(place)));
  desk.update(data, setTriggerValue);
  const turn = (desk.turn = (desk.turn || 0) + 1);
  // Streamlit clears an older drawing away when a newer one is there already: that must not take its keys
  return () => { if (desk.turn === turn) desk.detach(); };
}
