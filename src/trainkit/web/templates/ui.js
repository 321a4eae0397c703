"use strict";
// Three views by the address: #/ is the table of runs, #/run/ID a run, #/compare/ID,ID,... several runs in one chart.

const content = document.getElementById("content");
const state = document.getElementById("state");
let streams = [];

function node(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

function listen(address, receive) {
  const stream = new EventSource(address);
  stream.onmessage = (event) => { state.textContent = ""; receive(JSON.parse(event.data)); };
  stream.onerror = () => { state.textContent = "No connection: is trainkit ui still running? Trying again."; };
  streams.push(stream);
}

async function fetched(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(await response.json().then((answer) => answer.error, () => response.statusText));
  return response.json();
}

const encoded = (id) => id.split("/").map(encodeURIComponent).join("/");
const seconds = (value) => value === null ? "" : value < 60 ? `${value.toFixed(1)} s` : value < 3600 ? `${(value / 60).toFixed(1)} min` : `${(value / 3600).toFixed(1)} h`;
const isShare = (metric) => /accuracy|precision|recall|f1|auc/.test(metric);
const score = (value, metric) => value === null ? "" : isShare(metric) ? `${(100 * value).toFixed(2)} %` : short(value);

function badge(status) {
  const word = status.split(/[ :(]/)[0];
  const kind = { finished: "good", running: "running", failed: "bad", interrupted: "warn" }[word] || "warn";
  return node("span", { class: `badge ${kind}`, title: status }, word);
}

// Why a run failed or is unknown, without the path of its folder.
const reason = (row) => row.status.replace(/^\w+: /, "").replace(/^.*\/(?=run\.json)/, "");

// --- the table of runs -------------------------------------------------------------------------------------------

const COLUMNS = [
  ["folder", "run"], ["group", "sweep"], ["status", "status"], ["score", "score"], ["monitor", "of"], ["dataset", "data"],
  ["model", "model"], ["optimizer", "optimizer"], ["lr", "learning rate"], ["epochs", "epochs"], ["seconds", "time"],
];
const NUMBERS = new Set(["score", "lr", "epochs", "seconds"]);
const table = { rows: new Map(), chosen: new Set(), sort: "started", down: true, words: "" };

async function showRuns() {
  document.title = "trainkit: runs";
  document.getElementById("title").textContent = "Runs";
  const found = await fetched("/api/runs");
  document.getElementById("where").textContent = found.root;
  table.rows = new Map(found.runs.map((row) => [row.id, row]));
  const search = node("input", { type: "search", placeholder: "Filter: words of a row", "aria-label": "Filter", value: table.words });
  const compare = node("button", { id: "compare", disabled: true }, "Compare");
  compare.addEventListener("click", () => { location.hash = `#/compare/${[...table.chosen].map(encodeURIComponent).join(",")}`; });
  const head = node("tr", {}, node("th", {}, ""), ...COLUMNS.map(([key, title]) => {
    const button = node("button", { type: "button" }, title);
    button.addEventListener("click", () => {
      [table.sort, table.down] = [key, table.sort === key ? !table.down : NUMBERS.has(key)];
      drawRows();
    });
    return node("th", { "data-key": key, class: NUMBERS.has(key) ? "number" : null, scope: "col" }, button);
  }));
  search.addEventListener("input", () => { table.words = search.value; drawRows(); });
  const body = node("tbody", { id: "rows" });
  content.replaceChildren(
    node("div", { class: "tools" }, search, compare, node("span", { class: "soft", id: "count" })),
    node("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Runs" }, node("table", { class: "runs" }, node("thead", {}, head), body)),
  );
  drawRows();
  listen("/api/changes", (change) => {
    change.rows.forEach((row) => table.rows.set(row.id, row));
    change.gone.forEach((id) => { table.rows.delete(id); table.chosen.delete(id); });
    drawRows();
  });
}

function drawRows() {
  const words = table.words.toLowerCase().split(/\s+/).filter(Boolean);
  const text = (row) => COLUMNS.map(([key]) => row[key]).join(" ").toLowerCase();
  const rows = [...table.rows.values()].filter((row) => words.every((word) => text(row).includes(word)));
  const sign = table.down ? -1 : 1;
  rows.sort((a, b) => {
    const [x, y] = [a[table.sort], b[table.sort]];
    if ((x ?? "") === "" || (y ?? "") === "") return ((x ?? "") === "") - ((y ?? "") === "");
    return sign * (x < y ? -1 : x > y ? 1 : 0);
  });
  for (const head of document.querySelectorAll("th[data-key]")) {
    if (head.dataset.key === table.sort) head.setAttribute("aria-sort", table.down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
  const body = document.getElementById("rows"), held = document.activeElement, of = held.closest("#rows tr");
  const parts = (row) => [...row.querySelectorAll("a, input")];
  const place = of && parts(of).indexOf(held);
  body.replaceChildren(...rows.map(drawRow));
  const anew = of && [...body.children].find((row) => row.dataset.id === of.dataset.id);
  if (anew) parts(anew)[place]?.focus({ preventScroll: true }); // else the keyboard is back at the top of the page
  const all = table.rows.size;
  document.getElementById("count").textContent = all === 0 ? "No runs here yet: trainkit train CONFIG makes one."
    : rows.length === all ? `${all} ${all === 1 ? "run" : "runs"}` : `${rows.length} of ${all} runs`;
  document.getElementById("compare").disabled = table.chosen.size < 2;
}

function drawRow(row) {
  const choose = node("input", { type: "checkbox", "aria-label": `compare ${row.folder}`, checked: table.chosen.has(row.id) });
  choose.addEventListener("change", () => {
    table.chosen[choose.checked ? "add" : "delete"](row.id);
    document.getElementById("compare").disabled = table.chosen.size < 2;
  });
  const cells = {
    folder: node("a", { href: `#/run/${encoded(row.id)}` }, row.folder),
    group: row.page ? node("a", { href: `/file/${encoded(row.page)}` }, row.group) : row.group,
    status: node("div", {}, badge(row.status), ...(row.status.includes(":") ? [node("div", { class: "why soft" }, reason(row))] : [])),
    score: score(row.score, row.monitor),
    lr: row.lr === null ? "" : short(row.lr),
    seconds: seconds(row.seconds),
  };
  return node("tr", { "data-id": row.id }, node("td", {}, choose),
    ...COLUMNS.map(([key]) => node("td", { class: NUMBERS.has(key) ? "number" : null }, cells[key] ?? String(row[key] ?? ""))));
}

// --- curves ------------------------------------------------------------------------------------------------------

// The charts of one or several runs; a metric of training is dashed, that of validation is not.
class Curves {
  constructor(box) {
    this.box = box;
    this.charts = new Map();
    this.perEpoch = new Map(); // steps, by run
  }

  chart(name) {
    if (!this.charts.has(name)) {
      const chart = new Chart(name.replaceAll("_", " "));
      this.charts.set(name, chart);
      this.box.append(chart.figure);
    }
    return this.charts.get(name);
  }

  // Draws the records of runs as they come; `changed` is called with a run whose row in the table is another one.
  follow(ids, changed) {
    const rows = new Map();
    listen(`/api/records?${ids.map((id) => `run=${encodeURIComponent(id)}`).join("&")}`, (message) => {
      this.put(message, ids.length > 1 ? letter(ids.indexOf(message.run)) : "", ids.indexOf(message.run));
      if (message.row === null) state.textContent = `${message.run} is not there any more.`;
      else if (rows.get(message.run) !== JSON.stringify(message.row)) changed(message.run);
      rows.set(message.run, JSON.stringify(message.row));
    });
  }

  put({ run: id, anew, records }, label, place) {
    const put = (metric, key, name, training, x, y) => {
      if (Number.isFinite(x) && Number.isFinite(y)) this.chart(metric).add(`${id} ${key}`, name, label ? place : training ? 0 : 1, training).points.push([x, y]);
    };
    if (anew) {
      for (const chart of this.charts.values()) {
        for (const key of chart.series.keys()) if (key.startsWith(`${id} `)) chart.series.delete(key);
      }
    }
    for (const record of records) {
      if (record.type === "epoch") {
        this.perEpoch.set(id, record.step / record.epoch);
        for (const [key, value] of Object.entries(record)) {
          const [, split, metric] = key.match(/^(train|val)_(?!seconds|loss_max)(.+)$/) || [];
          if (metric) put(metric, key, label ? `${label} ${split}` : split === "val" ? "validation" : "training", split === "train", record.epoch, value);
        }
        put("learning_rate", "lr", label || "at the end of the epoch", false, record.epoch, record.lr);
      } else if (record.type === "step" && this.perEpoch.has(id)) {
        put("loss of the batches", "steps", label || "training", true, record.step / this.perEpoch.get(id), record.mean_loss ?? record.loss);
      }
    }
    for (const chart of this.charts.values()) chart.draw();
  }
}

const letter = (place) => String.fromCharCode(65 + (place % 26));

async function showRun(id) {
  const first = await fetched(`/api/run/${encoded(id)}`);
  document.title = `trainkit: ${first.folder}`;
  document.getElementById("title").textContent = first.folder;
  document.getElementById("where").replaceChildren(node("a", { href: "#/" }, "all runs"));
  const card = (name, value) => node("div", {}, node("dt", {}, name), node("dd", {}, value));
  const cards = node("dl", { class: "cards" }), charts = node("div", { class: "charts" }), why = node("div"), below = node("div");
  const file = (name) => `/file/${encoded(id)}/-/${encoded(name)}`;
  let drawn = "";
  const draw = (run) => {
    cards.replaceChildren(card("status", badge(run.status)), card(run.monitor || "score", score(run.score, run.monitor) || "–"),
      card("epochs", String(run.epochs)), card("time", seconds(run.seconds) || "–"), card("data", run.dataset || "–"), card("model", run.model || "–"));
    why.replaceChildren(...[...(run.status.includes(":") ? [run.status] : []), ...run.problems].map((one) => node("p", {}, one)));
    const now = JSON.stringify([run.findings, run.pictures, run.files, run.config]);
    if (now === drawn) return;
    drawn = now;
    const found = run.findings.map((one) => node("article", { class: "finding" }, node("h3", {}, one.title), node("p", {}, one.evidence), node("p", {}, one.suggestion),
      ...(one.set.length ? [node("pre", {}, one.set.join("\n"))] : [])));
    const sections = [node("section", {}, node("h2", {}, "Findings"), ...(found.length ? found : [node("p", { class: "soft" }, run.config.length ? "Nothing stands out." : "Not looked for: the config of this run is not known.")]))];
    if (run.pictures.length) {
      sections.push(node("section", {}, node("h2", {}, "Pictures"), node("div", { class: "plots" }, ...run.pictures.map((name) => node("a", { href: file(name) }, node("img", { src: file(name), alt: name, loading: "lazy" }))))));
    }
    sections.push(node("section", {}, node("h2", {}, "Files"), node("p", {}, ...run.files.flatMap((name) => [node("a", { href: file(name) }, name), " "]))));
    sections.push(node("section", {}, node("h2", {}, "Config"), node("div", { class: "scroll" }, node("table", { class: "config text" },
      node("thead", {}, node("tr", {}, ...["key", "value", "from"].map((name) => node("th", { scope: "col" }, name)))),
      node("tbody", {}, ...run.config.map((row) => node("tr", {}, ...row.map((cell) => node("td", {}, cell)))))))));
    below.replaceChildren(...sections);
  };
  draw(first);
  content.replaceChildren(cards, why, node("section", {}, node("h2", {}, "Curves"), charts), below);
  new Curves(charts).follow([id], async () => draw(await fetched(`/api/run/${encoded(id)}`)));
}

async function showComparison(ids) {
  document.title = "trainkit: comparison";
  document.getElementById("title").textContent = `${ids.length} runs`;
  document.getElementById("where").replaceChildren(node("a", { href: "#/" }, "all runs"));
  const runs = await Promise.all(ids.map((id) => fetched(`/api/run/${encoded(id)}`)));
  const charts = node("div", { class: "charts" }), differences = node("div", { class: "scroll" });
  const draw = () => {
    const configs = runs.map((run) => new Map(run.config.map(([key, value]) => [key, value])));
    const keys = [...new Set(configs.flatMap((one) => [...one.keys()]))];
    const differ = keys.filter((key) => key !== "name" && new Set(configs.map((one) => one.get(key) ?? "")).size > 1);
    const rows = [["score", ...runs.map((run) => score(run.score, run.monitor))], ["time", ...runs.map((run) => seconds(run.seconds))],
      ...differ.map((key) => [key, ...configs.map((one) => one.get(key) ?? "")])];
    const heads = runs.map((run, place) => node("th", { scope: "col" }, `${letter(place)} `, node("a", { href: `#/run/${encoded(ids[place])}` }, run.folder)));
    differences.replaceChildren(node("table", { class: "text" }, node("thead", {}, node("tr", {}, node("th", {}, ""), ...heads)),
      node("tbody", {}, ...rows.map(([name, ...values]) => node("tr", {}, node("th", { scope: "row" }, name), ...values.map((value) => node("td", {}, value)))))));
  };
  draw();
  content.replaceChildren(node("section", {}, node("h2", {}, "What differs"), differences), node("section", {}, node("h2", {}, "Curves"), charts));
  new Curves(charts).follow(ids, async (id) => {
    runs[ids.indexOf(id)] = await fetched(`/api/run/${encoded(id)}`);
    draw();
  });
}

// --- which view --------------------------------------------------------------------------------------------------

async function show() {
  streams.forEach((stream) => stream.close());
  streams = [];
  state.textContent = "";
  const [, view, rest] = location.hash.match(/^#\/(run|compare)\/(.+)$/) || [];
  try {
    if (view === "run") await showRun(decodeURIComponent(rest));
    else if (view === "compare") await showComparison(rest.split(",").map(decodeURIComponent));
    else await showRuns();
  } catch (error) {
    document.getElementById("title").textContent = document.title = "trainkit";
    document.getElementById("where").textContent = "";
    content.replaceChildren(node("p", {}, `${error.message}. `, node("a", { href: "#/" }, "All runs")));
  }
}

window.addEventListener("hashchange", show);
show();
