// Keeps the page fresh and draws its charts. Without it every page is complete but for the charts.
"use strict";
(() => {
  const LIVE_MS = 3000, CHART_MS = 6000;
  const link = document.getElementById("link");
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Filters that take effect on change; the button stays for those who have no script.
  for (const select of document.querySelectorAll("[data-submit]")) select.addEventListener("change", () => select.form.submit());

  const localTimes = (root) => {
    for (const time of root.querySelectorAll("time")) time.title = new Date(time.dateTime).toLocaleString();
  };
  localTimes(document);

  // The same page is asked for again, and what changed of its live parts is put in place. Nothing under the reader's
  // focus is touched, and a hidden page does not ask.
  let asking = false;
  const refresh = async () => {
    if (asking || document.hidden || !document.querySelector("[data-live]")) return;
    asking = true;
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" } });
      if (!answer.ok) throw new Error(String(answer.status));
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const old of document.querySelectorAll("[data-live]")) {
        const now = fresh.getElementById(old.id);
        if (!now) { if (old.id === "starting") location.reload(); continue; }
        if (old.className !== now.className) old.className = now.className;
        if (old.innerHTML === now.innerHTML && !old.querySelector("time[title]")) continue;
        localTimes(now);
        if (old.innerHTML === now.innerHTML || old.contains(document.activeElement)) continue;
        const scrolled = [...old.querySelectorAll(".scroll")].map((part) => part.scrollLeft);
        old.replaceChildren(...now.childNodes);
        old.querySelectorAll(".scroll").forEach((part, i) => { part.scrollLeft = scrolled[i] || 0; });
      }
      link.hidden = true;
    } catch { link.hidden = false; }
    asking = false;
  };
  setInterval(refresh, LIVE_MS);
  document.addEventListener("visibilitychange", refresh);

  // Charts.
  const utc = (seconds, withDay) => new Date(seconds * 1000).toISOString().slice(withDay ? 5 : 11, 16).replace("T", " ");
  const axes = (label) => {
    const line = { stroke: css("--dim"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line"), width: 1 }, font: "12px system-ui, sans-serif" };
    return [
      { ...line, values: (u, splits) => splits.map((s) => utc(s, u.scales.x.max - u.scales.x.min > 86400)) },
      { ...line, size: 56, label },
    ];
  };
  const bands = (list) => ({ hooks: { drawClear: (u) => {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.beginPath(); ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height); ctx.clip();
    for (const band of list) {
      const from = u.valToPos(band.from, "x", true), to = u.valToPos(band.to, "x", true);
      ctx.fillStyle = css("--" + band.kind);
      ctx.fillRect(from, bbox.top, Math.max(to - from, 3), bbox.height);
    }
    ctx.restore();
  } } });
  const threshold = (value) => ({ hooks: { draw: (u) => {
    const { ctx, bbox } = u, y = u.valToPos(value, "y", true);
    ctx.save();
    ctx.strokeStyle = css("--bad"); ctx.lineWidth = 1.5 * devicePixelRatio; ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
    ctx.beginPath(); ctx.moveTo(bbox.left, y); ctx.lineTo(bbox.left + bbox.width, y); ctx.stroke();
    ctx.restore();
  } } });
  // The legend shows the values under the pointer, and a dash while there is none.
  const time = { label: "UTC", value: (u, v) => (v == null ? "–" : utc(v, true)) };
  const round = (digits) => (u, v) => (v == null ? "–" : v.toFixed(digits));

  const say = (box, text) => { const p = document.createElement("p"); p.textContent = text; box.replaceChildren(p); };
  const plot = (box, options, data) => {
    const chart = new uPlot({ width: box.clientWidth, tzDate: (ts) => uPlot.tzDate(new Date(ts * 1e3), "Etc/UTC"), ...options }, data, box);
    new ResizeObserver(() => chart.setSize({ width: box.clientWidth, height: options.height })).observe(box);
    return chart;
  };

  const kinds = {
    score: (box, data) => {
      if (!data.t.length) return say(box, "No scores in this range.");
      box.replaceChildren();
      plot(box, {
        height: 260, axes: axes(), plugins: [bands(data.bands), threshold(data.threshold)],
        scales: { x: { range: (u, min, max) => (box.zoomed ? [min, max] : [Math.max(data.from, data.t[0] - 900), data.to]) }, y: { range: [0, 1] } },
        hooks: { setSelect: [() => { box.zoomed = true; }] },
        series: [time, { label: "score", stroke: css("--s1"), width: 1.5, value: round(3), points: { show: data.t.length < 60 } }],
      }, [data.t, data.score]);
      if (data.windows > data.drawn) { const p = document.createElement("p"); p.textContent = "The newest " + data.drawn + " windows of this range."; box.append(p); }
    },
    lines: (box, data) => {
      if (!data.t.length) return say(box, "No contributions around this event.");
      box.replaceChildren();
      plot(box, {
        height: 240, axes: axes(), plugins: [bands([{ kind: "event", from: data.from, to: data.to }])], scales: { y: { range: (u, min, max) => [0, Math.max(max, 0.1)] } },
        series: [time, ...data.signals.map(([name], i) => ({ label: name, stroke: css("--s" + (i % 6 + 1)), width: 1.5, value: round(3), dash: i > 2 ? [6, 3] : undefined }))],
      }, [data.t, ...data.signals.map(([, values]) => values)]);
    },
    signals: (box, data) => {
      if (!data.t.length) return say(box, "The input files of this time are not in the bucket.");
      box.replaceChildren();
      data.signals.forEach(([name, values], i) => {
        const part = document.createElement("div");
        box.append(part);
        plot(part, {
          title: name, height: 170, axes: axes(), plugins: [bands([{ kind: "event", from: data.from, to: data.to }])], cursor: { sync: { key: "signals" } },
          series: [time, { label: "value", stroke: css("--s" + (i % 6 + 1)), width: 1, spanGaps: true, value: round(4), points: { show: false } }],
        }, [data.t, values]);
      });
    },
  };
  const draw = async (box) => {
    try {
      const answer = await fetch(box.dataset.src);
      if (!answer.ok) throw new Error(String(answer.status));
      const text = await answer.text();
      if (text === box.drawn || box.zoomed || box.matches(":hover")) return;
      box.drawn = text;
      kinds[box.dataset.chart](box, JSON.parse(text));
    } catch { if (!box.drawn) say(box, "The data of this chart cannot be read now."); }
  };
  const charts = [...document.querySelectorAll("[data-chart]")];
  charts.forEach(draw);
  setInterval(() => { if (!document.hidden) charts.filter((box) => box.dataset.chart === "score").forEach(draw); }, CHART_MS);
  for (const box of charts) box.addEventListener("dblclick", () => { box.zoomed = false; });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((box) => { box.drawn = null; box.zoomed = false; draw(box); }));
})();
