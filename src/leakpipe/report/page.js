// Pictures, table, and what happens when something is pressed.

// ---- Pictures --------------------------------------------------------------------------------------------------

/** Draws one tile over the whole canvas, or over its left `share`. */
function drawTile(canvas, tile, share = 1) {
  const { side, columns, per_sheet } = data.pictures;
  const sheet = sheets[Math.floor(tile / per_sheet)];
  const rest = tile % per_sheet;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(
    sheet,
    (rest % columns) * side,
    Math.floor(rest / columns) * side,
    side * share,
    side,
    0,
    0,
    canvas.width * share,
    canvas.height,
  );
}

/** The most leaked image, at the top of the page. */
function showLead() {
  if (!sheets.length) return;
  const tiles = data.pictures.tiles[data.lead];
  ["lead-original", "lead-rebuilt", "lead-prior"].forEach((id, which) => drawTile(find(id), tiles[which]));
  document.querySelector(".lead").hidden = false;
}

function newPicture(tile, side) {
  const canvas = make("canvas", { width: side, height: side, "aria-hidden": "true" });
  drawTile(canvas, tile);
  return canvas;
}

// ---- Comparison ------------------------------------------------------------------------------------------------

function showComparison() {
  if (!data.rows.length || !chosen.length) return void (find("comparison").hidden = true);
  const index = chosen.includes(Number(state.row)) && state.row !== "" ? Number(state.row) : chosen[0];
  const row = data.rows[index];
  const value = (name) => write(name, row[place[name]]);
  find("comparison").hidden = false;
  find("compared").textContent =
    `Image ${value("image")} of ${row[place.client]}; ${value("defense")}; attack ${value("attack")}; round ${value("round")}, seed ${value("seed")}: SSIM ${value("ssim")}, prior ${value("ssim_prior")}, RDLV ${value("rdlv")}`;
  find("compared-place").textContent = `Row ${chosen.indexOf(index) + 1} of ${chosen.length}`;
  for (const button of find("rows").querySelectorAll("button"))
    button.setAttribute("aria-pressed", String(Number(button.value) === index));
  current = index;
  if (!sheets.length) return;
  const [original, rebuilt, prior] = data.pictures.tiles[index];
  for (const [id, tile] of [
    ["original", original],
    ["rebuilt", rebuilt],
    ["prior", prior],
  ])
    drawTile(find(id), tile);
  for (const input of document.getElementsByName("against")) input.checked = input.value === state.against;
  wipe();
}

/** The slider: left of its line the private image, right of it the reconstruction or the prior. */
function wipe() {
  const [original, rebuilt, prior] = data.pictures.tiles[current];
  const share = find("wipe").value / 100;
  const canvas = find("wiped");
  drawTile(canvas, state.against === "prior" ? prior : rebuilt);
  drawTile(canvas, original, share);
  const context = canvas.getContext("2d");
  context.fillStyle = colorOf("--accent");
  if (share > 0 && share < 1) context.fillRect(Math.round(canvas.width * share) - 2, 0, 4, canvas.height);
  const other = state.against === "prior" ? "prior" : "reconstruction";
  find("wipe").setAttribute("aria-valuetext", `${find("wipe").value} % private image, the rest ${other}`);
}

/** Moves the slider to where its picture is pressed or dragged. */
function drag(event) {
  if (!event.buttons) return;
  find("wipe").value = (100 * event.offsetX) / event.target.clientWidth;
  wipe();
}

function step(by) {
  const next = chosen[chosen.indexOf(current) + by];
  if (next !== undefined) change({ row: String(next) });
}

// ---- Table -----------------------------------------------------------------------------------------------------

function showTable() {
  const first = page * PAGE_ROWS;
  const shown = chosen.slice(first, first + PAGE_ROWS);
  find("rows").replaceChildren(...shown.map(makeRow));
  find("page-status").textContent = shown.length
    ? `Rows ${first + 1} to ${first + shown.length} of ${chosen.length}`
    : "No rows";
  find("page-back").disabled = page === 0;
  find("page-on").disabled = first + PAGE_ROWS >= chosen.length;
  for (const header of find("head").children) {
    const name = header.dataset.column;
    if (name)
      header.setAttribute(
        "aria-sort",
        state.sort === name ? "ascending" : state.sort === `-${name}` ? "descending" : "none",
      );
  }
}

function makeRow(index) {
  const row = data.rows[index];
  const button = make("button", {
    type: "button",
    value: index,
    "aria-label": `Show image ${row[place.image]} of ${row[place.client]}, seed ${row[place.seed]}`,
  });
  if (sheets.length)
    button.append(...data.pictures.tiles[index].slice(0, 2).map((tile) => newPicture(tile, data.pictures.side)));
  else button.append("show");
  const cells = data.columns.map((name) =>
    make(
      "td",
      name in data.digits ? {} : { class: "text" },
      name === "client" ? row[place.client] : write(name, row[place[name]]),
    ),
  );
  return make("tr", {}, make("td", { class: "text" }, button), ...cells);
}

function makeHeader(name) {
  const button = make("button", { type: "button" }, name);
  const [first, second] = name in data.digits ? [`-${name}`, name] : [name, `-${name}`]; // the largest numbers matter most
  button.addEventListener("click", () => change({ sort: state.sort === first ? second : first }));
  return make(
    "th",
    { scope: "col", "data-column": name, "aria-sort": "none", class: name in data.digits ? "" : "text" },
    button,
  );
}

// ---- All together ----------------------------------------------------------------------------------------------

function show() {
  chosen = chooseRows();
  offerFilters();
  for (const name of [...FILTERS, "x", "y"]) find(`choose-${name}`).value = state[name];
  find("row-count").textContent = `${chosen.length} of ${data.rows.length} rows`;
  drawChart(chosen);
  showTable();
  showComparison();
}

function turn(by) {
  page += by;
  showTable();
  showComparison();
}

function listen() {
  for (const name of [...FILTERS, "y"])
    find(`choose-${name}`).addEventListener("change", (event) => change({ [name]: event.target.value }));
  find("choose-x").addEventListener("change", ({ target }) =>
    change({ x: target.value, [AXES[target.value].column]: "" }), // one round, or one defence, is one place on the axis
  );
  for (const input of document.getElementsByName("against"))
    input.addEventListener("change", () => change({ against: input.value }));
  find("filters").addEventListener("submit", (event) => event.preventDefault());
  find("clear").addEventListener("click", () => change(Object.fromEntries(FILTERS.map((name) => [name, ""]))));
  find("wipe")?.addEventListener("input", wipe); // not there on a page without pictures
  for (const name of ["pointerdown", "pointermove"]) find("wiped")?.addEventListener(name, drag);
  find("row-back").addEventListener("click", () => step(-1));
  find("row-on").addEventListener("click", () => step(1));
  find("page-back").addEventListener("click", () => turn(-1));
  find("page-on").addEventListener("click", () => turn(1));
  find("rows").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    change({ row: button.value });
    find("comparison").scrollIntoView({ block: "nearest" });
  });
  find("chart").addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || !chart) return;
    event.preventDefault();
    readMark(Math.min(Math.max(hovered + by, 0), chart.marks.length - 1));
  });
  addEventListener("hashchange", () => {
    if (!location.hash.includes("=")) return; // a link to a section
    state = readState();
    show();
  });
  addEventListener("resize", () => chart?.setSize({ width: find("chart").clientWidth, height: 320 }));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  find("theme").addEventListener("change", (event) => {
    document.documentElement.dataset.theme = event.target.value;
    show();
  });
}

async function loadSheet(source) {
  const image = new Image();
  image.src = source;
  await image.decode();
  return image;
}

const sheets = await Promise.all((data.pictures?.sheets ?? []).map(loadSheet));
let state = readState();
let page = 0; // of the table
let chosen = []; // numbers of the rows that the filters leave, in the order of the table
let current = 0; // number of the row that is compared
find("head").append(...data.columns.map(makeHeader));
listen();
find("explorer").hidden = false;
showLead();
show();
