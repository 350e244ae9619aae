// The chart: means over images and seeds as lines, read by pointing at a mark or with the arrow keys.

const LINES = 36; // six colours with six shapes each: more than these cannot be told apart
const SHAPES = ["circle", "square", "triangle", "diamond", "cross", "wedge"];
const HINT = "Point at a mark, or focus the chart and press the left and right arrow keys, to read its values.";
let chart = null;
let hovered = -1; // number of the mark that is read

function listPoints(rows) {
  const [axis, measure] = [AXES[state.x], MEASURES[state.y]];
  const cells = new Map();
  for (const index of rows) {
    const row = data.rows[index];
    const [x, y] = [axis.of(row), measure.of(row)];
    if (x === undefined || row[place[state.y === "rdlv" ? "rdlv" : "ssim"]] === null) continue;
    const names = ["client", "defense", "attack", "round"].map((name) => [name, String(row[place[name]])]);
    const key = JSON.stringify(names);
    if (!cells.has(key)) cells.set(key, { x, names: Object.fromEntries(names), values: [], seeds: new Set() });
    cells.get(key).values.push(y);
    cells.get(key).seeds.add(row[place.seed]);
  }
  const points = [...cells.values()].map((cell) => ({
    ...cell,
    y: cell.values.reduce((sum, value) => sum + value, 0) / cell.values.length,
    interval: findInterval(cell.names),
  }));
  return points.sort((a, b) => a.x - b.x);
}

/** The 95 % interval over all seeds, as computed with the tables; none for one seed. */
function findInterval({ client, defense, attack, round }) {
  const found = data.intervals[JSON.stringify([client, defense, attack, round])];
  return state.seed === "" ? found?.[state.y] : undefined;
}

/** Points by line; a line is called by what tells it from the others. */
function listLines(points) {
  const parts = ["client", "attack", "defense", "round"].filter((name) => name !== AXES[state.x].column);
  const differing = parts.filter((name) => new Set(points.map((point) => point.names[name])).size > 1);
  const called = differing.length ? differing : ["client"];
  const lines = new Map();
  const order = (point) => called.map((name) => [...NAMES[name].keys()].indexOf(point.names[name]));
  for (const point of points) {
    const label = called
      .map((name) =>
        name === "round"
          ? `round ${point.names.round}`
          : name === "client"
            ? point.names.client
            : write(name, point.names[name]),
      )
      .join(", ");
    if (!lines.has(label)) lines.set(label, { label, client: point.names.client, order: order(point), points: [] });
    lines.get(label).points.push(point);
  }
  const sorted = [...lines.values()].sort(
    (a, b) => a.order.map((value, index) => value - b.order[index]).find((value) => value) ?? 0,
  );
  return sorted.map((line, index) => ({ ...line, index }));
}

/** As many lines as can be told apart, of every client as many as of any other. */
function chooseLines(lines) {
  const seen = {};
  const ranked = lines.map((line) => ({ line, rank: (seen[line.client] = (seen[line.client] ?? 0) + 1) }));
  ranked.sort((a, b) => a.rank - b.rank || a.line.index - b.line.index);
  const kept = ranked.slice(0, LINES).map(({ line }) => line);
  return kept.sort((a, b) => a.index - b.index).map((line, index) => Object.assign(line, { index }));
}

function drawMark(context, line, x, y, radius) {
  const round = Math.floor(line.index / SHAPES.length);
  const shape = SHAPES[(line.index + round) % SHAPES.length];
  const corners = {
    square: [
      [-1, -1],
      [1, -1],
      [1, 1],
      [-1, 1],
    ],
    triangle: [
      [0, -1.2],
      [1.2, 1],
      [-1.2, 1],
    ],
    diamond: [
      [0, -1.35],
      [1.35, 0],
      [0, 1.35],
      [-1.35, 0],
    ],
    wedge: [
      [0, 1.2],
      [1.2, -1],
      [-1.2, -1],
    ],
    cross: [
      [-1.3, -0.45],
      [-0.45, -0.45],
      [-0.45, -1.3],
      [0.45, -1.3],
      [0.45, -0.45],
      [1.3, -0.45],
      [1.3, 0.45],
      [0.45, 0.45],
      [0.45, 1.3],
      [-0.45, 1.3],
      [-0.45, 0.45],
      [-1.3, 0.45],
    ],
  }[shape];
  context.beginPath();
  if (corners) for (const [dx, dy] of corners) context.lineTo(x + dx * radius, y + dy * radius);
  else context.arc(x, y, radius, 0, 2 * Math.PI);
  context.closePath();
  context.fillStyle = context.strokeStyle = colorOf(`--line-${line.index % SHAPES.length}`);
  context.lineWidth = radius / 2;
  if (round % 2) context.stroke(); // hollow from the seventh to the twelfth, and so on
  else context.fill();
}

function describePoint({ point, line }) {
  const values = point.values;
  const ends =
    values.length > 1 ? `${writeInterval(point)}, values from ${write("rdlv", Math.min(...values))} to ${write("rdlv", Math.max(...values))}` : "";
  const where = ["client", "attack", "defense"].map((name) => write(name, point.names[name])).join("; ");
  return `${where}; round ${point.names.round}: mean ${MEASURES[state.y].label} ${write("rdlv", point.y)}${ends} (n = ${values.length}, seeds: ${point.seeds.size}); test accuracy ${write("ssim", data.accuracy[point.names.defense] ?? null)}.`;
}

function writeInterval({ interval }) {
  return interval ? `, 95 % interval [${interval.map((end) => write("rdlv", end)).join(", ")}]` : "";
}

function drawChart(rows) {
  const points = listPoints(rows);
  const all = listLines(points);
  const lines = chooseLines(all);
  const marks = points
    .map((point) => ({ point, line: lines.find((line) => line.points.includes(point)) }))
    .filter((mark) => mark.line);
  chart?.destroy();
  chart = null;
  hovered = -1;
  find("legend").replaceChildren(...lines.map(makeLegendEntry));
  find("chart-note").textContent = noteChart(rows, points, all);
  find("readout").textContent = marks.length ? HINT : "Nothing to draw: choose other filters or another axis.";
  find("chart-rows").replaceChildren(...marks.map(makeChartRow));
  find("chart-heading").textContent = `Mean ${MEASURES[state.y].label} by ${AXES[state.x].label}`;
  if (!marks.length) return;
  const table = [
    marks.map(({ point }) => point.x),
    ...lines.map((line) => marks.map((mark) => (mark.line === line ? mark.point.y : null))),
  ];
  const [ink, faint] = [colorOf("--soft"), colorOf("--line")];
  const axis = {
    stroke: ink,
    grid: { stroke: faint, width: 1 },
    ticks: { stroke: faint },
    font: "13px system-ui, sans-serif",
    labelFont: "13px system-ui, sans-serif",
  };
  const ends = marks.flatMap(({ point }) => [point.y, ...(point.interval ?? [])]);
  const pad = (_, low, high) => {
    const room = Math.max((high - low) * 0.06, 0.02);
    return [low - room, high + room];
  };
  chart = new uPlot(
    {
      width: find("chart").clientWidth,
      height: 320,
      legend: { show: false },
      cursor: { x: false, y: false, drag: { x: false, y: false }, points: { show: false } },
      scales: {
        x: { time: false, range: pad },
        y: { range: () => pad(null, Math.min(...ends, 0), Math.max(...ends, 0)) },
      },
      axes: [
        { ...axis, label: AXES[state.x].label },
        {
          ...axis,
          label: MEASURES[state.y].label,
          size: 68,
          values: (_, ticks) => ticks.map((tick) => String(tick).replace("-", "−")),
        },
      ],
      series: [
        {},
        ...lines.map((line) => ({
          stroke: colorOf(`--line-${line.index % SHAPES.length}`),
          width: AXES[state.x].line ? 2 : 0,
          dash: Math.floor(line.index / SHAPES.length) % 2 ? [6, 4] : [],
          spanGaps: true,
          points: { show: false },
        })),
      ],
      hooks: { draw: [(plot) => drawMarks(plot, marks, ink)], setCursor: [(plot) => hover(plot, marks)] },
    },
    table,
    find("chart"),
  );
  chart.marks = marks;
}

function drawMarks(plot, marks, ink) {
  const [context, scale] = [plot.ctx, devicePixelRatio];
  const zero = Math.round(plot.valToPos(0, "y", true)) + 0.5;
  context.save();
  context.strokeStyle = ink;
  context.setLineDash([4 * scale, 4 * scale]);
  context.beginPath();
  context.moveTo(plot.bbox.left, zero);
  context.lineTo(plot.bbox.left + plot.bbox.width, zero);
  context.stroke();
  context.setLineDash([]);
  for (const { point, line } of marks) if (point.interval) drawInterval(plot, point, line, scale);
  marks.forEach(({ point, line }, index) =>
    drawMark(
      context,
      line,
      plot.valToPos(point.x, "x", true),
      plot.valToPos(point.y, "y", true),
      (index === hovered ? 8 : 5) * scale,
    ),
  );
  context.restore();
}

function drawInterval(plot, point, line, scale) {
  const { ctx } = plot;
  const x = plot.valToPos(point.x, "x", true);
  ctx.strokeStyle = colorOf(`--line-${line.index % SHAPES.length}`);
  ctx.lineWidth = 1.5 * scale;
  ctx.beginPath();
  for (const end of point.interval) ctx.lineTo(x, plot.valToPos(end, "y", true));
  ctx.stroke();
}

function hover(plot, marks) {
  const { left, top } = plot.cursor;
  if (left === undefined || left < 0) return;
  const distances = marks.map(({ point }) =>
    Math.hypot(plot.valToPos(point.x, "x") - left, plot.valToPos(point.y, "y") - top),
  );
  const nearest = distances.indexOf(Math.min(...distances));
  if (distances[nearest] < 40) readMark(nearest);
}

function readMark(index) {
  if (index === hovered) return;
  hovered = index;
  find("readout").textContent = describePoint(chart.marks[index]);
  chart.redraw(false);
}

function noteChart(rows, points, lines) {
  const without = new Set(
    rows
      .map((index) => data.rows[index])
      .filter((row) => AXES[state.x].of(row) === undefined)
      .map((row) => row[place.defense]),
  );
  const bars = state.seed === "" ? " bars: 95 % intervals over seeds, from three seeds on;" : "";
  const notes = [`Means over images and seeds;${bars} dashed: 0, no more than the prior shows.`];
  if (state.y === "ssim") notes[0] = `Means over images and seeds${bars.slice(0, -1) && `;${bars.slice(0, -1)}`}.`;
  if (lines.length > LINES)
    notes.push(`${LINES} of ${lines.length} lines are drawn, of every client: filter to see the others.`);
  if (without.size) notes.push(`Left out, because they have no place on this axis: ${[...without].join(", ")}.`);
  return notes.join(" ");
}

function makeLegendEntry(line) {
  const canvas = make("canvas", { width: 32, height: 32, "aria-hidden": "true" });
  drawMark(canvas.getContext("2d"), line, 16, 16, 9);
  return make("li", {}, canvas, line.label);
}

function makeChartRow({ point, line }) {
  const interval = point.interval ? `[${point.interval.map((end) => write("ssim", end)).join(", ")}]` : "–";
  const cells = [point.x, write("ssim", point.y), interval, point.values.length, point.seeds.size].map((value) =>
    make("td", {}, String(value)),
  );
  return make(
    "tr",
    {},
    make("th", { scope: "row", class: "text" }, line.label),
    make("td", { class: "text" }, write("defense", point.names.defense)),
    ...cells,
  );
}
