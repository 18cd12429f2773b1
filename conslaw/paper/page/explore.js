// The runs of one width and loss: `drift`, `imbalance`, `sharpness` hold one row for each learning rate, one entry for each time;
// `measured` and `predicted` are the drift since the prediction starts, null before it and where there is none.
const { rates, times, widths, runs } = JSON.parse(document.getElementById("data").textContent);
const [choice, range] = document.querySelectorAll("form");
const dark = matchMedia("(prefers-color-scheme: dark)");
const last = times.length - 1;
const counted = times.map((t) => t + 1); // so that the start has a place on a logarithmic axis

function run() {
  return runs.find((r) => r.loss === choice.loss.value && r.width === widths[choice.width.value]);
}

function layout(x, y, more = {}) {
  const colour = getComputedStyle(document.body);
  const axis = (is) => ({ gridcolor: colour.getPropertyValue("--line"), exponentformat: "power", ...(is.type === "log" ? { dtick: 1 } : {}) });
  return {
    margin: { l: 70, r: 15, t: 15, b: 50 }, showlegend: false, height: 320, dragmode: false,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: colour.color },
    xaxis: { ...axis(x), ...x, title: { text: x.title } }, yaxis: { ...axis(y), ...y, title: { text: y.title } }, ...more,
  };
}

function draw(id, traces, plan) {
  return Plotly.react(id, traces, plan, { displayModeBar: false, responsive: true });
}

const positive = (values) => values.map((value) => (value ? Math.abs(value) : null));
const line = (x, y, colour, more = {}) => ({ x, y, mode: "lines", line: { color: colour, width: 2 }, hoverinfo: "x+y", ...more });

function showRun() {
  const of = run(), index = Number(choice.rate.value), eta = rates[index];
  document.getElementById("width_shown").textContent = of.width;
  document.getElementById("rate_shown").textContent = eta;
  const later = times.slice(1);
  const scaled = of.drift.map((row, i) =>
    line(later.map((t) => rates[i] * t), positive(row.slice(1)).map((v) => (v < 1e4 ? v && v / rates[i] : null)), // what blows up leaves the picture
      i === index ? "#D55E00" : "rgba(128,128,128,.45)", { mode: i === index ? "lines+markers" : "lines" }));
  draw("scaled", scaled, layout({ type: "log", title: "ηt", dtick: 2 }, { type: "log", title: "|ΔC(t)| / η", dtick: 2 }));
  draw("imbalance", [line(counted, of.imbalance[index], "#0072B2", { mode: "lines+markers" })],
    layout({ title: "t + 1, steps", type: "log" }, { title: "δ(t)" }));
  const curve = of.sharpness[index].map((v) => v && v * eta);
  draw("sharpness", [line(counted, curve, "#0072B2", { mode: "lines+markers" }), line([1, times[last] + 1], [2, 2], "#888888", { line: { dash: "dash", color: "#888888" } })],
    layout({ title: "t + 1, steps", type: "log" }, { title: "ηλ_max(t)", type: "log" }));
  const drift = of.drift[index][last];
  document.getElementById("run").textContent = drift === null
    ? `At η = ${eta} this network blows up.`
    : `At η = ${eta} the drift is ΔC(T) = ${drift.toPrecision(3).replace("-", "−")}; ηλ_max starts at ${curve[0].toPrecision(2)} and ends at ${curve[last].toPrecision(2)}.`;
}

const isPredicted = (of, index) => of.predicted[index].some((v) => v !== null);

function showPrediction() {
  const of = run(), index = Number(choice.rate.value), eta = rates[index], shown = isPredicted(of, index);
  const picture = document.getElementById("predicted"), text = document.getElementById("prediction");
  picture.hidden = !shown;
  if (!shown) {
    const why = of.drift[index][last] === null ? "it blows up"
      : of.loss === "mse" ? "its ηλ_max is below 2 for most of the time, where the weights do not swing" : "under cross-entropy the sharpness falls, and no run stays at the edge";
    text.textContent = `The run at η = ${eta}, m = ${of.width} is not among them: ${why}.`;
    return;
  }
  const start = of.predicted[index].findIndex((v) => v !== null);
  const [t, measured, predicted] = [times, of.measured[index], of.predicted[index]].map((values) => values.slice(start));
  const off = measured.map((v, i) => (i ? Math.abs(predicted[i] / v - 1) : 0)), percent = (x) => `${(100 * x).toFixed(x < 0.1 ? 1 : 0)} %`;
  text.textContent = `From step ${t[0]} on C drifts by ${measured.at(-1).toPrecision(3)}; ${predicted.at(-1).toPrecision(3)} were predicted, which is off by ${percent(off.at(-1))}. `
    + `On the way it is off by up to ${percent(Math.max(...off))}: the flow does not know when a run bursts. What happens before step ${t[0]} is not predicted.`;
  const thin = getComputedStyle(document.body).color, broad = dark.matches ? "rgba(86,180,233,.5)" : "rgba(0,114,178,.45)", at = t.length - 3;
  const named = (text, y, more) => ({ text, x: t[at], y, showarrow: false, ...more });
  draw("predicted", [
    line(t, measured, broad, { line: { color: broad, width: 8 } }),
    line(t, predicted, thin, { line: { color: thin, width: 1.2 } }),
  ], layout({ title: "t, steps" }, { title: `ΔC(t) − ΔC(${t[0]})` }, { annotations: [
    named("measured (broad)", measured[at], { xanchor: "left", xshift: 10, yshift: -18 }),
    named("predicted (thin)", predicted[at], { xanchor: "right", xshift: -10, yshift: 18 }),
  ] }));
}

function offerEdge() {
  const place = document.getElementById("at_edge");
  for (const of of runs) {
    rates.forEach((eta, index) => {
      if (!isPredicted(of, index)) return;
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: `m = ${of.width}, η = ${eta}` });
      button.addEventListener("click", () => {
        [choice.loss.value, choice.width.value, choice.rate.value] = [of.loss, widths.indexOf(of.width), index];
        choice.dispatchEvent(new Event("input"));
      });
      place.append(button);
    });
  }
}

function fitted(points) {
  const n = points.length, mean = (f) => points.reduce((sum, p) => sum + f(p), 0) / n;
  const x = mean((p) => p[0]), y = mean((p) => p[1]);
  const xy = mean((p) => (p[0] - x) * (p[1] - y)), xx = mean((p) => (p[0] - x) ** 2), yy = mean((p) => (p[1] - y) ** 2);
  return { slope: xy / xx, offset: y - (xy / xx) * x, r2: (xy * xy) / (xx * yy) };
}

function showWindow() {
  const of = run();
  let [from, to] = [Number(range.from.value), Number(range.to.value)].sort((a, b) => a - b);
  document.getElementById("from_shown").textContent = rates[from];
  document.getElementById("to_shown").textContent = rates[to];
  const drifts = of.drift.map((row) => (row[last] ? Math.abs(row[last]) : null));
  const points = rates.map((eta, i) => [Math.log(eta), drifts[i] && Math.log(drifts[i])]).filter((p, i) => i >= from && i <= to && p[1] !== null);
  const traces = [{ x: rates, y: drifts, mode: "markers", marker: { color: "#0072B2", size: 9 }, hoverinfo: "x+y" }];
  let text = "A line takes at least three learning rates whose run does not blow up.";
  if (points.length > 2) {
    const { slope, offset, r2 } = fitted(points);
    const ends = [points[0], points.at(-1)].map((p) => Math.exp(p[0]));
    traces.push(line(ends, ends.map((x) => Math.exp(offset + slope * Math.log(x))), "#D55E00"));
    text = `α = ${slope.toFixed(3)}, R² = ${r2.toFixed(4)}, from ${points.length} learning rates. The paper has α = 1.16 from 0.0001 to 1.`;
  }
  document.getElementById("fit").textContent = text;
  const shape = { type: "rect", xref: "x", yref: "paper", x0: rates[from] / 1.2, x1: rates[to] * 1.2, y0: 0, y1: 1, fillcolor: "#D55E00", opacity: 0.12, line: { width: 0 } };
  draw("exponent", traces, layout({ type: "log", title: "learning rate η" }, { type: "log", title: "|ΔC(T)|" }, { shapes: [shape], dragmode: "select", selectdirection: "h", height: 400 }));
}

choice.width.max = widths.length - 1;
choice.width.value = widths.indexOf(64);
for (const slider of [choice.rate, range.from, range.to]) slider.max = rates.length - 1;
choice.rate.value = Math.floor(rates.length / 2);
range.from.value = 0;
range.to.value = rates.length - 1;
const showAll = () => { showRun(); showPrediction(); showWindow(); };
choice.addEventListener("input", showAll);
range.addEventListener("input", showWindow);
dark.addEventListener("change", showAll);
offerEdge();
showAll();
document.getElementById("exponent").on("plotly_selected", (event) => {
  if (!event?.range) return;
  const inside = rates.map((eta, i) => i).filter((i) => rates[i] >= event.range.x[0] && rates[i] <= event.range.x[1]);
  if (!inside.length) return;
  [range.from.value, range.to.value] = [inside[0], inside.at(-1)];
  showWindow();
});
