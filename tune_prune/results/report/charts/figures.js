// Draws a report's figures, and shows the .conf of a point that is clicked.
"use strict";
(() => {
  const { figures, data } = JSON.parse(document.getElementById("report").textContent);
  const options = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
  const narrow = window.matchMedia("(max-width: 40rem)").matches;
  for (const [name, figure] of Object.entries(figures)) {
    if (narrow) {
      figure.layout.margin.l = 44;
      figure.layout.legend.y = -0.32; // in a narrow window the legend has more lines
      options.displayModeBar = false;
    }
    Plotly.newPlot(`chart-${name}`, figure.data, figure.layout, options);
  }

  const front = document.getElementById("chart-front");
  if (!front) return;
  const [words, text, copy] = document.getElementById("clicked").children;

  // The .conf of a point that is not on the front; members of the front have files, which hold more.
  function makeConf(point) {
    const [trial, round, ...ratios] = point.customdata;
    const pruners = point.text.includes(",") ? point.text.split(",") : ratios.map(() => point.text);
    const pruned = data.layers.map((layer, i) => [layer, ratios[i], pruners[i]]).filter(([, ratio]) => ratio > 0);
    const lines = pruned.length ? [0, 1, 2].map((k) => pruned.map((layer) => layer[k])) : [data.layers, ratios];
    lines[1] = lines[1].map((ratio) => Number(ratio.toFixed(6)));
    return [...lines.map((line) => line.join(",")), `# trial = ${trial}`, `# round = ${round}`, ""].join("\n");
  }

  front.on("plotly_click", ({ points }) => {
    const point = points.find((one) => one.id in data.confs || one.customdata);
    if (!point) return;
    const member = point.id in data.confs;
    words.textContent = member ? `confs/${point.id}.conf` : "As a .conf:";
    text.textContent = member ? data.confs[point.id] : makeConf(point);
    text.hidden = copy.hidden = false;
  });
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text.textContent);
      copy.textContent = "Copied";
    } catch {
      // a page opened from a file may not write to the clipboard: select the text for the keyboard instead
      window.getSelection().selectAllChildren(text);
      copy.textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => (copy.textContent = "Copy"), 2000);
  });
})();
