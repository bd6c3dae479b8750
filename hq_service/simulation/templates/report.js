"use strict";
// One cross-hair through all charts, and the values under it beside each chart's name.
// Everything it writes was written on the page when it was made, and goes in as text.
(() => {
  const points = JSON.parse(document.getElementById("points").textContent);
  const charts = document.getElementById("charts");
  const crossHairs = [...charts.querySelectorAll(".cross-hair")];
  const spoken = document.getElementById("spoken");
  const figures = [...charts.querySelectorAll("[data-chart]")].map((figure) => ({
    chart: Number(figure.dataset.chart),
    name: figure.querySelector("h3").textContent,
    series: [...figure.querySelectorAll(".key")].map((key) => key.textContent.trim()),
    values: [...figure.querySelectorAll(".value")],
    readout: figure.querySelector(".readout"),
  }));
  let shown = -1;

  const show = (index) => {
    shown = index;
    const point = points[index];
    charts.classList.add("is-reading");
    for (const line of crossHairs) {
      line.setAttribute("x1", `${point.at}%`);
      line.setAttribute("x2", `${point.at}%`);
    }
    for (const { chart, values, readout } of figures) {
      values.forEach((value, series) => { value.textContent = point.values[chart][series]; });
      readout.textContent = `at ${point.label}`;
    }
  };

  const rest = () => {
    shown = -1;
    charts.classList.remove("is-reading");
    for (const { values, readout } of figures) {
      values.forEach((value) => { value.textContent = ""; });
      readout.textContent = readout.dataset.rest;
    }
  };

  // A point stands for the time that ends with it.
  const under = (plot, event) => {
    const box = plot.getBoundingClientRect();
    const at = (100 * (event.clientX - box.left)) / box.width;
    const index = points.findIndex((point) => point.at >= at);
    return index < 0 ? points.length - 1 : index;
  };

  const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 };
  const wanted = (key) => {
    if (key === "Home") return 0;
    if (key === "End") return points.length - 1;
    const from = shown < 0 && step[key] > 0 ? -1 : shown < 0 ? points.length : shown;
    return key in step ? Math.min(points.length - 1, Math.max(0, from + step[key])) : null;
  };

  for (const plot of charts.querySelectorAll(".plot")) {
    plot.addEventListener("pointermove", (event) => show(under(plot, event)));
    plot.addEventListener("pointerdown", (event) => show(under(plot, event)));
    plot.addEventListener("pointerleave", rest);
    const figure = figures.find(({ chart }) => plot.parentElement.dataset.chart === String(chart));
    if (!figure) continue;
    plot.tabIndex = 0;
    plot.addEventListener("blur", rest);
    plot.addEventListener("keydown", (event) => {
      if (event.key === "Escape") return rest();
      const index = wanted(event.key);
      if (index === null) return;
      event.preventDefault();
      show(index);
      const values = points[index].values[figure.chart];
      const said = figure.series.map((name, series) => `${name} ${values[series]}`);
      spoken.textContent = `${figure.name}, ${points[index].label}: ${said.join(", ")}`;
    });
  }
  document.body.classList.add("with-script");
})();
