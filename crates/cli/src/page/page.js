"use strict";
(() => {
  const runs = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  let run = null;
  let at = 0;

  const element = (tag, name, text) => {
    const made = document.createElement(tag);
    if (name) made.className = name;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  // The file has only what changes from state to state.
  const statesOf = (run) => {
    let held = run.rows.map(() => null);
    return run.states.map((changes) => {
      held = held.slice();
      for (const [row, value] of changes) held[row] = value;
      return held;
    });
  };

  const open = (number) => {
    run = runs[number];
    run.held = run.held || statesOf(run);
    $("title").textContent = run.title;
    $("file").textContent = run.file;
    $("badges").replaceChildren();
    const badge = (text, broken) => $("badges").append(element("span", broken ? "badge broken" : "badge", text));
    badge(run.memory === "tso" ? "x86-TSO" : "sequentially consistent");
    if (run.rule) badge("breaks " + run.rule, true);
    if (run.shortest) badge("no run is shorter");
    $("message").textContent = run.message || "";
    $("message").classList.toggle("broken", Boolean(run.rule));
    $("slider").max = run.steps.length;
    $("footer").textContent = run.program + ". " + (run.explanation || "");
    $("choose").value = number;
    lanes();
  };

  const lanes = () => {
    const table = $("lanes");
    table.replaceChildren();
    const head = table.createTHead().insertRow();
    head.append(element("th", "number", ""));
    run.cpus.forEach((name, cpu) => {
      const cell = element("th", "", "CPU" + cpu);
      if (name !== "CPU" + cpu && name !== "P" + cpu) cell.append(element("small", "", name));
      head.append(cell);
    });
    const body = table.createTBody();
    run.steps.forEach((step, index) => {
      const line = body.insertRow();
      line.addEventListener("click", () => go(index + 1));
      const number = line.insertCell();
      number.className = "number";
      number.textContent = index + 1;
      run.cpus.forEach((_, cpu) => {
        const cell = line.insertCell();
        if (cpu !== step.cpu) return;
        step.marks_before.forEach((mark) => cell.append(element("span", "said", mark)));
        const what = element("span", "what mono" + (step.hardware ? " hardware" : ""), step.text);
        if (step.place) what.append(" ", element("span", "place", step.place));
        cell.append(what);
        step.marks_after.forEach((mark) => cell.append(element("span", "said", mark)));
        if (index + 1 === run.steps.length && run.rule) cell.append(element("span", "rule", "✗ " + run.rule));
      });
      if (index + 1 === run.steps.length && run.rule) line.classList.add("breaks");
    });
  };

  // `0x67 [frame 0x8 P W]` is bits and what they mean.
  const valueInto = (cell, text) => {
    const parts = /^(\S+) (\[.*\])$/.exec(text);
    if (parts) {
      cell.append(parts[1] + " ", element("span", "meaning", parts[2]));
    } else {
      cell.append(text);
    }
  };

  const rowOf = (index, before, now) => {
    const { panel, label } = run.rows[index];
    const changed = at > 0 && before !== now;
    const line = element(panel === "word" ? "div" : "tr", panel === "word" ? "word" : "");
    if (changed) line.classList.add(now === null ? "gone" : "changed");
    if (panel === "word") {
      const value = element("span", "value mono");
      if (changed && before !== null && now !== null) value.append(element("span", "was", before));
      valueInto(value, now === null ? before : now);
      line.append(element("span", "label mono", label), value);
      return line;
    }
    if (panel === "tlb") {
      const cell = line.insertCell();
      cell.className = "mono";
      cell.textContent = label;
      const text = now === null ? before : now;
      if (text !== "may be held") cell.append(" ", element("span", "dangling", text.replace("may be held, ", "")));
      return line;
    }
    const name = line.insertCell();
    name.className = "label" + (panel === "cpu" ? "" : " mono");
    name.textContent = label;
    const cell = line.insertCell();
    cell.className = "mono";
    if (changed && before !== null && now !== null && label !== "next") cell.append(element("span", "was", before));
    valueInto(cell, now === null ? before : now);
    return line;
  };

  const rowsOf = (panel, of, tag = "tbody") => {
    const now = run.held[at];
    const before = at > 0 ? run.held[at - 1] : now;
    const body = element(tag);
    run.rows.forEach((row, index) => {
      if (row.panel !== panel || row.of !== of) return;
      if (now[index] === null && before[index] === null) return;
      body.append(rowOf(index, before[index], now[index]));
    });
    return body;
  };

  const part = (card, title, panel, of, empty) => {
    const rows = rowsOf(panel, of);
    if (title && (rows.childElementCount || empty)) card.append(element("h4", "", title));
    if (rows.childElementCount) {
      const table = element("table");
      table.append(rows);
      card.append(table);
    } else if (empty) {
      card.append(element("div", "nothing", empty));
    }
    return rows.childElementCount;
  };

  const show = () => {
    const state = $("state");
    state.replaceChildren();
    const cards = (title) => {
      const box = element("div", "cards");
      state.append(element("h2", "", title), box);
      return box;
    };
    const mover = at > 0 ? run.steps[at - 1].cpu : -1;
    const has = (panel) => run.rows.some((row) => row.panel === panel);
    const cpus = cards("CPUs");
    run.cpus.forEach((name, cpu) => {
      const card = element("div", "card" + (cpu === mover ? " moves" : ""));
      card.id = "cpu" + cpu;
      card.append(element("h3", "", "CPU" + cpu));
      part(card, "", "cpu", "CPU" + cpu);
      if (has("buffer")) part(card, "store buffer", "buffer", "CPU" + cpu, "empty");
      if (has("tlb")) part(card, "TLB and paging-structure caches may hold", "tlb", "CPU" + cpu, "nothing");
      cpus.append(card);
    });
    if (has("table")) {
      const tables = cards("Page tables");
      tables.classList.add("apart");
      const names = new Set(run.rows.filter((row) => row.panel === "table").map((row) => row.of));
      for (const name of names) {
        const card = element("div", "card");
        card.append(element("h3", "", name));
        if (part(card, "", "table", name)) tables.append(card);
      }
    }
    if (has("word")) {
      const words = cards("Words and frames");
      const card = element("div", "card");
      const rows = rowsOf("word", "", "div");
      rows.className = "words";
      card.append(rows);
      words.append(card);
    }
  };

  const go = (step) => {
    at = Math.max(0, Math.min(step, run.steps.length));
    const lines = $("lanes").tBodies[0].rows;
    for (let index = 0; index < lines.length; index++) {
      lines[index].classList.toggle("now", index === at - 1);
      lines[index].classList.toggle("future", index >= at);
    }
    const line = lines[Math.max(0, at - 1)];
    if (line) line.scrollIntoView({ block: "nearest" });
    document.body.classList.toggle("at-end", at === run.steps.length);
    $("slider").value = at;
    $("where").textContent = at === 0 ? "at the start" : "step " + at + " of " + run.steps.length;
    const step_ = at > 0 ? run.steps[at - 1] : null;
    $("doing").textContent = step_ ? "CPU" + step_.cpu + "  " + step_.text : "";
    $("first").disabled = $("back").disabled = at === 0;
    $("last").disabled = $("forward").disabled = at === run.steps.length;
    show();
    const hash = (runs.length > 1 ? "run=" + (runs.indexOf(run) + 1) + "&" : "") + "step=" + at;
    history.replaceState(null, "", "#" + hash);
  };

  const fromHash = () => {
    const asked = new URLSearchParams(location.hash.slice(1));
    const number = (name, least, most) => {
      const found = parseInt(asked.get(name), 10);
      return Number.isNaN(found) ? least : Math.max(least, Math.min(found, most));
    };
    open(number("run", 1, runs.length) - 1);
    go(number("step", 0, run.steps.length));
  };

  runs.forEach((run, number) => {
    const option = element("option", "", run.title + " (" + run.memory + ")" + (run.rule ? ": " + run.rule : ""));
    option.value = number;
    $("choose").append(option);
  });
  $("choose").hidden = runs.length < 2;
  $("choose").addEventListener("change", () => { open(Number($("choose").value)); go(0); });
  $("first").addEventListener("click", () => go(0));
  $("back").addEventListener("click", () => go(at - 1));
  $("forward").addEventListener("click", () => go(at + 1));
  $("last").addEventListener("click", () => go(run.steps.length));
  $("slider").addEventListener("input", () => go(Number($("slider").value)));
  window.addEventListener("hashchange", fromHash);
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target === $("choose")) return;
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, PageDown: 10, PageUp: -10 };
    if (event.key in steps) go(at + steps[event.key]);
    else if (event.key === "Home") go(0);
    else if (event.key === "End") go(run.steps.length);
    else return;
    event.preventDefault();
  });
  fromHash();
})();
