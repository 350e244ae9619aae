// What the page shows: rows of #data, the state that chooses among them, and small helpers. rows.js, chart.js and
// page.js are one module on the page, in this order. State lives in the URL after #: a view can be sent to others.

const data = JSON.parse(document.getElementById("data").textContent);
const FILTERS = ["client", "round", "defense", "attack", "seed"];
const PAGE_ROWS = 25;
const place = Object.fromEntries(data.columns.map((name, index) => [name, index]));
const NAMES = Object.fromEntries(FILTERS.map((name) => [name, new Map(data.filters[name])]));
const MEASURES = {
  gain: { label: "SSIM gained over the prior", of: (row) => row[place.ssim] - row[place.ssim_prior] },
  ssim: { label: "SSIM", of: (row) => row[place.ssim] },
  rdlv: { label: "RDLV", of: (row) => row[place.rdlv] },
};
const AXES = {
  noise: {
    label: "noise multiplier σ₀ of the defence",
    of: (row) => data.noise[row[place.defense]],
    column: "defense",
    line: true,
  },
  round: { label: "round", of: (row) => row[place.round], column: "round", line: true },
  accuracy: {
    label: "test accuracy after the last round",
    of: (row) => data.accuracy[row[place.defense]],
    column: "defense",
  },
};
const START = {
  client: "",
  defense: "",
  seed: "",
  ...data.start,
  x: "noise",
  y: "gain",
  sort: "-rdlv",
  row: "",
  against: "rebuilt",
};
const find = (id) => document.getElementById(id);

// ---- State -----------------------------------------------------------------------------------------------------

function readState() {
  const given = new URLSearchParams(location.hash.slice(1));
  if (![...given.keys()].some((name) => name in START && given.get(name))) return { ...START };
  const state = Object.fromEntries(Object.keys(START).map((name) => [name, given.get(name) ?? ""]));
  for (const name of FILTERS) if (!NAMES[name].has(state[name])) state[name] = "";
  if (!(state.x in AXES)) state.x = START.x;
  if (!(state.y in MEASURES)) state.y = START.y;
  if (!(state.sort.replace("-", "") in place)) state.sort = "";
  if (!data.rows[state.row]) state.row = "";
  if (state.against !== "prior") state.against = START.against;
  return state;
}

function change(changes) {
  state = { ...state, ...changes };
  const kept = Object.entries(state).filter(([, value]) => value !== "");
  history.replaceState(null, "", `#${new URLSearchParams(kept)}`);
  const drawn = Object.keys(changes);
  if (drawn.some((name) => FILTERS.includes(name))) page = 0;
  if (drawn.some((name) => ["row", "against"].includes(name)) && drawn.length === 1) showComparison();
  else show();
}

// ---- Rows ------------------------------------------------------------------------------------------------------

const number = (value) => (value === "inf" ? Infinity : value === "-inf" ? -Infinity : value);

function write(name, value) {
  if (value === null) return "–";
  const shown = number(value);
  if (typeof shown === "number" && name in data.digits) {
    return Number.isFinite(shown) ? shown.toFixed(data.digits[name]).replace("-", "−") : shown < 0 ? "−∞" : "∞";
  }
  return NAMES[name]?.get(String(value)) ?? String(value);
}

function compare(first, second) {
  if (first === null || second === null) return (first === null) - (second === null); // no number: last
  const [a, b] = [number(first), number(second)];
  return typeof a === "number" && typeof b === "number"
    ? a < b
      ? -1
      : a > b
        ? 1
        : 0
    : String(a).localeCompare(String(b), "en", { numeric: true });
}

/** Whether a row passes all filters, but for the one named `besides`. */
function passes(row, besides) {
  return FILTERS.every((name) => name === besides || state[name] === "" || String(row[place[name]]) === state[name]);
}

/** Offers only what was run with the other filters as they are. */
function offerFilters() {
  for (const name of FILTERS) {
    const there = new Set(data.rows.filter((row) => passes(row, name)).map((row) => String(row[place[name]])));
    for (const option of find(`choose-${name}`).options) option.disabled = option.value !== "" && !there.has(option.value);
  }
  for (const option of find("choose-x").options)
    option.disabled = !data.rows.some((row) => passes(row) && AXES[option.value].of(row) !== undefined);
}

/** Numbers of the rows that the filters leave, in the order of the table. */
function chooseRows() {
  const chosen = data.rows.map((_, index) => index).filter((index) => passes(data.rows[index]));
  if (!state.sort) return chosen;
  const column = place[state.sort.replace("-", "")];
  const sign = state.sort.startsWith("-") ? -1 : 1;
  return chosen.sort((a, b) => {
    const [first, second] = [data.rows[a][column], data.rows[b][column]];
    return (first === null || second === null ? 1 : sign) * compare(first, second) || a - b;
  });
}

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function colorOf(name) {
  const probe = find("probe");
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}
