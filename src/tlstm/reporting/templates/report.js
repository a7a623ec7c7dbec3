"use strict";

const plots = [];

/** The checked values of every filter, by its name. */
function chosen() {
  const values = {};
  for (const group of document.querySelectorAll("fieldset[data-name]")) {
    const checked = group.querySelectorAll("input:checked");
    values[group.dataset.name] = new Set(Array.from(checked, (box) => box.value));
  }
  return values;
}

/** Whether something passes every filter; what does not say what it is of passes. */
function passes(described, values) {
  return Object.entries(values).every(
    ([name, kept]) => described[name] === undefined || kept.has(described[name]),
  );
}

function filter() {
  const values = chosen();
  for (const element of document.querySelectorAll("[data-filtered]")) {
    element.hidden = !passes(element.dataset, values);
  }
  for (const plot of plots) {
    for (const drawn of [...plot.renderers, ...plot.center]) {
      if (drawn.tags.length > 0) drawn.visible = passes(drawn.tags[0], values);
    }
  }
  const runs = document.querySelectorAll("#runs tbody tr");
  const shown = Array.from(runs).filter((row) => !row.hidden).length;
  document.getElementById("shown").textContent = `${shown} of ${runs.length} runs shown`;
}

/** Text, axes and grid in the page's colors, which follow the reader's light or dark setting. */
function paint() {
  const style = getComputedStyle(document.documentElement);
  const [ink, soft, line] = ["--ink", "--soft", "--line"].map((name) => style.getPropertyValue(name).trim());
  for (const plot of plots) {
    for (const axis of [...plot.below, ...plot.left]) {
      axis.setv({
        axis_label_text_color: soft, axis_label_text_font_style: "normal", major_label_text_color: soft,
        axis_line_color: line, major_tick_line_color: line, minor_tick_line_color: null,
      });
    }
    for (const part of plot.center) {
      if (part.tags[1] === "ink") part.line_color = ink;
      if (part.grid_line_color !== undefined) part.grid_line_color = line;
    }
    for (const drawn of plot.renderers) {
      if (drawn.tags[1] !== "ink") continue;
      drawn.glyph.line_color = ink;
      if (drawn.glyph.fill_color !== undefined) drawn.glyph.fill_color = ink;
    }
  }
}

/** Draw the charts of one group, which wait until a reader comes near: a page may have hundreds. */
async function draw(charts) {
  if (charts.dataset.drawn) return;
  charts.dataset.drawn = "begun";
  const { document: drawn, places } = JSON.parse(charts.querySelector("script").textContent);
  const item = { docid: "charts", roots: places, root_ids: Object.keys(places) };
  const before = Bokeh.documents.length;
  await Bokeh.embed.embed_items({ charts: drawn }, [item]);
  plots.push(...Bokeh.documents.slice(before).flatMap((each) => each.roots()).filter((plot) => plot.id in places));
  paint();
  filter();
  charts.dataset.drawn = "yes";
}

function start() {
  const observer = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) if (isIntersecting) draw(target);
  }, { rootMargin: "600px" });
  for (const charts of document.querySelectorAll(".charts")) observer.observe(charts);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  document.addEventListener("change", (event) => {
    if (event.target.closest("fieldset[data-name]")) filter();
  });
  for (const button of document.querySelectorAll("legend button")) {
    button.addEventListener("click", () => {
      const boxes = Array.from(button.closest("fieldset").querySelectorAll("input"));
      const all = boxes.every((box) => box.checked);
      for (const box of boxes) box.checked = !all;
      filter();
    });
  }
  filter();
  document.documentElement.dataset.ready = "yes";
}

start();
