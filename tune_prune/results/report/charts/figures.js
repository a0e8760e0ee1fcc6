// Draws a report's figures in the page's colours, and shows the .conf of a point that is clicked.
"use strict";
(() => {
  const { figures, data, dark } = JSON.parse(document.getElementById("report").textContent);
  const options = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
  const darkPage = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 40rem)").matches;
  if (narrow) options.displayModeBar = false;

  // A copy of a figure's data or layout with each colour as it is on a dark page.
  function darken(value) {
    if (typeof value === "string") return Object.hasOwn(dark, value) ? dark[value] : value;
    if (Array.isArray(value)) return value.map(darken);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, darken(part)]));
  }

  function fitNarrow(layout) {
    layout.margin.l = 44;
    layout.margin.r = 8;
    layout.font.size = 12;
    layout.height += 80; // the legend has more lines
  }

  function draw() {
    for (const [name, figure] of Object.entries(figures)) {
      const shown = darkPage.matches ? darken(figure) : figure;
      Plotly.react(`chart-${name}`, shown.data, shown.layout, options);
    }
  }

  for (const figure of Object.values(figures)) {
    if (!narrow) continue;
    fitNarrow(figure.layout);
    // names that have no room are in the table below the chart
    for (const trace of figure.data) if (trace.mode === "markers+text") trace.mode = "markers";
  }
  draw();
  darkPage.addEventListener("change", draw);

  const front = document.getElementById("chart-front");
  if (!front) return;
  const [words, text, copy] = document.getElementById("clicked").children;

  // The .conf of a point that is not on the front; members of the front have files, which hold more.
  function makeConf(point) {
    const [trial, round, , , ...ratios] = point.customdata;
    const pruners = point.text.includes(",") ? point.text.split(",") : ratios.map(() => point.text);
    const pruned = data.layers.map((layer, i) => [layer, ratios[i], pruners[i]]).filter(([, ratio]) => ratio > 0);
    const lines = pruned.length ? [0, 1, 2].map((k) => pruned.map((layer) => layer[k])) : [data.layers, ratios];
    lines[1] = lines[1].map((ratio) => Number(ratio.toFixed(6)));
    const notes = { trial, round, ...data.units[trial] };
    const noted = Object.entries(notes).map(([key, value]) => `# ${key} = ${JSON.stringify(value)}`);
    return [...lines.map((line) => line.join(",")), ...noted, ""].join("\n");
  }

  function showConf({ points }) {
    const point = points.find((one) => one.id in data.confs || (one.customdata && one.text));
    if (!point) return;
    const member = point.id in data.confs;
    words.textContent = member ? `confs/${point.id}.conf` : "As a .conf:";
    text.textContent = member ? data.confs[point.id] : makeConf(point);
    text.hidden = copy.hidden = false;
  }
  for (const name of ["front", "tests"]) document.getElementById(`chart-${name}`)?.on("plotly_click", showConf);
  copy.addEventListener("click", () => copyText(text, copy));
})();
